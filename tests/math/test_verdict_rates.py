"""How often a verdict is wrong, on scores whose truth is known: simulated, with fixed seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from flowbench.comparison.significance import LEVEL, Pair, judge
from flowbench.comparison.view import Cell

FIELDS = {"n": "600"}
FAMILY = 12
DECIDED = ("better", "worse")


def share(p):
    """Shares of 600 samples."""
    return lambda random, size: random.binomial(600, p, size=size) / 600


DRAWS = {
    "normal": lambda random, size: random.normal(size=size),
    "log-normal": lambda random, size: random.lognormal(size=size),
    "shares near 0": share(0.001),
    "shares near a half": share(0.5),
}


def families(baseline, other, goal="min"):
    """The verdicts on scores (families, comparisons, seeds[, streams]), family by family."""
    if baseline.ndim == 3:
        baseline, other = baseline[..., None], other[..., None]
    sides = zip(baseline.tolist(), other.tolist(), strict=True)
    return [
        judge([Pair(cell(one, goal), cell(two, goal)) for one, two in zip(*both, strict=True)])
        for both in sides
    ]


def cell(rows, goal):
    values = {seed: dict(enumerate(streams)) for seed, streams in enumerate(rows)}
    return Cell(values, goal, FIELDS)


def rate(found):
    """The share of families with anything decided: each of them is wrong where all are equal."""
    return np.mean([any(one.word in DECIDED for one in family) for family in found])


def bound(count):
    """What a true rate of 5 % exceeds once in 700 such simulations."""
    return LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / count)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("name", DRAWS)
def test_equal_methods_are_told_apart_in_at_most_5_percent_of_families(name, seeds):
    random = np.random.default_rng([seeds, len(name)])
    size = (1500, FAMILY, seeds)
    found = families(DRAWS[name](random, size), DRAWS[name](random, size))
    better = np.mean([any(one.word == "better" for one in family) for family in found])
    assert better <= rate(found) <= bound(1500)
    # Each comparison as a family of its own, of which the corrected p is the raw one.
    alone = np.mean([one.p is not None and one.p <= LEVEL for family in found for one in family])
    assert alone <= bound(1500 * FAMILY)
    if name == "normal":  # nor is the test too shy: the level is used
        assert rate(found) > 0.04 and alone > 0.045


def test_a_family_of_one_is_judged_by_its_own_p():
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 3000, 1, 3))
    found = families(a, b)
    assert rate(found) <= bound(3000)
    assert all((f[0].word in DECIDED) == (f[0].p <= LEVEL) for f in found)
    better = np.mean([family[0].word == "better" for family in found])
    assert better == pytest.approx(LEVEL / 2, abs=0.01)  # one side has half of the level


@pytest.mark.parametrize("goal, sign", [("min", -1), ("max", 1)])
def test_among_many_the_method_that_is_better_is_found_and_the_others_are_not(goal, sign):
    random = np.random.default_rng(5)
    a, b = random.normal(size=(2, 500, FAMILY, 5))
    b[:, 0] += 20 * sign
    found = families(a, b, goal)
    assert np.mean([family[0].word == "better" for family in found]) > 0.99
    assert rate([family[1:] for family in found]) <= bound(500)


@pytest.mark.parametrize("seeds, family", [(3, 1), (3, FAMILY), (5, 1), (5, FAMILY)])
def test_the_smallest_difference_is_seen_in_80_percent_of_trials(seeds, family):
    random = np.random.default_rng([seeds, family])
    known = np.linspace(-1, 1, seeds)
    known /= known.std(ddof=1)  # a sample with the standard deviation that is the true one
    smallest = families(np.zeros((1, family, seeds)), np.tile(known, (1, family, 1)))[0][0].smallest
    drawn = random.normal(smallest, 1, size=(6000, 1, seeds))
    found = families(np.zeros_like(drawn), drawn)
    seen = np.mean([one[0].p <= LEVEL / family and one[0].mean > 0 for one in found])
    assert seen == pytest.approx(0.8, abs=0.02)


def test_without_a_correction_a_family_is_wrong_far_too_often():
    random = np.random.default_rng(2)
    found = families(*random.normal(size=(2, 500, FAMILY, 5)))
    raw = np.mean([any(one.p <= LEVEL for one in family) for family in found])
    assert rate(found) <= bound(500) and raw > 0.35  # 1 - 0.95^12 = 46 %


def test_noise_streams_in_the_place_of_training_seeds_are_wrong_far_too_often():
    random = np.random.default_rng(3)
    training = random.normal(size=(2, 1500, 1, 3, 1))
    a, b = training + 0.5 * random.normal(size=(2, 1500, 1, 3, 8))
    assert rate(families(a, b)) <= bound(1500)
    flat = (1500, 1, 24, 1)
    assert rate(families(a.reshape(flat), b.reshape(flat))) > 0.3


def test_a_normal_quantile_in_the_place_of_students_is_wrong_far_too_often():
    random = np.random.default_rng(4)
    found = families(*random.normal(size=(2, 1500, 1, 3)))
    t = np.array([one[0].mean / one[0].sd * math.sqrt(3) for one in found])
    assert np.mean(abs(t) > stats.norm.ppf(0.975)) > 0.15


def test_equal_differences_of_small_shares_taken_for_facts_would_be_wrong_far_too_often():
    random = np.random.default_rng(6)
    a, b = (share(0.001)(random, (500, FAMILY, 3)) for _ in "ab")
    equal = np.ptp(b - a, axis=-1) < 1e-12
    assert np.mean((equal & (a != b).all(-1)).any(-1)) > 0.15
    assert rate(families(a, b)) <= bound(500)


def test_an_unpaired_test_misses_what_pairing_finds():
    random = np.random.default_rng(7)
    shared = random.normal(0, 10, size=(500, 1, 5))
    a, b = shared + random.normal(size=(2, 500, 1, 5)) + np.array([[[[0]]], [[[-4]]]])
    paired = np.mean([one[0].word == "better" for one in families(a, b)])
    unpaired = np.mean(stats.ttest_ind(a, b, axis=-1).pvalue <= LEVEL)
    assert paired > 0.95 and unpaired < 0.05


def test_what_the_verdicts_assume_is_where_they_fail():
    """The limits that the module states: one side skewed, and noise that favours one method."""
    random = np.random.default_rng(8)
    skewed = random.lognormal(size=(2000, 1, 5))
    steady = np.full_like(skewed, math.exp(0.5))  # the same mean
    assert rate(families(steady, skewed)) > 0.1
    training, stream = random.normal(size=(2000, 1, 5)), random.normal(size=(2000, 1, 1))
    assert rate(families(np.zeros_like(training), training + stream)) > 0.2
