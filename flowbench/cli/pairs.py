"""`flowbench pairs`: make the pairs that a run learns from, and nothing else of it."""

import copy
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from flowbench import hookimpl
from flowbench.cli import asking, words
from flowbench.cli import run as running
from flowbench.records import FlowbenchError

# Words of `run` that no pair hangs on, as its functions want them.
UNUSED: dict[str, Any] = {
    **{"nfe": (), "sample_seeds": (0,), "samples": None, "weights": None, "reference": None},
    **{"reference_rows": None, "inception": None, "dinov2": None, "clean": False},
}
OF_A_RUN = (
    *("suite", "jobs", "threads", "timeout", "max_hours", "retries", "dry", "token", "force"),
    *("smoke", "debug", "profile", "track", "launcher", "max_jobs"),
)
LEFT_OUT = (*UNUSED, *OF_A_RUN, "plugin")  # every command gets its own --plugin


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A method whose training ends where its first source of batches is prepared."""

    method: Any

    @hookimpl
    def train(self, data, run, teacher):
        from flowbench import plugins

        run.prepare_only = True
        return plugins.manager(self.method).hook.train(
            data=data, run=run, teacher=teacher, meter={}
        )


@click.pass_context
def make(ctx: click.Context, db: str, folder: Path | None, quiet: bool, **asked: Any) -> None:
    """Make the pairs that the same `run` of METHOD learns from.

    Such a run finds them and makes none. Started several times at once, on several GPUs or on
    machines that share the folder of runs, the processes share the work. A teacher that is missing
    is trained first, by one of them.
    """
    from flowbench import determinism, planning
    from flowbench.cli.progress import watcher
    from flowbench.interruption import terminable

    asked |= UNUSED
    setup = asking.setup(words.runs_folder(db, folder), asked)
    mode = determinism.mode(setup.deterministic)
    with terminable(), mode, watcher(quiet, sys.stderr.isatty()) as watch:
        asking.made_folder(setup.folder, folder is not None)
        setup = dataclasses.replace(setup, watch=watch)
        plans = [planning.plan(request, setup) for request in asking.requests(db, **asked)]
        for plan in plans:
            for line in _prepare(plan, setup):
                if not quiet:
                    click.echo(line)


def _parameters() -> list[click.Parameter]:
    """Those of `run`, so far as pairs hang on them."""
    found = [copy.copy(p) for p in running.run.params if p.name not in LEFT_OUT]
    for parameter in found:
        parameter.required = parameter.name in ("method", "dataset")
    return found


pairs = click.Command("pairs", callback=make, params=_parameters(), help=make.__doc__)


def _prepare(plan: Any, setup: Any) -> list[str]:
    """Make the pairs of one run; returns a line about each set of them.

    Raises FlowbenchError for a method that makes none.
    """
    from flowbench import runner, training
    from flowbench.pairs import Pairs

    sets: list[Pairs] = []
    if plan.teacher is not None and hasattr(plan.method, "pairs"):
        only = dataclasses.replace(plan, method=Preparation(plan.method), trained=None)
        with tempfile.TemporaryDirectory(prefix=".pairs-", dir=setup.folder) as folder:
            try:
                runner.train(only, setup, Path(folder))
            except training.Prepared as prepared:
                (source,) = prepared.args
                sets = [s for s in (source, *vars(source).values()) if isinstance(s, Pairs)]
    if not sets:
        raise FlowbenchError(
            f"{plan.spec.variant} learns from no pairs: train it with `flowbench run`"
        )
    return [_line(plan, made) for made in sets]


def _line(plan: Any, made: Any) -> str:
    """How many pairs there are, of what, where, how large, and what they have cost."""
    from flowbench.meters import gib

    what = f"{made.n} {made.run.name} of {plan.spec.variant} on {plan.spec.dataset}"
    seconds = made.run.bill[made.run.name]["seconds"]
    size = gib(made.files.nbytes)
    return f"{what}, seed {plan.spec.seed}: {made.files.folder} ({size}, {seconds:.0f} s of work)"
