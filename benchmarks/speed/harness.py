"""What every comparison here shares: taking times in turns, and a result that says its ratio.

A time is that of one repeat; what is thrown away as warm-up is in no number. Of each repeat the
wall clock and the CPU time of the process are kept: on a busy machine the second is the steadier.
"""

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from typing import Any

Work = Callable[[], object]
Clock = Callable[[], tuple[float, float]]  # seconds on the wall, and of the CPU
LEAST = 3  # repeats, however long they take
GOAL = re.compile(
    r"(?P<bound>at most|at least) (?P<number>[\d.]+)(?P<unit> s| %| ms| times)?(?: .*)?"
)


@dataclass(frozen=True)
class Times:
    """Seconds of each repeat, without the warm-up; `cpu` those that the process computed."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> "Times":
        """Those of (wall, CPU) seconds, a pair for each repeat."""
        return cls(tuple(wall for wall, _ in pairs), tuple(cpu for _, cpu in pairs))

    @property
    def median(self) -> float:
        """The time that half of the repeats stay below, in seconds."""
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        """The shortest repeat, in seconds."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """The distance of the quartiles as a share of the median; 0 for a single repeat."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / self.median


@dataclass(frozen=True)
class Result:
    """One comparison: `case` says what was done, `against` by whom else ("" where by nobody).

    `unit` is how people read a time: s, ms, µs, or such as images/s, where `facts["count"]` is
    what one repeat makes. A `goal` is such as "at most 1.03" of the other's time, "at most 5 %" of
    it, "at least 2.5 times as fast" or "at most 0.2 s"; `met` follows from it where it is None.
    `facts` are sizes, types and errors, for the JSON.
    """

    case: str
    against: str
    ours: Times
    theirs: Times | None = None
    unit: str = "s"
    goal: str = ""
    met: bool | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def faster(self) -> bool:
        """Whether the ratio says how many times as fast ours is, instead of its share of time."""
        return not self.goal.startswith("at most")

    @property
    def ratio(self) -> float | None:
        """The median over repeats of theirs by ours (ours by theirs where the goal reads so)."""
        if self.theirs is None:
            return None
        pairs = zip(self.ours.seconds, self.theirs.seconds, strict=False)
        return statistics.median([b / a if self.faster else a / b for a, b in pairs])

    @property
    def verdict(self) -> bool | None:
        """Whether the goal is met; None where there is none that can be read."""
        found = GOAL.fullmatch(self.goal)
        if self.met is not None or found is None:
            return self.met
        unit = (found["unit"] or "").strip()
        scale = {"%": 0.01, "ms": 0.001}.get(unit, 1.0)
        value = self.ours.median if unit in ("s", "ms") else self.ratio
        if value is None:
            return None
        bound = scale * float(found["number"])
        return value <= bound if found["bound"] == "at most" else value >= bound


@dataclass(frozen=True)
class LeftOut:
    """A comparison that could not be made here, and why, in one line."""

    case: str
    reason: str


def missing(*packages: str) -> str | None:
    """Why a comparison with these packages has to be left out, or None where all are here."""
    names = [name for name in packages if find_spec(name) is None]
    return absent(names[0]) if names else None


def absent(package: str) -> str:
    """The sentence for a package that is not here."""
    return f"package {package} is not installed: type `make speed`"


def now() -> tuple[float, float]:
    """The wall clock and the CPU time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def repeat(work: Work, repeats: int = 7, warmup: int = 1, clock: Clock = now) -> Times:
    """The times of `work` over `repeats` calls, after `warmup` calls that do not count."""
    for _ in range(warmup):
        work()
    return Times.of([_timed(work, clock) for _ in range(repeats)])


def alternate(
    ours: Work,
    theirs: Work,
    repeats: int = 7,
    warmup: int = 1,
    seconds: float = 60.0,
    clock: Clock = now,
) -> tuple[Times, Times]:
    """The times of both in turns, in the order ABBA, so that a drift of the machine hits both.

    Each is called `warmup` times before. After `seconds` there are no more repeats, but three.
    """
    for _ in range(warmup):
        ours(), theirs()
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    start = clock()[0]
    for number in count():
        if number >= repeats or (number >= LEAST and clock()[0] - start > seconds):
            break
        if number % 2:
            second = _timed(theirs, clock)
            pairs.append((_timed(ours, clock), second))
        else:
            pairs.append((_timed(ours, clock), _timed(theirs, clock)))
    return Times.of([a for a, _ in pairs]), Times.of([b for _, b in pairs])


def _timed(work: Work, clock: Clock) -> tuple[float, float]:
    begun = clock()
    work()
    ended = clock()
    return ended[0] - begun[0], ended[1] - begun[1]
