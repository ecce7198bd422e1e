"""`flowbench run`: train, sample and score one method, storing each score as it is made."""

import sys
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words
from flowbench.records import FlowbenchError, RunFailed

# What a suite's file decides; --seed and --dataset choose among its cells.
DECIDED = (
    *("method", "nfe", "samples", "sample_seed", "steps", "images", "batch", "options", "teacher"),
)


@click.command()
@click.argument("method", required=False, type=words.Name("method"))
@click.option("--dataset", type=words.Name("dataset"), help="See `datasets`.")
@click.option(
    "--suite",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run what is missing of this file; --dataset and --seed choose among its runs.",
)
@click.option("--jobs", type=click.IntRange(1), help="Of a suite at once.  [cores, or 1 on a GPU]")
@click.option("--dry-run", "dry", is_flag=True, help="Of a suite: print the plan, write nothing.")
@click.option(
    "--nfe",
    type=words.NFE,
    default="1,2,4,8",
    show_default=True,
    help="Evaluations per sample; auto: what an adaptive solver takes.",
)
@click.option(
    "--seed",
    "seeds",
    type=words.SEEDS,
    default="0",
    show_default=True,
    help="Training seeds, each a run of its own.",
)
@click.option(
    "--samples", type=click.IntRange(2, 10**7), help="Samples per NFE.  [data set's default]"
)
@click.option(
    "--sample-seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Noise stream that samples start from.",
)
@click.option("--steps", type=click.IntRange(1), help="Steps per stage.  [data set's default]")
@click.option("--images", type=click.IntRange(1), help="The same in examples: steps x batch.")
@click.option("--batch", type=click.IntRange(1), help="Examples per step.  [data set's default]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the method: see `flowbench methods METHOD`.",
)
@click.option("--teacher", help="A method, an earlier run, or a network.safetensors.")
@click.option("--force", is_flag=True, help="Do it anew, teacher excepted; old numbers stay.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "--checkpoint-every",
    "every",
    type=click.FloatRange(0),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How much work a crash may cost.",
)
@words.runs
@words.data_root
@words.database
@click.pass_context
def run(ctx, suite, jobs, dry, db, folder, data_root, device, quiet, force, every, **asked) -> None:
    """Train METHOD on a data set, sample at each NFE, and store every score.

    What is stored already is not done again: the same command finishes what is missing. With
    --suite, all that a file names is done that way, several runs at a time.
    """
    from flowbench import environment, execution, planning
    from flowbench.cli.progress import watcher
    from flowbench.store import Store

    place = words.runs_folder(db, folder)
    if suite is not None:
        rest = (device, jobs, dry, quiet, force, every, folder is not None)
        return _suite(ctx, suite, db, place, data_root, *rest)
    _check(asked, jobs, dry)
    seeds = asked.pop("seeds")
    request = _request(db, **asked)
    with execution.terminable(), watcher(quiet, sys.stderr.isatty()) as watch:
        setup = planning.Setup(
            device=environment.device(device),
            folder=made_folder(place, folder is not None),
            data_root=data_root,
            every=every,
            watch=watch,
            note=lambda text: click.echo(text, err=True),
        )
        plans = [planning.plan(request(seed), setup) for seed in dict.fromkeys(seeds)]
        store = Store(words.url(db))
        failures = [_one(store, plan, setup, force, quiet) for plan in plans]
    if not quiet:
        _summary(store, plans)
    if any(failures):
        raise RunFailed("; ".join(filter(None, failures)))


def _suite(ctx: click.Context, path: Path, *arguments: Any) -> None:
    """Run a suite; what its file decides may not be given beside it."""
    from flowbench.cli import suite

    suite.refuse(ctx, DECIDED)
    dataset, seeds = ctx.params["dataset"], ctx.params["seeds"]
    default = ctx.get_parameter_source("seeds") is click.core.ParameterSource.DEFAULT
    narrow = {"seeds": () if default else seeds, "datasets": [dataset] if dataset else ()}
    suite.run(path, narrow, *arguments)


def _check(asked: dict[str, Any], jobs: int | None, dry: bool) -> None:
    """Raise what click raises for words that are missing, or that only a suite takes."""
    if asked["method"] is None:
        raise click.UsageError("Missing argument 'METHOD' (or --suite FILE).")
    if asked["dataset"] is None:
        raise click.UsageError("Missing option '--dataset'.")
    if jobs is not None or dry:
        raise click.UsageError("--jobs and --dry-run belong to --suite.")


def made_folder(folder: Path, named: bool) -> Path:
    """The folder of runs; the place of a database that does not exist is not made up."""
    try:
        folder.mkdir(parents=named, exist_ok=True)
    except OSError as error:
        raise FlowbenchError(f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder


def _request(db: str, method, dataset, options, teacher, **asked: Any):
    """A function from a seed to the request of that run."""
    from flowbench.planning import Request

    settings = words.assignments(options)
    chosen = None if teacher is None else _teacher(db, teacher)
    return lambda seed: Request(method, dataset, seed, options=settings, teacher=chosen, **asked)


def _teacher(db: str, word: str):
    """What `--teacher` names: a method, a file, or an earlier run."""
    from flowbench import plugins
    from flowbench.store import Store

    if word in plugins.methods():
        return word
    if Path(word).is_file():
        return Path(word)
    try:
        return Store.open_existing(words.url(db)).find(word)
    except FlowbenchError as error:
        raise FlowbenchError(
            f"--teacher {word} is no method, no file and no run: {error}"
        ) from error


def _one(store, plan, setup, force: bool, quiet: bool) -> str:
    """Do what is missing of one run; returns its name and why it failed, or nothing."""
    from flowbench.execution import execute

    name = f"{plan.spec.variant} on {plan.spec.dataset}, seed {plan.spec.seed}"

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"{name}: {text}")

    failure = execute(store, plan, setup, force, say=say)
    return f"{name}: {failure}" if failure else ""


def _summary(store, plans) -> None:
    from flowbench import compare
    from flowbench.cli.tables import goals, ledger
    from flowbench.report import terminal

    names = {plan.spec.name for plan in plans}
    measured = [row for row in store.measured(plans[0].spec.dataset) if row.run in names]
    terminal.show(map(ledger, compare.sections(measured, goals=goals())))
