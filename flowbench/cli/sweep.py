"""`flowbench run --suite`: what is missing of all cells of a file, several at a time."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from flowbench.cli import streams, words
from flowbench.cli.launching import Launch
from flowbench.cli.manner import Manner
from flowbench.records import Absent, RunFailed

NAMED = 3  # failures that the last line names
LEFT = 4  # the exit code of a command that goes on


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What was asked of a suite: `path` with or without --token, `narrow` of it, and in which way.

    `named` says that the folder of runs was.
    """

    path: Path
    narrow: dict[str, Any]
    token: bool
    db: str
    launch: Launch
    manner: Manner
    limits: Any  # a limits.Limits
    named: bool

    @property
    def words(self) -> str:
        """How a command names the suite."""
        return f"--suite {self.path}{' --token' * self.token}"


def run(asked: Sweep, setup: Any, dry: bool) -> None:
    """Do what is missing of a suite; raises RunFailed at the end if a cell failed."""
    from flowbench import agenda, division, interruption, launchers, suites
    from flowbench.cli import board

    suite = suites.read(asked.path, asked.token)
    planned = dataclasses.replace(setup, device="cpu")
    jobs = asked.launch.fitting(setup.device)
    if dry:
        return _say_plan(suite, planned, asked, jobs)
    threads = asked.manner.threads or asked.launch.threads(setup.device, jobs)
    quiet = asked.manner.quiet
    terms = launchers.Terms(setup.folder, threads, asked.limits.timeout, setup.note)
    with interruption.terminable(), launchers.opened(asked.launch.launcher, terms) as engine:
        tasks = agenda.tasks(suite, planned, **asked.narrow)  # while the server starts
        store = _created(asked.db, setup.folder, asked.named)
        agenda.look_up(tasks, store, asked.manner.force, setup)
        division.bury(store, tasks)
        statuses = [status(task) for task in tasks]
        with board.watcher(quiet, sys.stderr.isatty(), statuses, jobs) as watch:
            yard = Yard(asked.db, store, setup, asked.limits, lambda task: asked.manner.force)
            yard = dataclasses.replace(yard, there=asked.launch.there(setup))
            crew(yard, jobs, threads, watch, engine).run(statuses)
        joined(store)
    _end(asked, statuses)


def joined(store: Any) -> None:
    """Join what was stored beside a database on a network file system, and say what is better."""
    store.ingest()
    if store.advice:
        streams.tell(store.advice)


def _say_plan(suite, setup, asked: Sweep, jobs: int) -> None:
    """Print what there is to do, also where data are not here yet, and what papers published."""
    from flowbench import agenda
    from flowbench.cli import board
    from flowbench.report import suite as report
    from flowbench.report import terminal

    unready: list[agenda.Unready] = []
    tasks = agenda.tasks(suite, setup, **asked.narrow, unready=unready)
    agenda.look_up(tasks, _existing(asked.db), asked.manner.force, setup)
    published = report.published_table(suite)
    plan = board.plan_table(tasks, jobs, suite.head.title, unready)
    terminal.show([plan, *([published] if published else [])])


def status(task: Any) -> Any:
    """What is known of a task before anything is started."""
    from flowbench.workers import Status

    word = "waiting" if task.missing else "failed" if task.trouble else "done"
    return Status(task, word, failure=task.trouble)


@dataclasses.dataclass(frozen=True)
class Yard:
    """Where a crew works: its database, its machine, and its limits; `force` by task.

    `there` is what of the machine is another for its jobs than for this process.
    """

    db: str
    store: Any
    setup: Any
    limits: Any  # a limits.Limits
    force: Callable[[Any], bool] = lambda task: False
    there: dict[str, Any] = dataclasses.field(default_factory=dict)


def crew(yard: Yard, jobs: int, threads: int, watch: Any, engine: Any) -> Any:
    """Who runs tasks as jobs of an engine, `threads` each (0: as torch likes)."""
    from flowbench import agenda, division, execution, workers

    own = ("watch", "note", "observe")  # of each process
    fields = [field.name for field in dataclasses.fields(yard.setup) if field.name not in own]
    machine = {name: getattr(yard.setup, name) for name in fields} | yard.there

    def left(task) -> bool:
        return not yard.force(task) and agenda.missing(task, yard.store, yard.setup) > 0

    shared = division.Shared(yard.store, yard.store.tried(), left, yard.setup.note)

    def job(task):
        words = (task.request, task.key, url(yard.db), machine, yard.force(task), threads)
        return execution.Job(*words, shared.expired)

    def made(name: str) -> bool:
        return (yard.setup.folder / name / "network.safetensors").exists()

    limits = yard.limits
    return workers.Crew(engine, job, jobs, watch, made, limits, shared)


def url(db: str) -> str:
    """The database's URL, whatever the folder of the worker."""
    return words.url(db if "://" in db else str(Path(db).resolve()))


def _existing(db: str):
    """The database, if there is one: a look at it makes none."""
    from flowbench.store import Store

    try:
        return Store.open_existing(url(db))
    except Absent:
        return None


def _created(db: str, folder: Path, named: bool):
    from flowbench.cli.asking import made_folder
    from flowbench.store import Store

    made_folder(folder, named)
    return Store(url(db))


def _end(asked: Sweep, statuses: Sequence[Any]) -> None:
    """Say how it went; raises RunFailed if a cell failed, and goes with 4 if some are left."""
    failed = [status for status in statuses if status.word == "failed"]
    left = sum(status.left for status in statuses)
    if left:
        failures = f", and {len(failed)} failed" if failed else ""
        streams.tell(
            f"stopped after {asked.limits.hours:g} h (--max-hours): {left} of {len(statuses)} runs"
            f" are left{failures}; to go on: flowbench run {asked.words}, with the same options"
        )
        click.get_current_context().exit(LEFT)
    if failed:
        named = "; ".join(f"{s.task.cell.name}: {s.failure}" for s in failed[:NAMED])
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise RunFailed(f"{len(failed)} of {len(statuses)} runs failed: {named}{more}")
    if not asked.manner.quiet:
        click.echo(f"all {len(statuses)} runs are there; see flowbench compare {asked.words}")
