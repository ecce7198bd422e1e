"""Who does which run: what several suites that share a database have divided among them."""

import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from flowbench.agenda import Task
from flowbench.records import FlowbenchError, Tried
from flowbench.store import Store, leases
from flowbench.store.leases import Held, Holder, Watch

PATIENCE = 600.0  # seconds that the database may be away
LOOK = 1.0  # seconds between looks at who holds a run
SETTLED = ("failed", "diverged", "timeout")  # of another worker: what it met, this one would meet
Note = Callable[[str], None]


class Alone:
    """Nobody shares the work, and nothing is stored."""

    expired: frozenset[int] = frozenset()

    def held(self, tasks: Sequence[Task]) -> dict[str, Holder]:
        """The holders of runs that other workers are at, by the key of the run."""
        return {}

    def settled(self, task: Task) -> str | None:
        """Why a run failed that another worker has ended, or nothing; None if it is to be done."""
        return None

    def opened(self, attempt: int) -> None:
        """Know an attempt as one of its own."""

    def conclude(self, attempt: int | None, outcome: str, text: str) -> None:
        """Store how the worker of an attempt ended, unless it has said so itself."""

    def beat(self, ids: Collection[int]) -> set[int]:
        """Those of the attempts that are others' by now."""
        return set()


class Shared(Alone):
    """The suites that share a database; a database that is away for a while changes nothing."""

    def __init__(
        self, store: Store, tried: Sequence[Tried], left: Callable[[Task], bool], note: Note
    ):
        """`tried` are the attempts until now, `left` tells whether the store lacks a score."""
        self._store, self._left, self._note = store, left, note
        self._before = max((attempt.id for attempt in tried), default=0)
        self._open = {attempt.id for attempt in tried if attempt.outcome == "running"}
        self._watch, self._known, self._own = Watch(), dict[str, Holder](), set[int]()
        self._answered = time.monotonic()

    def held(self, tasks: Sequence[Task]) -> dict[str, Holder]:
        """The holders of runs that other workers are at; what a dead one held may be taken over.

        Raises FlowbenchError once the database has been away for ten minutes.
        """
        try:
            found = self._store.holders([task.key for task in tasks])
        except FlowbenchError:
            if time.monotonic() - self._answered > PATIENCE:
                raise
            return self._known
        self._answered = time.monotonic()
        dead = {key: holder for key, holder in found.items() if self._watch.expired(holder)}
        for holder in dead.values():
            if holder.attempt not in self.expired:
                self.expired |= {holder.attempt}
                end(holder, self._note)
        self._known = {key: holder for key, holder in found.items() if key not in dead}
        return self._known

    def settled(self, task: Task) -> str | None:
        """Why a run failed that another worker has ended, or nothing; None if it is to be done."""
        spec = task.plan.spec
        with suppress(FlowbenchError):
            tried = self._store.tried(spec.dataset, [spec.method], [spec.seed])
            mine = [t for t in tried if t.spec.key == task.key]
            new = [t for t in mine if t.id > self._before or t.id in self._open]
            last = next((t for t in reversed(new) if t.id not in self._own), None)
            if last is not None and last.outcome in SETTLED:
                return f"{last.error or last.outcome} (in attempt {last.number}, elsewhere)"
            if last is not None and last.outcome == "ok" and not self._left(task):
                return ""
        return None

    def opened(self, attempt: int) -> None:
        """Know an attempt as one of its own."""
        self._own.add(attempt)

    def conclude(self, attempt: int | None, outcome: str, text: str) -> None:
        """Store how the worker of an attempt ended, unless it has said so itself."""
        with suppress(FlowbenchError):  # else its lease runs out, and it is lost
            if attempt is not None:
                self._store.conclude(attempt, outcome, text)

    def beat(self, ids: Collection[int]) -> set[int]:
        """Those of the attempts that are others' by now."""
        return self._store.beat(ids)


def bury(store: Store, tasks: Sequence[Task]) -> None:
    """Store as lost what died here after its last score: nothing will be done there any more."""
    with suppress(FlowbenchError):
        for holder in store.holders([task.key for task in tasks if not task.missing]).values():
            if holder.alive is False:
                store.conclude(holder.attempt, "lost", "")


def end(holder: Holder, note: Note) -> None:
    """End a process here that has shown no sign of life, with all that it has started.

    What it would still write is refused anyhow; but it may hold the lock of its run.
    """
    if not (holder.here and holder.alive and holder.birth):
        return
    if leases.birth(holder.pid) != holder.birth:
        return
    note(f"process {holder.pid} shows no sign of life, so it is ended and its run taken over")
    with suppress(OSError):
        if os.getsid(holder.pid) == holder.pid:  # a worker, which has a group of its own
            os.killpg(holder.pid, signal.SIGKILL)
        os.kill(holder.pid, signal.SIGKILL)


def awaited(store: Store, key: str, note: Note) -> set[int]:
    """The attempt at a run whose worker is on another machine and dead, if there is one.

    That is seen by waiting: raises Held as soon as it shows a sign of life.
    """
    watch, first = Watch(), None
    while (holder := store.holders([key]).get(key)) is not None and not holder.here:
        if watch.expired(holder):
            return {holder.attempt}
        if first is None:
            note(f"held by another machine ({holder.words}): watched for a sign of life")
            first = holder
        elif (first.attempt, first.beats) != (holder.attempt, holder.beats):
            raise Held(f"it is being worked on by another process ({holder.words})")
        time.sleep(min(LOOK, leases.beat()))
    return set()
