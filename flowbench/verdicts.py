"""Whether measured numbers are what a suite expects: met, missed, or not measured."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowbench.suitefile import Expectation
from flowbench.suites import Suite

MET, MISSED, OPEN = "met", "missed", "not measured"

Values = Mapping[tuple[str, str, str, int], Mapping[int, float]]  # label, dataset, metric, NFE
Floors = Mapping[tuple[str, str], float]  # dataset, metric


@dataclass(frozen=True)
class Verdict:
    """An expectation, what was measured of it by seed, and what follows."""

    expectation: Expectation
    word: str
    measured: Mapping[int, float]
    seeds: int  # how many there should be


def judge(suite: Suite, values: Values, floors: Floors) -> list[Verdict]:
    """A verdict on each expectation.

    One seed that misses is enough for `missed`, whatever else is still to be measured.
    """
    seeds = {row.label: row.seeds for row in suite.rows}
    return [_judge(entry, seeds[entry.label], values, floors) for entry in suite.expectations]


def _judge(entry: Expectation, seeds: Sequence[int], values: Values, floors: Floors) -> Verdict:
    found = {seed: _quantity(entry, seed, values, floors) for seed in dict.fromkeys(seeds)}
    measured = {seed: value for seed, value in found.items() if value is not None}
    judged = list(measured.values())
    if not entry.each and judged:
        judged = [statistics.fmean(judged)] if len(measured) == len(found) else []
    if not all(_within(value, entry.bounds) for value in judged):
        word = MISSED
    else:
        word = MET if len(measured) == len(found) else OPEN
    return Verdict(entry, word, measured, len(found))


def _quantity(entry: Expectation, seed: int, values: Values, floors: Floors) -> float | None:
    """What is compared with the bounds; None where a part of it was not measured."""
    dataset = entry.dataset or ""
    key = dataset, entry.metric, entry.level
    own = values.get((entry.label, *key), {}).get(seed)
    if own is None:
        return None
    if entry.floors is not None:
        floor = floors.get((dataset, entry.metric))
        return None if floor is None else _ratio(own, floor)
    if entry.other is None:
        return own
    other = values.get((entry.other, *key), {}).get(seed)
    if other is None:
        return None
    return own - other if entry.minus else _ratio(other, own)


def _ratio(above: float, below: float) -> float:
    if below == 0:
        return math.nan if above == 0 else math.copysign(math.inf, above)
    return above / below


def _within(value: float, bounds: tuple[float, float]) -> bool:
    """Never for NaN."""
    return bounds[0] <= value <= bounds[1]


def quantity(entry: Expectation) -> str:
    """What is expected of which label, in words: `S of CFM`, `fd of LMM @ 1`."""
    at = "" if entry.nfe is None else f" @ {entry.nfe or 'auto'}"
    words = f"{entry.metric} of {entry.label}{at}"
    if entry.minus:
        return f"{words} minus that of {entry.minus}"
    if entry.times_below:
        return f"{words}, times below that of {entry.times_below}"
    return f"{words} over its floor" if entry.floors else words


def bounds(entry: Expectation) -> str:
    """The interval in words."""
    low, high = entry.bounds
    if entry.value is not None:
        who = "published " if entry.published else ""
        return f"{who}{entry.value:g} ± {entry.tolerance:g}"
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
