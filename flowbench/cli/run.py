"""`flowbench run`: train, sample and score one method, storing each score as it is made."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words
from flowbench.records import Artifact, FlowbenchError, RunFailed


@click.command()
@click.argument("method", type=words.Name("method"))
@click.option("--dataset", required=True, type=words.Name("dataset"), help="See `datasets`.")
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
def run(seeds, db, folder, data_root, device, quiet, force, every, **asked: Any) -> None:
    """Train METHOD on a data set, sample at each NFE, and store every score.

    What is stored already is not done again: the same command finishes what is missing.
    """
    from flowbench import environment, planning
    from flowbench.cli.progress import watcher
    from flowbench.store import Store

    request = _request(db, **asked)
    with _terminable(), watcher(quiet, sys.stderr.isatty()) as watch:
        setup = planning.Setup(
            device=environment.device(device),
            folder=_made(words.runs_folder(db, folder), folder is not None),
            data_root=data_root,
            every=every,
            watch=watch,
            note=lambda text: click.echo(text, err=True),
        )
        plans = [planning.plan(request(seed), setup) for seed in dict.fromkeys(seeds)]
        store = Store(words.url(db))
        failures = [_execute(store, plan, setup, force, quiet) for plan in plans]
    if not quiet:
        _summary(store, plans)
    if any(failures):
        raise RunFailed("; ".join(filter(None, failures)))


def _made(folder: Path, named: bool) -> Path:
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


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM end a run as Ctrl-C does: recorded as interrupted, to be gone on with."""

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _execute(store, plan, setup, force: bool, quiet: bool) -> str:
    """Do what is missing of one run; returns why it failed, or nothing."""
    from flowbench import environment, runner

    name = f"{plan.spec.variant} on {plan.spec.dataset}, seed {plan.spec.seed}"
    expected = runner.expected(plan)
    try:
        with runner.claim(plan, setup):
            todo = expected if force else expected - store.done(plan.spec, plan.protocol.seed)
            if not todo:
                return _nothing_to_do(store, plan, name, quiet)
            surroundings = environment.capture(setup.device)
            with store.attempt(plan.spec, surroundings, force) as attempt:
                for made in runner.run(plan, setup, todo, attempt.generation):
                    _keep(attempt, made)
    except FlowbenchError as error:
        return f"{name}: {error}"
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error} ({_log(plan, setup)})"
    return ""


def _nothing_to_do(store, plan, name: str, quiet: bool) -> str:
    """Say that all is there; a run that diverged stays a failure until --force mends it."""
    tried = [t for t in store.tried(plan.spec.dataset) if t.run == plan.spec.name]
    if tried[-1].outcome == "diverged":
        return f"{name}: {tried[-1].error} (in attempt {tried[-1].number}; --force tries anew)"
    if not quiet:
        click.echo(f"{name}: every score is there already (--force does it anew)")
    return ""


def _keep(attempt, made) -> None:
    if isinstance(made, Artifact):
        attempt.artifact(made.role, made.path, made.sha256, made.bytes)
    else:
        attempt.add(made)


def _log(plan, setup) -> str:
    """Write the traceback of the exception at hand beside the run, and say where."""
    path = setup.folder / f"{plan.spec.name}.error.log"
    try:
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError as error:
        return f"its traceback cannot be kept: {error}"
    return f"traceback in {path}"


def _summary(store, plans) -> None:
    from flowbench import compare
    from flowbench.cli.tables import goals, ledger
    from flowbench.report import terminal

    names = {plan.spec.name for plan in plans}
    measured = [row for row in store.measured(plans[0].spec.dataset) if row.run in names]
    terminal.show(map(ledger, compare.sections(measured, goals=goals())))
