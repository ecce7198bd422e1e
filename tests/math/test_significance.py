"""`better`, `worse` and the numbers behind them, against closed forms and independent code."""

import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from flowbench.comparison.significance import (
    LEVEL,
    NOT_COMPARABLE,
    NOT_ENOUGH,
    WORDS,
    Pair,
    holm,
    judge,
)
from flowbench.comparison.view import Cell

FIELDS = {"protocol": "k=3", "extractor": "inception 0123", "n": "600"}
RANDOM = np.random.default_rng(3)


def cell(*rows, goal="min", seeds=None, **fields):
    """A row for each training seed: its value, or its values over noise streams 0, 1, ..."""
    lists = [row if isinstance(row, list | tuple | np.ndarray) else [row] for row in rows]
    values = {
        seed: {stream: float(value) for stream, value in enumerate(row)}
        for seed, row in zip(seeds or range(len(rows)), lists, strict=True)
    }
    return Cell(values, goal, FIELDS | fields)


def one(baseline, other, floor=None):
    return judge([Pair(baseline, other, floor)])[0]


def test_three_seeds_give_the_numbers_that_are_worked_out_by_hand():
    found = one(cell(5, 5, 5), cell(3, 2, 1))  # differences -2, -3, -4
    t = 3 * math.sqrt(3)
    assert (found.word, found.seeds, found.streams) == ("better", 3, 1)
    assert (found.mean, found.sd, found.sampling_sd) == (-3, 1, None)
    # Student's t of 2 degrees of freedom has its distribution in closed form.
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert found.p_holm == found.p
    reach = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert found.interval == pytest.approx((-3 - reach, -3 + reach))
    assert found.interval_method == "paired t over training seeds, 95 %"


@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_p_and_interval_are_those_of_scipy(seeds):
    a, b = RANDOM.normal([[0], [0.5]], size=(2, seeds))
    found, expected = one(cell(*a), cell(*b)), stats.ttest_rel(b, a)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    "goal, floor, good, bad",
    [
        ("min", None, (3, 2, 1), (7, 8, 9)),
        ("max", None, (7, 8, 9), (3, 2, 1)),
        ("floor", 0, (3, 2, 1), (7, 8, 9)),
        ("floor", 9, (7, 8, 9), (3, 2, 1)),
        ("floor", 4.5, (4.4, 4.5, 4.6), (1.5, 1, 0.5)),  # on the other side of the floor
    ],
)
def test_the_goal_decides_what_is_better(goal, floor, good, bad):
    base = cell(5, 5, 5, goal=goal)
    assert one(base, cell(*good, goal=goal), floor).word == "better"
    assert one(base, cell(*bad, goal=goal), floor).word == "worse"


def test_differences_keep_the_units_and_the_sign_of_the_metric():
    assert one(cell(5, 5, 5, goal="max"), cell(6, 7, 8, goal="max")).mean == 2
    found = one(cell(5, 5, 5, goal="floor"), cell(3, 2.5, 2, goal="floor"), 4)
    assert found.mean == pytest.approx(0.5)  # distances 1, 1.5, 2 against 1


def test_as_far_below_the_floor_as_above_it_is_a_tie():
    found = one(cell(5, 5, 5, goal="floor"), cell(3, 3, 3, goal="floor"), 4)
    assert (found.word, found.mean, found.p) == ("tie", 0, 1)


def test_pairing_takes_out_what_a_seed_does_to_both():
    shared = np.array([0, 10, 20])
    a, b = shared + 5, shared + np.array([4, 3.9, 4.1])
    found = one(cell(*a), cell(*b))
    assert found.word == "better" and found.sd == pytest.approx(0.1)
    assert stats.ttest_ind(a, b).pvalue > 0.5  # what is not paired sees nothing
    crossed = one(cell(*a), cell(*np.roll(b, 1)))  # nor does what pairs the wrong ones
    assert crossed.word == "tie" and crossed.mean == pytest.approx(found.mean)


