"""Planned runs carried out one after the other, with what the user wants to see of them."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from flowbench.cli import words
from flowbench.cli.manner import Manner
from flowbench.records import RunFailed


def carry_out(db: str, planned: Callable[[Any], list[Any]], setup: Any, manner: Manner) -> None:
    """Do what is missing of the runs that `planned` makes of the setup, and print their scores.

    Raises RunFailed at the end if one failed; with `manner.debug` the first that fails is the last.
    """
    from flowbench import environment, following, interruption, ranks
    from flowbench.cli import ranked, sweep
    from flowbench.cli.progress import watcher
    from flowbench.store import Store

    shown = watcher(ranked.quiet(manner.quiet), sys.stderr.isatty())
    threads = environment.threads(manner.threads)
    with interruption.terminable(), shown as watch, ranked.joined(setup) as setup, threads:
        setup = dataclasses.replace(setup, watch=watch)
        plans = planned(setup)
        if not ranks.first():
            return following.follow(plans, setup)
        store = Store(words.url(db))
        errors: list[Exception] = []
        failures = list(_each(store, plans, setup, manner, errors.append))
        sweep.joined(store)
    if manner.debug and errors:
        from flowbench.cli import debugger

        debugger.examine(errors[0], plans[len(failures) - 1].method)
    if not manner.quiet:
        summary(store, plans)
    if any(failures):
        raise RunFailed("; ".join(dict.fromkeys(filter(None, failures))))


def _each(
    store, plans: Sequence[Any], setup, manner: Manner, caught: Callable[[Exception], None]
) -> Iterator[str]:
    """Why each run failed, or nothing; under a debugger none is begun after one that failed."""
    from flowbench import following

    seen = set()
    for plan in plans:  # noise streams of one network: it is forced and profiled once
        first = plan.spec.key not in seen
        force, profile = manner.force and first, manner.profile and first
        mine = dataclasses.replace(manner, force=force, profile=profile)
        failure = _one(store, plan, setup, mine, caught)
        yield failure
        if (manner.debug and failure) or not following.settle():
            return
        seen.add(plan.spec.key)


def _one(store, plan, setup, manner: Manner, caught: Callable[[Exception], None]) -> str:
    """Do what is missing of one run; returns its name and why it failed, or nothing."""
    from flowbench import division, heartbeat
    from flowbench.execution import execute
    from flowbench.store.leases import Held

    name = f"{plan.spec.variant} on {plan.spec.dataset}, seed {plan.spec.seed}"

    def say(text: str) -> None:
        if not manner.quiet:
            click.echo(f"{name}: {text}")

    if manner.profile:
        from flowbench.cli import profile

        profile.show(plan, setup)
    heard = caught if manner.debug else lambda error: None  # an error holds all that was in memory
    lease = functools.partial(heartbeat.beating, store)
    try:
        dead = division.awaited(store, plan.spec.key, setup.note)
    except Held as error:
        return f"{name}: {error}"
    failure = execute(store, plan, setup, manner.force, say, heard, lease, dead)
    return f"{name}: {failure}" if failure else ""


def summary(store, plans: Sequence[Any]) -> None:
    """Print the scores of these runs."""
    from flowbench.cli.tables import ledger
    from flowbench.comparison.build import build
    from flowbench.comparison.opening import goals
    from flowbench.report import terminal

    names = {plan.spec.name for plan in plans}
    measured = [row for row in store.measured(plans[0].spec.dataset) if row.run in names]
    view = build(measured, goals=goals(), environments=store.environments())
    terminal.show(map(ledger, view.sections))
