"""Is one method really better than another? Paired by training seed and noise stream.

The unit is the training seed: a method is what it makes of many trainings, so only the spread
between trainings tells what one more would have given. More noise streams make the number of each
training sharper, but never decide between two methods by themselves.

A verdict assumes that the differences of the training seeds are independent and nearly normal, and
is wrong more often than it says where the scores of just one side are strongly skewed. It holds for
the noise streams used: all training seeds share them, so what one stream favours is a part of the
difference and not of its interval, the less the more streams there are. A floor counts as exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from flowbench.comparison.fingerprint import differences
from flowbench.comparison.view import Cell

BETTER, WORSE, TIE = "better", "worse", "tie"
NOT_ENOUGH, NOT_COMPARABLE = "not enough data", "not comparable"
WORDS = (BETTER, WORSE, TIE, NOT_ENOUGH, NOT_COMPARABLE)

LEVEL = 0.05  # of a whole family: how often it may have a wrong better or worse in it
POWER = 0.8
SEEDS = 3  # training seeds in common below which there is no verdict
INTERVAL = "paired t over training seeds, 95 %"
ROUNDING = 1e-9  # of the values: differences that agree so well are equal
LARGEST = 1e150  # above it squares are infinite, so that a value counts as infinite itself

Shared = Mapping[int, Mapping[int, tuple[float, float]]]  # seed, stream: of baseline and of other


@dataclass(frozen=True)
class Pair:
    """Two cells of one metric; `floor` is its value for real held-out data, None where unknown."""

    baseline: Cell
    other: Cell
    floor: float | None = None


@dataclass(frozen=True)
class Difference:
    """What is known of other - baseline, in the units of the metric, and the verdict on other.

    Where the goal is "floor" it is the difference of the two distances from the floor. `sd` is over
    training seeds, `sampling_sd` over the noise streams of one of them, both of the paired
    differences. `interval` (low, high) and `p` are those of this difference alone, `p_holm` is
    corrected for its family. `smallest` is the true difference that would have been called better
    or worse with a probability of 80 % at the level divided by the size of the family, if `sd` were
    the true one. None: there is no such number. `reason` says why there is no verdict.
    """

    word: str
    reason: str = ""
    mean: float | None = None
    sd: float | None = None
    sampling_sd: float | None = None
    seeds: int = 0  # training seeds in common
    streams: int = 0  # noise streams in common, at the seed that has the fewest
    interval: tuple[float, float] | None = None
    interval_method: str = INTERVAL
    p: float | None = None
    p_holm: float | None = None
    smallest: float | None = None


def judge(pairs: Sequence[Pair]) -> list[Difference]:
    """A verdict on `other` of each pair, in their order, at a level of 5 % for all together.

    The pairs are the family: whatever is compared at once belongs into one call. Those of which
    there is no p-value are no part of it.
    """
    found = [_measure(pair) for pair in pairs]
    raw = [one.p for one in found if one.p is not None]
    corrected = iter(holm(raw))
    return [
        one if one.p is None else _decide(one, pair.baseline.goal, next(corrected), len(raw))
        for pair, one in zip(pairs, found, strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of a family corrected by Holm's step-down rule (1979), in the order given."""
    corrected, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = highest
    return corrected


def _measure(pair: Pair) -> Difference:
    """Everything but the correction; no word yet where there is a p-value."""
    shared = _shared(pair)
    why = _unlike(pair) or _not_finite(shared)
    if why:
        return Difference(NOT_COMPARABLE, why)
    cell = _paired(shared, pair.floor if pair.baseline.goal == "floor" else None)
    found = Difference(
        "",
        mean=cell.mean if shared else None,
        sd=cell.sd,
        sampling_sd=cell.sampling_sd,
        seeds=cell.seeds,
        streams=cell.streams,
    )
    if cell.seeds < SEEDS:
        return replace(found, word=NOT_ENOUGH, reason=_too_few(cell))
    size = max(abs(v) for streams in shared.values() for both in streams.values() for v in both)
    mean, sd = (0.0 if abs(v) <= ROUNDING * size else v for v in (cell.mean, cell.sd or 0.0))
    found = replace(found, mean=mean, sd=sd)
    return _tested(found, mean, sd) if sd else _constant(found, mean, pair.baseline)


