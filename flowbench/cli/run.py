"""`flowbench run`: train, sample and score one method, storing each score as it is made."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from flowbench.cli import asking, words
from flowbench.records import RunFailed

# What a suite's file decides; --seed and --dataset choose among its cells.
DECIDED = (
    *("method", "nfe", "samples", "sample_seeds", "steps", "images", "batch", "options"),
    *("teacher", "weights", "network", "precision", "augment", "unconditional", "reference_rows"),
    *("preset", "optimizer"),
)


@click.command()
@click.argument("method", required=False, type=words.Name("method"))
@click.option(
    "--dataset", type=words.Name("dataset"), help="See `datasets`; or a zip or folder of images."
)
@click.option(
    "--suite",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run what is missing of this file; --dataset and --seed choose among its runs.",
)
@click.option("--jobs", type=click.IntRange(1), help="Of a suite at once.  [cores, or 1 on a GPU]")
@click.option(
    "--dry-run", "dry", flag_value="suite", help="Of a suite: print the plan, do nothing."
)
@click.option("--explain", "dry", flag_value="run", help="Print what is there and why; do nothing.")
@click.option("--token", is_flag=True, help="Of a suite: its runs at a size that only proves them.")
@click.option(
    "--preset",
    metavar="NAME",
    help="A paper's settings: see `methods METHOD`.  [that of the data set's name, or none]",
)
@click.option(
    "--nfe",
    type=words.NFE,
    help="Evaluations per sample; auto: an adaptive solver's.  [preset's, or 1,2,4,8]",
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
    "--samples",
    type=click.IntRange(2, 10**7),
    help="Samples per NFE.  [preset's, or the data set's]",
)
@click.option(
    "--sample-seed",
    "sample_seeds",
    type=words.SEEDS,
    default="0",
    show_default=True,
    help="Noise streams that samples start from; 0,1,2: their mean, sd and minimum.",
)
@click.option(
    "--steps", type=click.IntRange(1), help="Steps of training.  [preset's, or the data set's]"
)
@click.option("--images", type=click.IntRange(1), help="The same in examples: steps x batch.")
@click.option(
    "--batch", type=click.IntRange(1), help="Examples per step.  [preset's, or the data set's]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the method: see `flowbench methods METHOD`.",
)
@click.option("--teacher", help="A method, an earlier run, or a file: see `flowbench import -h`.")
@click.option("--weights", type=words.FILE, help="Train nothing: examine the network of this file.")
@click.option("--network", metavar="WORD", help="The backbone: see `flowbench networks`.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Of the backbone.")
@click.option(
    "--optimizer", metavar="WORD", help="adam, or how else: radam,schedule=constant; see README."
)
@click.option("--augment", metavar="WORD", help="none, flip, edm or edm:0.12.  [default: none]")
@click.option("--unconditional", is_flag=True, help="Leave the labels out.")
@click.option("--micro-batch", type=click.IntRange(1), help="Examples at once.  [what fits]")
@click.option("--compile", is_flag=True, help="Compile the backbone for training.")
@click.option(
    "--reference", type=words.FILE, help="Statistics in the place of the training split's."
)
@click.option(
    "--reference-rows", type=click.IntRange(2), help="Of the training split.  [default: all]"
)
@words.inception
@words.dinov2
@words.clean
@words.feature_weights
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
def run(ctx, suite, jobs, dry, token, db, folder, quiet, force, **asked) -> None:
    """Train METHOD on a data set, sample at each NFE, and store every score.

    What is stored already is not done again: the same command finishes what is missing. With
    --suite, all that a file names is done that way, several runs at a time.
    """
    from flowbench import execution, planning
    from flowbench.cli.progress import watcher
    from flowbench.store import Store

    setup = asking.setup(words.runs_folder(db, folder), asked)
    if suite is not None:
        return _suite(ctx, suite, db, setup, jobs, dry, token, quiet, force, folder is not None)
    _check(asked, jobs, dry == "suite" or token)
    requests = asking.requests(db, **asked)
    if dry:
        return _explain(db, setup, [planning.plan(request, setup) for request in requests], force)
    with execution.terminable(), watcher(quiet, sys.stderr.isatty()) as watch:
        asking.made_folder(setup.folder, folder is not None)
        setup = dataclasses.replace(setup, watch=watch)
        plans = [planning.plan(request, setup) for request in requests]
        _say_what_was_not(plans[0], asked["preset"], setup)
        store = Store(words.url(db))
        failures, seen = [], set()
        for plan in plans:  # noise streams of one network: it is forced once
            failures.append(_one(store, plan, setup, force and plan.spec.key not in seen, quiet))
            seen.add(plan.spec.key)
    if not quiet:
        _summary(store, plans)
    if any(failures):
        raise RunFailed("; ".join(dict.fromkeys(filter(None, failures))))


def _say_what_was_not(plan, preset: str | None, setup) -> None:
    """Name a preset that nobody asked for, and metrics whose network is not here."""
    used = plan.spec.changed.get("preset")
    if used and preset is None:
        setup.note(
            f"by --preset {used} (flowbench methods {plan.spec.method} --preset {used});"
            " --preset none takes flowbench's own defaults"
        )
    if plan.data.network is not None and "inception" not in setup.weights:
        setup.note(
            "fid, is, kid, precision, recall are left out: give --inception-weights FILE (or set"
            " FLOWBENCH_INCEPTION), or get the file with: flowbench weights download inception"
        )


def _suite(ctx: click.Context, path: Path, *arguments: Any) -> None:
    """Run a suite; what its file decides may not be given beside it."""
    from flowbench.cli import suite

    suite.refuse(ctx, DECIDED)
    if ctx.params["dry"] == "run":
        raise click.UsageError("--explain is for one METHOD; of a suite: --dry-run.")
    dataset, seeds = ctx.params["dataset"], ctx.params["seeds"]
    default = ctx.get_parameter_source("seeds") is click.core.ParameterSource.DEFAULT
    narrow = {"seeds": () if default else seeds, "datasets": [dataset] if dataset else ()}
    suite.run(path, narrow, *arguments)


def _explain(db: str, setup, plans, force: bool) -> None:
    """Print what of each plan is there already; nothing is done."""
    from flowbench.cli import why

    if force:
        raise click.UsageError("--force makes all anew but teachers: there is nothing to explain.")
    why.explain(why.existing(db), plans, setup)


def _check(asked: dict[str, Any], jobs: int | None, dry: bool) -> None:
    """Raise what click raises for words that are missing, or that only a suite takes."""
    if asked["method"] is None:
        raise click.UsageError("Missing argument 'METHOD' (or --suite FILE).")
    if asked["dataset"] is None:
        raise click.UsageError("Missing option '--dataset'.")
    if jobs is not None or dry:
        raise click.UsageError("--jobs, --dry-run and --token belong to --suite.")


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
    from flowbench.cli.tables import ledger
    from flowbench.comparison.build import build
    from flowbench.comparison.opening import goals
    from flowbench.report import terminal

    names = {plan.spec.name for plan in plans}
    measured = [row for row in store.measured(plans[0].spec.dataset) if row.run in names]
    view = build(measured, goals=goals(), environments=store.environments())
    terminal.show(map(ledger, view.sections))
