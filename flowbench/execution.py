"""One run carried out against the database: what is missing is made, and how it ended is stored."""

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from flowbench import blame, environment, observation, planning, protocol, runner
from flowbench.events import Begun
from flowbench.planning import Plan, Request, Setup
from flowbench.records import Artifact, FlowbenchError, Score
from flowbench.store import Store
from flowbench.store.attempts import Attempt


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM end a run as Ctrl-C does: recorded as interrupted, to be gone on with."""

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Job:
    """All that a worker needs; what it finds under `key` must be the run that was planned."""

    request: Request
    key: str
    url: str
    setup: dict[str, Any]  # what pickles of a Setup
    force: bool
    threads: int


def work(job: Job, send: Callable[[Any], None]) -> str:
    """Do one job in a process of its own; returns why it failed, or nothing.

    `send` gets its progress and its notes.
    """
    torch.set_num_threads(job.threads)
    setup = Setup(**job.setup, watch=send, note=send)
    plan = planning.plan(job.request, setup)
    if plan.spec.key != job.key:
        return "its code or data changed while the suite ran: run the suite again"
    return execute(Store(job.url), plan, setup, job.force, wait=True)


def execute(
    store: Store,
    plan: Plan,
    setup: Setup,
    force: bool = False,
    wait: bool = False,
    say: Callable[[str], None] = lambda text: None,
    caught: Callable[[Exception], None] = lambda error: None,
) -> str:
    """Do what is missing of one run; returns why it failed, or nothing.

    `wait` is for another process that works on the same run; without it, that is a failure.
    `caught` gets the error behind a failure, with its traceback.
    """
    try:
        observers = observation.asked(setup.track)
        with runner.claim(plan, setup, wait):
            done = {} if force else store.done(plan.spec, plan.protocol.seed)
            todo = protocol.missing(runner.expected(plan, setup), plan, setup, done)
            if not todo:
                return _settled(store, plan, say)
            surroundings = environment.capture(setup.device)
            with store.attempt(plan.spec, surroundings, force) as attempt:
                past, begun = _past(store, plan, attempt), Begun(attempt.number, attempt.generation)
                with observation.observed(plan, setup, observers, begun, past) as heard:
                    _make(plan, heard, todo, attempt)
    except Exception as error:
        caught(error)
        return _why(error, plan, setup)
    return ""


def _past(store: Store, plan: Plan, attempt: Attempt) -> list[Score]:
    """The scores that earlier attempts at this generation have made."""
    if attempt.number == 1:
        return []
    rows = store.measured(plan.spec.dataset, [plan.spec.method])
    own = (plan.spec.name, attempt.generation)
    return [row.score for row in rows if (row.run, row.generation) == own]


def _make(plan: Plan, setup: Setup, todo: set[protocol.Key], attempt: Attempt) -> None:
    with blame.memory(plan):
        for made in runner.run(plan, setup, todo, attempt.generation):
            _keep(attempt, made)
            if isinstance(made, Score):
                setup.observe(made)


def _why(error: Exception, plan: Plan, setup: Setup) -> str:
    """The error at hand in one line; of one that is not meant for users, the plugin's own line."""
    if isinstance(error, FlowbenchError):
        return str(error)
    return f"{blame.line(error, plan.method)} ({_log(plan, setup)})"


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


def _log(plan: Plan, setup: Setup) -> str:
    """Write the traceback of the exception at hand beside the run, and say where."""
    path = setup.folder / f"{plan.spec.name}.error.log"
    try:
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError as error:
        return f"its traceback cannot be kept: {error}"
    return f"traceback in {path}"