def _tested(found: Difference, mean: float, sd: float) -> Difference:
    """The paired t-test and its interval."""
    from scipy.special import stdtr, stdtrit

    free, error = found.seeds - 1, sd / math.sqrt(found.seeds)
    reach = float(stdtrit(free, 0.975)) * error
    p = 2 * float(stdtr(free, -abs(mean) / error))
    return replace(found, p=p, interval=(mean - reach, mean + reach))


def _constant(found: Difference, mean: float, cell: Cell) -> Difference:
    """The same difference at every training seed: a fact, or too little was seen of its spread.

    Small shares of few samples agree by chance (in 2 % of all comparisons of 1 in 600 at three
    seeds), and methods that do not train always do.
    """
    if cell.fields.get("n") == "0":  # not made from samples, such as the FLOP of a network
        return replace(found, p=0.0 if mean else 1.0, interval=(mean, mean))
    if not mean:
        return replace(found, p=1.0)
    why = f"the same difference at all {found.seeds} training seeds, so its spread is not known"
    return replace(found, word=NOT_ENOUGH, reason=why)


def _decide(found: Difference, goal: str, corrected: float, family: int) -> Difference:
    """The verdict, and the smallest difference that could have been seen."""
    gain = (found.mean or 0.0) * (1 if goal == "max" else -1)
    word = TIE if corrected > LEVEL else BETTER if gain > 0 else WORSE
    smallest = None
    if found.sd:
        smallest = _noncentrality(found.seeds, family) * found.sd / math.sqrt(found.seeds)
    return replace(found, word=word, p_holm=corrected, smallest=smallest)


@lru_cache
def _noncentrality(seeds: int, family: int) -> float:
    """The true difference, in standard errors, that is seen with the power wanted.

    By the noncentral t distribution. A verdict with the wrong sign is not counted as seen.
    """
    from scipy.special import nctdtrinc, stdtrit

    critical = stdtrit(seeds - 1, 1 - LEVEL / family / 2)
    return float(nctdtrinc(seeds - 1, 1 - POWER, critical))


def _shared(pair: Pair) -> Shared:
    """Both values wherever there are two, at the training seeds where there are any."""
    found = {}
    for seed, streams in pair.baseline.values.items():
        theirs = pair.other.values.get(seed, {})
        both = {stream: (v, theirs[stream]) for stream, v in streams.items() if stream in theirs}
        if both:
            found[seed] = both
    return found


def _paired(shared: Shared, floor: float | None) -> Cell:
    """Other - baseline; of their distances from a floor."""

    def difference(one: float, two: float) -> float:
        return two - one if floor is None else abs(two - floor) - abs(one - floor)

    return Cell(
        {
            seed: {stream: difference(*both) for stream, both in streams.items()}
            for seed, streams in shared.items()
        }
    )


def _unlike(pair: Pair) -> str:
    """Why the two may not be compared at all; "" if they may."""
    goal = pair.baseline.goal
    if not goal or goal != pair.other.goal:
        return "the metric has no better direction"
    if goal == "floor" and (pair.floor is None or not abs(pair.floor) < LARGEST):
        return "the best value is that of real data, which was not measured"
    one, two = pair.baseline.fields, pair.other.fields
    return "; ".join(
        f"{name} differs: {one.get(name) or 'none'} / {two.get(name) or 'none'}"
        for name in differences([one, two])
    )


def _not_finite(shared: Shared) -> str:
    """Names the first seed at which a run diverged; to leave it out would favour its method."""
    for seed, streams in sorted(shared.items()):
        sides = zip(("baseline", "other"), zip(*streams.values(), strict=True), strict=True)
        bad = [side for side, values in sides if not all(abs(v) < LARGEST for v in values)]
        if bad:
            return f"not finite at seed {seed} ({' and '.join(bad)})"
    return ""


def _too_few(cell: Cell) -> str:
    have = f"{cell.seeds} training {'seed' if cell.seeds == 1 else 'seeds'} in common"
    return f"{have}, {SEEDS} are needed (noise streams of each: {cell.streams})"
