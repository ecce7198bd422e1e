"""Owns who holds a run: what a process is known by, and when a worker counts as dead.

No wall clock is read. An attempt is dead at once if its process ran here and is gone, and else
when its beats stood still for one lease of the observer's own time.
"""

import hashlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from flowbench import process_table
from flowbench.records import FlowbenchError, RunFailed

LEASE = 60.0  # seconds, unless FLOWBENCH_LEASE says otherwise
BEATS = 10  # in one lease
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Held(RunFailed):
    """A run that another worker holds."""


class Superseded(RunFailed):
    """A write of an attempt that another worker has taken over, or that was closed."""

    outcome = "lost"


@dataclass(frozen=True)
class Holder:
    """The running attempt of a run: `id` is `attempt`, and `here` means this machine.

    `alive` tells whether its process was found; it is None elsewhere, where none can be looked at.
    """

    attempt: int
    number: int
    key: str
    beats: int
    here: bool
    alive: bool | None
    pid: int
    started: str
    birth: str = ""
    host: str = ""

    @property
    def words(self) -> str:
        """Who it is, in words."""
        where = f"process {self.pid} here" if self.here else f"host {self.host}"
        return f"since {self.started}, {where}"


class Watch:
    """Looks at holders again and again, and tells those that died from those that beat.

    A look that comes late counts for no more than half a lease, because an observer that was
    stopped itself has seen nothing.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float, float]] = {}

    def expired(self, holder: Holder) -> bool:
        """Whether this holder is dead, as far as it was watched."""
        if holder.alive is False:
            return True
        if holder.alive and not holder.beats and not holder.birth:
            return False  # of an older flowbench, which never beats
        now, whole = time.monotonic(), lease()
        beats, last, still = self._seen.get(holder.attempt, (-1, now, 0.0))
        still = still + min(now - last, whole / 2) if beats == holder.beats else 0.0
        self._seen[holder.attempt] = (holder.beats, now, still)
        return still >= whole


def lease() -> float:
    """Seconds without a beat after which a worker counts as dead.

    Raises FlowbenchError where FLOWBENCH_LEASE is no such number.
    """
    said = os.environ.get("FLOWBENCH_LEASE", "")
    try:
        seconds = float(said or LEASE)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise FlowbenchError(
            f"FLOWBENCH_LEASE={said!r} is no number of seconds from 0.1 to 86400: try 60"
        )
    return seconds


def beat() -> float:
    """Seconds between two beats."""
    return lease() / BEATS


def host() -> str:
    """Tell machines apart without giving away their names: databases are published."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def birth(pid: int) -> str:
    """What tells a process from others of its number: where it runs, and when it began there.

    Empty where the system does not tell, and for a process that is no more.
    """
    place, start = _place(), process_table.started(pid)
    return f"{place}-{start}" if place and start else ""


def look(where: str, pid: int, born: str) -> tuple[bool, bool | None]:
    """Whether a process belongs to this machine, and whether it lives, None if that is not seen.

    One of an earlier boot, or of a container beside this one, may be on another machine of the
    same name, so it is not looked at.
    """
    place = _place()
    if where != host() or (born and place and born.rpartition("-")[0] != place):
        return False, None
    return True, _lives(pid, born)


def _lives(pid: int, born: str) -> bool:
    if not process_table.lives(pid):
        return False
    return not born or not process_table.started(pid) or born == birth(pid)


def _place() -> str:
    """This boot of this machine, and the container: process numbers mean nothing outside."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
        text = f"{BOOT.read_text(encoding='ascii')}{space}"
    except OSError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
