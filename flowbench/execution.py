"""One run carried out against the database: what is missing is made, and how it ended is stored."""

from collections.abc import Callable, Container
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from flowbench import (
    blame,
    environment,
    faults,
    following,
    observation,
    offline,
    planning,
    runner,
)
from flowbench.events import Begun
from flowbench.planning import Plan, Request, Setup
from flowbench.protocol import Key
from flowbench.records import Artifact, Score
from flowbench.store import Store
from flowbench.store.attempts import Attempt
from flowbench.store.leases import Held, Superseded

Lease = Callable[[int], AbstractContextManager[Any]]  # what goes on while that attempt is open


@dataclass(frozen=True)
class Job:
    """All that a worker needs; what it finds under `key` must be the run that was planned.

    `expired` are attempts whose worker has died elsewhere; without `threads` torch decides.
    """

    request: Request
    key: str
    url: str = field(repr=False)  # which may hold a password
    setup: dict[str, Any]  # what pickles of a Setup
    force: bool
    threads: int = 0
    expired: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Opened:
    """What a worker says as soon as its attempt is there."""

    attempt: int


@dataclass(frozen=True)
class Ended:
    """The last word of a worker: why the run failed, or nothing.

    A `fault` is one of the machine; `elsewhere` means that another worker holds the run.
    """

    failure: str = ""
    kind: Literal["", "fault", "elsewhere"] = ""

    @classmethod
    def of(cls, error: Exception, failure: str) -> "Ended":
        """What an error comes to, `failure` in words."""
        if isinstance(error, Held | Superseded):
            return cls(failure, "elsewhere")
        return cls(failure, "fault" if faults.of_error(error) else "")


def work(job: Job, send: Callable[[Any], None]) -> Ended:
    """Do one job in a process of its own; `send` gets its attempt, progress and notes."""
    offline.obey()
    if job.threads:
        torch.set_num_threads(job.threads)
    setup = Setup(**job.setup, watch=send, note=send)
    plan = planning.plan(job.request, setup)
    if plan.spec.key != job.key:
        return Ended("its code or data changed while the suite ran: run the suite again")
    store, trouble = Store(job.url), [Ended()]

    def lease(attempt: int) -> AbstractContextManager[Any]:
        send(Opened(attempt))
        return nullcontext()  # its parent beats for it

    def caught(error: Exception) -> None:
        trouble.append(Ended.of(error, ""))

    failure = execute(
        store, plan, setup, job.force, caught=caught, lease=lease, expired=job.expired
    )
    return Ended(failure, trouble[-1].kind)


def execute(
    store: Store,
    plan: Plan,
    setup: Setup,
    force: bool = False,
    say: Callable[[str], None] = lambda text: None,
    caught: Callable[[Exception], None] = lambda error: None,
    lease: Lease = lambda attempt: nullcontext(),
    expired: Container[int] = (),
) -> str:
    """Do what is missing of one run; returns why it failed, or nothing.

    `expired` attempts hold it no longer; `caught` gets the error behind a failure.
    """
    try:
        observers, missing = observation.asked(setup.track), _missing(store, plan, setup, force)
        with runner.claim(plan, setup):
            if not (_abandoned(store, plan) or missing()):
                return _settled(store, plan, say)
            surroundings = environment.capture(setup.device, setup.deterministic)
            with (
                store.attempt(plan.spec, surroundings, force, expired) as attempt,
                lease(attempt.id),
                _observed(store, plan, setup, observers, attempt) as heard,
            ):  # another machine may just have ended it
                _make(store, plan, heard, missing(), attempt)
    except Exception as error:
        caught(error)
        return blame.told(error, plan, setup.folder / f"{plan.spec.name}.error.log")
    return ""


def _abandoned(store: Store, plan: Plan) -> bool:
    """Whether an attempt that died here is still open, which the next one ends."""
    return any(holder.alive is False for holder in store.holders([plan.spec.key]).values())


def _missing(store: Store, plan: Plan, setup: Setup, force: bool) -> Callable[[], set[Key]]:
    """Tells what is not there at that moment; what the plan leads to stays the same."""
    wanted = runner.expected(plan, setup)
    return lambda: runner.missing(None if force else store, plan, setup, wanted)


def _observed(
    store: Store, plan: Plan, setup: Setup, observers: Any, attempt: Attempt
) -> AbstractContextManager[Setup]:
    """The setup whose observers hear of the attempt."""
    begun = Begun(attempt.number, attempt.generation)
    return observation.observed(plan, setup, observers, begun, _past(store, plan, attempt))


def _past(store: Store, plan: Plan, attempt: Attempt) -> list[Score]:
    """The scores that earlier attempts at this generation have made."""
    if attempt.number == 1:
        return []
    rows = store.measured(plan.spec.dataset, [plan.spec.method])
    own = (plan.spec.name, attempt.generation)
    return [row.score for row in rows if (row.run, row.generation) == own]


def _noting(setup: Setup, attempt: Attempt) -> Callable[[str], None]:
    """Says a note, and keeps it with the attempt."""

    def note(text: str) -> None:
        setup.note(text)
        attempt.note(text)

    return note


def _make(store: Store, plan: Plan, setup: Setup, todo: set[Key], attempt: Attempt) -> None:
    """Make and keep what is in `todo`; of a group that was cut short, what is there stays."""
    if not todo:
        return
    setup = replace(setup, note=_noting(setup, attempt))
    known = runner.stored(store, plan).keys() - todo
    with blame.memory(plan), following.led(attempt.generation):
        for made in runner.run(plan, setup, todo, attempt.generation):
            if isinstance(made, Score) and (made.subject, made.name, made.nfe, made.n) in known:
                continue
            _keep(attempt, made)
            if isinstance(made, Score):
                setup.observe(made)


def _settled(store: Store, plan: Plan, say: Callable[[str], None]) -> str:
    """Say that all is there; a run that diverged stays a failure until --force mends it."""
    tried = [t for t in store.tried(plan.spec.dataset) if t.run == plan.spec.name]
    if not tried or tried[-1].outcome != "diverged":
        say("every score is there already (--force does it anew)")
        return ""
    return f"{tried[-1].error} (in attempt {tried[-1].number}; --force tries anew)"


def _keep(attempt: Attempt, made: Score | Artifact) -> None:
    if isinstance(made, Artifact):
        attempt.artifact(made.role, made.path, made.sha256, made.bytes)
    else:
        attempt.add(made)
