"""What bounds a run or a suite: seconds of one try, hours of all, and tries after a fault."""

import math
import re
from dataclasses import dataclass

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
ADVICE = "write seconds, or 30s, 5m, 2h"
LONGEST = 366 * 86400.0  # seconds


@dataclass(frozen=True)
class Limits:
    """`timeout` seconds for each try of a run, `hours` for all together, `retries` after faults."""

    timeout: float | None = None
    hours: float | None = None
    retries: int = 0


def seconds(word: str) -> float:
    """Seconds that a word means, such as 90, 30s, 5m or 2h; raises ValueError, in one line."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smh]?)", word.strip(), re.ASCII)
    if found is None:
        raise ValueError(f"{word!r} is no time: {ADVICE}")
    number = float(found[1]) * UNITS[found[2]]
    if not 0 < number <= LONGEST or not math.isfinite(number):
        raise ValueError(f"{word!r} is no time between nothing and a year: {ADVICE}")
    return number


def span(number: float) -> str:
    """Seconds as a user would type them: `90 s`, `5 m`, `2 h`."""
    for unit in ("h", "m"):
        if number >= UNITS[unit] and number % UNITS[unit] == 0:
            return f"{number / UNITS[unit]:g}{unit}"
    return f"{number:g}s"
