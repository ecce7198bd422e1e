"""`--fail-on`: verdicts that make `compare` end with an exit code of their own."""

from collections.abc import Sequence
from typing import Any

from flowbench.records import FlowbenchError

NAMED = 3  # verdicts that the message names


class GateFailed(FlowbenchError):
    """A verdict that `--fail-on` names."""

    exit_code = 6


def read(word: str | None, baseline: str | None, methods: Sequence[str], suite: Any) -> list[str]:
    """The verdicts that fail; raises FlowbenchError for words that are none."""
    from flowbench import options
    from flowbench.comparison.significance import WORDS

    if word is None:
        return []
    if not baseline and (suite or len(methods) < 2):
        raise FlowbenchError("--fail-on needs something to compare with: --baseline METHOD")
    asked = [part.strip().replace("-", " ") for part in word.split(",")]
    return [options.choose("verdict of --fail-on", part, WORDS) for part in asked]


def check(gate: Sequence[str], judged: Sequence[Any]) -> None:
    """Raise GateFailed for a verdict that fails, NotComparable where one is still open.

    A candidate that diverged or lacks a seed must not pass by having no number.
    """
    from flowbench.comparison import refusal, significance

    failing = [one for one in judged if one.difference.word in gate]
    if failing:
        lines = "; ".join(one.words for one in failing[:NAMED])
        more = f"; and {len(failing) - NAMED} more" if len(failing) > NAMED else ""
        raise GateFailed(f"{len(failing)} of {len(judged)} verdicts fail: {lines}{more}")
    open_ones = (significance.NOT_ENOUGH, significance.NOT_COMPARABLE)
    waiting = [one for one in judged if one.difference.word in open_ones]
    if waiting or not judged:
        why = f": {waiting[0].words}" if waiting else ""
        count = f"{len(waiting)} of {len(judged)} verdicts" if judged else "anything"
        raise refusal.NotComparable(f"--fail-on cannot judge {count}{why}")
