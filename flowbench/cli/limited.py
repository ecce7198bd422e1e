"""`flowbench run METHOD --timeout`: runs one by one, each in a process that can be ended."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from flowbench.cli import sweep
from flowbench.cli.manner import Manner
from flowbench.records import RunFailed


def carry_out(
    db: str,
    requests: list[Any],
    planned: Callable[[Any], list[Any]],
    setup: Any,
    manner: Manner,
    limits: Any,
) -> None:
    """As `doing.carry_out`, each run within its limit; raises RunFailed for one that was not."""
    from flowbench import agenda, division, interruption, launchers
    from flowbench.cli import doing
    from flowbench.store import Store

    with interruption.terminable(), launchers.here() as engine:
        plans = planned(dataclasses.replace(setup, device="cpu"))
        store = Store(sweep.url(db))
        tasks = list(map(_task, requests, plans))
        agenda.look_up(tasks, store, manner.force, setup)
        division.bury(store, tasks)
        statuses = [sweep.status(task) for task in tasks]
        yard = sweep.Yard(db, store, setup, limits, _forced(tasks, manner))
        with _watcher(manner.quiet, setup) as watch:
            sweep.crew(yard, 1, manner.threads or 0, watch, engine).run(statuses)
        sweep.joined(store)
    if not manner.quiet:
        _say_what_was_there(statuses)
        doing.summary(store, plans)
    failures = [f"{s.task.cell.name}: {s.failure}" for s in statuses if s.word == "failed"]
    if failures:
        raise RunFailed("; ".join(dict.fromkeys(failures)))


def _forced(tasks: Sequence[Any], manner: Manner) -> Callable[[Any], bool]:
    """Whether a task is made anew: noise streams share a network, which is forced once."""
    first = {task.key: task for task in reversed(tasks)}
    return lambda task: manner.force and first[task.key] is task


def _task(request: Any, plan: Any) -> Any:
    """A run as if it were a cell of a suite."""
    from flowbench.agenda import Task
    from flowbench.suitefile import Row
    from flowbench.suites import Cell

    row = Row(label=plan.spec.variant, method=plan.spec.method)
    return Task(Cell(row, plan.spec.dataset, plan.spec.seed), request, plan)


@contextmanager
def _watcher(quiet: bool, setup: Any) -> Iterator[Callable[[Any, str], None]]:
    """Shows a worker's progress as that of a run in this process."""
    from flowbench.cli.progress import watcher

    with watcher(quiet, sys.stderr.isatty()) as show:

        def watch(status: Any, note: str) -> None:
            if note:
                setup.note(note)
            elif status.word == "running" and status.progress is not None:
                show(status.progress)

        yield watch


def _say_what_was_there(statuses: Sequence[Any]) -> None:
    for status in statuses:
        if status.word == "done" and not status.begun:
            click.echo(
                f"{status.task.cell.name}: every score is there already (--force does it anew)"
            )