def test_only_seeds_and_streams_that_both_have_count():
    base = cell([1, 2, 99], [3, 4], [5, 6], [50], seeds=[0, 1, 2, 8])
    other = cell([2, 4], [5, 6, -99], [7, 7], [-50], seeds=[0, 1, 2, 9])
    found = one(base, other)
    assert (found.seeds, found.streams, found.mean) == (3, 2, pytest.approx(5 / 3))
    assert found.sampling_sd == pytest.approx(math.sqrt((0.5 + 0 + 0.5) / 3))
    lone = Cell({s: {7: 1.0} for s in range(3)}, "min", FIELDS)  # stream 7 only
    assert one(base, lone).word == NOT_ENOUGH


def test_fewer_than_three_training_seeds_decide_nothing_however_many_streams():
    a, b = RANDOM.normal([[[0]], [[100]]], size=(2, 2, 50))
    found = one(cell(*a), cell(*b))
    assert found.word == NOT_ENOUGH
    assert found.reason == ("2 training seeds in common, 3 are needed (noise streams of each: 50)")
    assert found.mean == pytest.approx(100, abs=1)
    assert (found.interval, found.p, found.p_holm, found.smallest) == (None,) * 4
    single = one(cell(1), cell(2))
    assert single.reason.startswith("1 training seed in common, 3 are needed")
    assert (single.mean, single.sd) == (1, None)


def test_no_seed_in_common_is_not_enough_data():
    found = one(cell(1, 2, 3), cell(1, 2, 3, seeds=[3, 4, 5]))
    assert (found.word, found.seeds, found.mean) == (NOT_ENOUGH, 0, None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
def test_a_run_that_diverged_is_neither_a_number_nor_left_out(bad):
    whole, broken = cell(1, 2, 3, 4), cell(1, bad, 3, 4)
    assert one(whole, broken).word == NOT_COMPARABLE
    assert one(whole, broken).reason == "not finite at seed 1 (other)"
    assert one(broken, whole).reason == "not finite at seed 1 (baseline)"
    assert one(broken, broken).reason == "not finite at seed 1 (baseline and other)"
    apart = cell(1, 2, 3, bad, seeds=[0, 1, 2, 9])  # where there is nothing to compare with
    assert one(whole, apart).word == "tie"


@pytest.mark.parametrize("name", FIELDS)
def test_cells_that_differ_in_one_field_are_not_compared(name):
    found = one(cell(1, 2, 3), cell(1, 2, 3, **{name: "else"}))
    assert found.word == NOT_COMPARABLE
    assert found.reason == f"{name} differs: {FIELDS[name]} / else"


def test_a_missing_or_a_mixed_field_is_named():
    missing = one(cell(1, 2, 3, resize="area"), cell(1, 2, 3))
    assert missing.reason == "resize differs: area / none"
    mixed = cell(1, 2, 3, resize="area | bicubic")
    assert one(mixed, mixed).word == NOT_COMPARABLE


def test_without_a_direction_or_a_floor_there_is_no_better():
    facts = cell(1, 2, 3, goal="")
    assert one(facts, facts).reason == "the metric has no better direction"
    assert one(cell(1, 2, 3), cell(1, 2, 3, goal="max")).word == NOT_COMPARABLE
    near = cell(1, 2, 3, goal="floor")
    assert one(near, near).word == one(near, near, math.nan).word == NOT_COMPARABLE
    assert "real data" in one(near, near).reason


def test_equal_numbers_are_a_tie():
    found = one(cell(0.1, 0.2, 0.3), cell(0.1, 0.2, 0.3))
    assert (found.word, found.mean, found.p, found.p_holm) == ("tie", 0, 1, 1)
    assert (found.interval, found.smallest) == (None, None)  # of a spread that was not seen


def test_a_fact_that_is_the_same_at_each_seed_needs_no_spread():
    found = one(cell(588.2, 588.2, 588.2, n="0"), cell(300, 300, 300, n="0"))
    assert (found.word, found.p) == ("better", 0)
    assert found.interval == pytest.approx((-288.2, -288.2))
    same = cell(300, 300, 300, n="0")
    assert (one(same, same).word, one(same, same).interval) == ("tie", (0, 0))


def test_scores_of_samples_that_differ_equally_everywhere_are_not_taken_for_a_fact():
    base, other = np.array([3, 4, 5]) / 600, np.array([2, 3, 4]) / 600
    # Binary fractions hide that these are equal: a t-test would be sure.
    assert 0 < np.std(other - base) < 1e-15
    found = one(cell(*base), cell(*other))
    assert (found.word, found.p, found.smallest) == (NOT_ENOUGH, None, None)
    assert found.reason.startswith("the same difference at all 3 training seeds")
    assert one(cell(*base), cell(2 / 600, 3 / 600, 5 / 600)).p is not None


def test_the_example_of_the_textbook_is_corrected_as_there():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1, 1]


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_holm_is_bonferroni_on_every_subset(size):
    """Closed testing: a hypothesis falls where each subset with it does."""
    p = list(RANDOM.uniform(size=size) ** 4)
    subsets = [s for k in range(1, size + 1) for s in itertools.combinations(range(size), k)]
    local = {s: min(1, len(s) * min(p[i] for i in s)) for s in subsets}
    closed = [max(local[s] for s in subsets if i in s) for i in range(size)]
    assert holm(p) == pytest.approx(closed)


