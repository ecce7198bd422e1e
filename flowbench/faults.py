"""Faults of the machine around a run, which a new try may not meet; all else would fail again."""

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

from flowbench.records import FlowbenchError

# A file or its server was away for a while; a full disk (ENOSPC, EDQUOT) is none of these.
PASSING = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENOLINK", "ECOMM", "ENETDOWN", "ENETUNREACH"),
        *("ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ECONNABORTED", "ECONNRESET", "ECONNREFUSED"),
    )
    if hasattr(errno, name)  # systems differ
}
KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGBUS)  # by others; a crash is the program's own
INTERRUPTED = 128 + signal.SIGTERM  # the exit code of a worker that was asked to end
DATABASE = ("OperationalError", "InterfaceError", "TimeoutError", "DisconnectionError")
DRIVERS = ("sqlalchemy", "sqlite3", "psycopg")
# What a database refuses for good, although its driver says it by the same class of error.
LASTING = (
    *("full", "no space", "readonly", "read-only", "not a database", "malformed", "unable to open"),
    *("authentication", "no such", "does not exist", "syntax", "permission denied"),
)
# What torch says of a device that is out of order or in use, in lower case. An illegal address or
# a failed assertion is the program's own mistake, and would come again.
DEVICE = (
    *("uncorrectable ecc error", "uncorrectable nvlink error", "busy or unavailable"),
    *("gpu is lost", "fallen off the bus", "hardware stack error", "system not yet initialized"),
    "cuda error: unknown error",
)
CGROUPS = Path("/sys/fs/cgroup")


def of_exit(code: int | None) -> bool:
    """Whether a process that did not say how it ended was ended by the machine or by a person."""
    return code == INTERRUPTED or (code is not None and -code in KILLS)


def of_error(error: BaseException) -> bool:
    """Whether the machine, its files, its database or its device failed, and not the run."""
    return any(_passing(each) for each in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it stands for: those of ours name their cause; a method's stand alone."""
    while error is not None:
        yield error
        error = error.__cause__ if isinstance(error, FlowbenchError) else None


def _passing(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in PASSING
    kind, text = type(error), str(error).lower()
    if kind.__module__.partition(".")[0] in DRIVERS and kind.__name__ in DATABASE:
        return not any(words in text for words in LASTING)
    return isinstance(error, RuntimeError) and any(words in text for words in DEVICE)


def words(code: int | None, starved: bool) -> str:
    """How a process ended that did not say so; `starved` if the system lacked memory meanwhile."""
    if code == INTERRUPTED:
        return "its process was asked to end from outside (SIGTERM)"
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code != signal.SIGKILL:
        return f"its process was killed by {name}"
    why = "by the system, which was out of memory" if starved else "perhaps for want of memory"
    return f"its process was killed by {name}, {why}"


def outcome(code: int | None) -> str:
    """What the attempt of such a process is recorded as."""
    if code in (INTERRUPTED, -signal.SIGTERM):
        return "interrupted"
    return "lost" if of_exit(code) else "failed"


def killings() -> int:
    """How many processes the system has ended so far because memory ran out; 0 if unknown."""
    return sum(map(_counted, (*_groups(), Path("/proc/vmstat"))))


def _groups() -> Iterator[Path]:
    """The memory events of the group of processes that this one belongs to."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if not kinds:
            yield CGROUPS / place.lstrip("/") / "memory.events"
        elif "memory" in kinds.split(","):
            yield CGROUPS / "memory" / place.lstrip("/") / "memory.oom_control"


def _counted(path: Path) -> int:
    try:
        pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return 0
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == "oom_kill")
