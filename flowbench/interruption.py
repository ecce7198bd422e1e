"""The end that a signal asks for: after the step at hand where one ends soon, else at once."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

PATIENCE = 1.0  # seconds that a step may still take
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGALRM: signal.SIG_DFL}


@dataclass
class Stop:
    """Whether the process was asked to end, and when it last was between two steps.

    What is not `patient` ends at once, because nothing of it is worth saving.
    """

    asked: bool = False
    between: float = -PATIENCE
    patient: bool = True


CURRENT: ContextVar[Stop | None] = ContextVar("stop", default=None)


def asked() -> bool:
    """Whether to save and raise KeyboardInterrupt; to be called after every step of training."""
    stop = CURRENT.get()
    if stop is None:
        return False
    stop.between = time.monotonic()
    if stop.asked:
        signal.setitimer(signal.ITIMER_REAL, 0.0)  # saving may take its time
    return stop.asked


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM and Ctrl-C end a run as interrupted, to be gone on with.

    While steps are taken, the first signal waits for the end of one; the second does not.
    """
    stop = Stop()

    def hear(number, frame):
        soon = stop.patient and time.monotonic() - stop.between < PATIENCE
        if stop.asked or not soon:
            raise KeyboardInterrupt
        stop.asked = True
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    before = _handlers()
    stop.patient = signal.SIGALRM in before
    token = CURRENT.set(stop)
    for number in before:
        signal.signal(number, hear)
    try:
        yield
    finally:
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)
        CURRENT.reset(token)


def _handlers() -> dict[int, Any]:
    """Today's handlers of the signals that are listened to; who ignores Ctrl-C goes on to do so."""
    found = {number: signal.getsignal(number) for number in (signal.SIGTERM, *USUAL)}
    return {n: handler for n, handler in found.items() if handler == USUAL.get(n, handler)}