def test_corrected_values_keep_the_order_and_are_never_smaller():
    p = RANDOM.uniform(size=50) ** 3
    corrected, order = np.array(holm(list(p))), np.argsort(p)
    assert (np.diff(corrected[order]) >= 0).all()
    assert (corrected >= p).all() and (corrected <= 1).all()
    assert holm(list(p[order])) == list(corrected[order])


def test_a_family_corrects_what_is_tested_and_nothing_else():
    clear, silent = Pair(cell(5, 5, 5), cell(3, 2, 1)), Pair(cell(1, 2), cell(3, 4))
    alone = judge([clear])[0]
    assert judge([silent, clear, silent])[1] == alone
    crowd = judge([clear, Pair(cell(1, 2, 3), cell(1, 3, 2))])
    assert crowd[0].p == alone.p and crowd[0].p_holm == pytest.approx(2 * alone.p)
    assert crowd[0].word == "tie" and alone.p < LEVEL < 2 * alone.p
    assert crowd[0].smallest > alone.smallest
    assert judge([]) == []


@pytest.mark.parametrize("seeds, family", [(3, 1), (3, 12), (5, 1), (5, 12), (10, 100), (3, 5000)])
def test_the_smallest_difference_has_the_power_it_claims_by_the_noncentral_t(seeds, family):
    pairs = [Pair(cell(*np.zeros(seeds)), cell(*RANDOM.normal(size=seeds)))] * family
    found = judge(pairs)[0]
    free, shift = seeds - 1, found.smallest / (found.sd / math.sqrt(seeds))
    critical = stats.t.ppf(1 - LEVEL / family / 2, free)
    # P(Z + shift > critical sqrt(V / free)) over the quantiles of V, chi-squared.
    v = stats.chi2.ppf((np.arange(100_000) + 0.5) / 100_000, free)
    power = stats.norm.cdf(shift - critical * np.sqrt(v / free)).mean()
    assert power == pytest.approx(0.8, abs=1e-3)


def test_every_word_has_its_case_and_values_are_plain():
    base = cell(5, 5, 5)
    others = [cell(3, 2, 1), cell(7, 8, 9), cell(4, 5, 6.1), cell(1), cell(1, 2, math.nan)]
    assert [one(base, other).word for other in others] == list(WORDS)
    numbers = [v for v in asdict(one(base, others[0])).values() if not isinstance(v, str)]
    assert all(type(v) in (int, float, tuple, type(None)) for v in numbers)
