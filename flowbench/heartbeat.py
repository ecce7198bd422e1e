"""The sign of life: a thread that beats for open attempts, however long a step of theirs takes."""

import signal
import threading
from _thread import interrupt_main
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from flowbench import interruption
from flowbench.records import FlowbenchError
from flowbench.store import leases
from flowbench.store.leases import Superseded


class Beats(Protocol):
    """What takes them: a Store."""

    def beat(self, ids: Collection[int]) -> set[int]:
        """Those of `ids` that are no longer running."""
        ...


class Heart:
    """Beats for the attempts in it; `lost` hears, in its thread, of those that are others' now.

    A beat that fails is tried again at the next: a database may be away for a while.
    """

    def __init__(self, store: Beats, lost: Callable[[int], None]):
        self._store, self._lost = store, lost
        self._ids: set[int] = set()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def add(self, attempt: int) -> None:
        """Beat for this one from now on."""
        with self._lock:
            self._ids.add(attempt)

    def drop(self, attempt: int | None) -> None:
        """Beat for it no longer."""
        with self._lock:
            self._ids.discard(attempt or 0)

    def __enter__(self) -> "Heart":
        self._every = leases.beat()
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join(1.0)  # it may be waiting for the database

    def _work(self) -> None:
        while not self._stop.wait(self._every):
            with self._lock:
                ids = set(self._ids)
            try:
                gone = self._store.beat(ids)
            except (FlowbenchError, OSError):
                continue
            for attempt in gone:
                with self._lock:
                    mine = attempt in self._ids  # else it has ended meanwhile
                    self._ids.discard(attempt)
                if mine:
                    self._lost(attempt)


@contextmanager
def beating(store: Beats, attempt: int) -> Iterator[None]:
    """Beat for an attempt of this process, and interrupt it when another worker has taken it over.

    Raises Superseded then. The handler of SIGTERM has to raise KeyboardInterrupt for that; without
    one, the next write says it.
    """
    taken: list[int] = []

    stop = interruption.CURRENT.get()

    def lost(attempt: int) -> None:
        taken.append(attempt)
        if stop is not None:
            stop.patient = False
        interrupt_main(signal.SIGTERM)

    try:
        with Heart(store, lost) as heart:
            heart.add(attempt)
            yield
    except KeyboardInterrupt:
        if not taken:
            raise
        raise Superseded(f"another worker has taken over attempt {attempt}") from None
