"""What a check is, and what it can find."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["pass", "fail", "warn", "skip"]
GROUPS = {
    "A": "metadata",
    "S": "sampling",
    "T": "training",
    "K": "known answers",
    "F": "failures",
}


class Found(Exception):
    """Ends a check: what it found is the message."""

    outcome: Outcome = "fail"


class Warned(Found):
    """Ends a check whose finding may be meant so."""

    outcome = "warn"


class Skipped(Found):
    """Ends a check that does not apply, and says why."""

    outcome = "skip"


def require(condition: bool, why: str) -> None:
    """Raise Found unless `condition` holds; `why` says what was found instead."""
    if not condition:
        raise Found(why)


@dataclass(frozen=True)
class Check:
    """One promise: `id` never changes, `title` is the promise, `advice` what mends a breach.

    `run(subject)` raises Found, Warned or Skipped, or returns. It is left out where one of `after`
    did not pass; `slow` ones take more than a few seconds.
    """

    id: str
    name: str  # for test ids: one word or two
    title: str
    advice: str
    run: Callable[[Any], None]
    after: tuple[str, ...] = ()
    slow: bool = False


@dataclass(frozen=True)
class Result:
    """What came of a check: `why` is empty where it passed."""

    check: Check
    outcome: Outcome
    why: str = ""
    seconds: float = 0.0

    @property
    def advice(self) -> str:
        """What to do, where something is to be done."""
        return self.check.advice if self.outcome in ("fail", "warn") else ""
