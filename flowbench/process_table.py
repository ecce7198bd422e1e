"""What the system says of its processes: which live, when they began, and what they started."""

import os
from pathlib import Path

TABLE = Path("/proc")
DEAD = "ZX"  # states of one that only waits for its exit code to be asked for
PARENT, START = 1, 19  # words of a `stat` file, counted from the state on


def state(pid: int) -> list[str]:
    """The words about a process from its state on; [] for none, or where the system hides it."""
    try:
        text = (TABLE / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def started(pid: int) -> str:
    """When a process began, in ticks since the boot; empty if unknown."""
    return "".join(state(pid)[START : START + 1])


def lives(pid: int) -> bool:
    """Whether there is such a process, of whatever user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    words = state(pid)
    return not words or words[0] not in DEAD


def descendants(pid: int) -> list[int]:
    """The processes below this one, also those with a group of their own; [] if unknown."""
    names = os.listdir(TABLE) if (TABLE / "self").is_dir() else []
    states = {int(name): state(int(name)) for name in names if name.isdecimal()}
    parents = {child: int(words[PARENT]) for child, words in states.items() if words}
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]
