"""`--baseline`, `--fail-on` and `--sort`: which pairs are judged, and what the words are worth."""

import math
import re

import pytest
from plain_tables import rows
from scipy import stats
from stored_rows import DATA, IMAGES, floor, put, score, spec

from flowbench.comparison.significance import WORDS
from flowbench.report.judgement import COLUMNS

BASE = [5.0, 5.1, 4.9, 5.05]
VERDICT = COLUMNS.index("verdict")


def seeds(database, method, values, *more, name="fd", **given):
    """One run a seed with these values."""
    for seed, value in enumerate(values):
        numbers = [score(value, name, **given)]
        put(database, spec(method, seed), *numbers, *(make(seed) for make in more))


@pytest.fixture
def three(database):
    """edm is better than cfm at every seed, lmm worse, by differences that vary little."""
    seeds(database, "cfm", BASE)
    seeds(database, "edm", [v - 1 - d for v, d in zip(BASE, [0, 0.02, 0.01, 0.03], strict=True)])
    seeds(database, "lmm", [v + 1 + d for v, d in zip(BASE, [0, 0.02, 0.01, 0.03], strict=True)])
    return database


def verdicts(output):
    """The table of verdicts: (row, column) -> the words of its line."""
    _, _, table = output.partition("Against ")
    assert table, output
    lines = [line for line in rows(table) if line[VERDICT : VERDICT + 1]]
    return {(line[0], line[1]): line for line in lines if line[VERDICT] in WORDS}


def compared(flowbench, *words, expected=0):
    code, output = flowbench("compare", *words)
    assert code == expected, output
    assert "Traceback" not in output
    return output


def words_of(output):
    return {place: line[VERDICT] for place, line in verdicts(output).items()}


def test_verdicts_name_the_row_the_column_and_the_direction(flowbench, three):
    output = compared(flowbench, "--baseline", "cfm")
    assert "Against cfm: digits: 100 samples" in output
    assert words_of(output) == {("edm", "fd @ 1"): "better", ("lmm", "fd @ 1"): "worse"}
    line = dict(zip(COLUMNS, verdicts(output)["edm", "fd @ 1"], strict=True))
    differences = [-1.0, -1.02, -1.01, -1.03]
    p = stats.ttest_1samp(differences, 0).pvalue
    low, high = stats.t.interval(0.95, 3, -1.015, stats.sem(differences))
    assert line["direction"] == "lower"
    assert float(line["difference"]) == pytest.approx(-1.015, abs=5e-4)
    assert [float(v) for v in line["95 % interval"].split(" to ")] == pytest.approx(
        [low, high], abs=5e-4
    )
    assert line["p (Holm)"] == ("< 0.0001" if 2 * p < 1e-4 else f"{2 * p:.2g}"), "of two verdicts"
    assert line["seeds"] == "4" and line["noise streams"] == "1"
    assert float(line["smallest seen"]) > 0
    assert "Holm's correction over 2 comparisons" in output
    assert "one noise stream" in output


def test_the_other_side_as_baseline_turns_every_word(flowbench, three):
    assert words_of(compared(flowbench, "--baseline", "edm")) == {
        ("cfm", "fd @ 1"): "worse",
        ("lmm", "fd @ 1"): "worse",
    }


def test_of_two_methods_the_first_is_the_baseline(flowbench, three):
    assert "Against edm" in compared(flowbench, "edm", "cfm")
    assert "Against cfm" in compared(flowbench, "cfm", "edm")
    assert "Against edm" in compared(flowbench, "cfm", "edm", "--baseline", "edm")
    assert "Against" not in compared(flowbench, "edm")
    assert "Against" not in compared(flowbench)


def test_other_formats_have_the_same_verdicts(flowbench, three):
    form = compared(flowbench, "--baseline", "cfm", "--format", "md")
    assert re.search(r"\| edm \| fd @ 1 \| lower \| better \|", form)
    form = compared(flowbench, "--baseline", "cfm", "--format", "latex")
    assert re.search(r"edm & fd @ 1 & lower & better &", form)


@pytest.mark.parametrize(
    "gate, code, message",
    [
        ("worse", 6, "1 of 2 verdicts fail: lmm against cfm in fd @ 1: worse"),
        ("better", 6, "1 of 2 verdicts fail: edm against cfm in fd @ 1: better"),
        ("tie", 0, ""),
        ("not-enough-data,not-comparable", 0, ""),
        (" worse , tie", 6, "1 of 2"),
        ("worse,better", 6, "2 of 2 verdicts fail: edm against cfm in fd @ 1: better; lmm"),
    ],
)
def test_fail_on_is_an_exit_code(flowbench, three, gate, code, message):
    output = compared(flowbench, "--baseline", "cfm", "--fail-on", gate, expected=code)
    assert message in output
    assert "Against cfm" in output, "the table stands above"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--fail-on", "worse"], "--fail-on needs something to compare with: --baseline METHOD"),
        (["edm", "--fail-on", "worse"], "--fail-on needs something to compare with"),
        (
            ["--baseline", "cfm", "--fail-on", "wrose"],
            "no verdict of --fail-on 'wrose': did you mean worse?",
        ),
        (["--baseline", "cfm", "--fail-on", "worse,"], "no verdict of --fail-on ''"),
        (["--baseline", "nobody"], "digits has no row nobody to compare with: choose of cfm, edm"),
        (["--sort", "fdd"], "no metric of --sort 'fdd': did you mean fd?"),
        (["--sort", "fd@9"], "--sort fd@9: fd was measured at 1"),
        (["--sort", "fd@x"], "--sort fd@x: fd was measured at 1"),
        (["--sort", "fd@-1"], "--sort fd@-1: fd was measured at 1"),
        (["--sort", "@1"], "no metric of --sort ''"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_printed_above(flowbench, three, words, message):
    output = compared(flowbench, *words, expected=2)
    lines = output.splitlines()
    assert len(lines) == 1 and message in lines[0], output


def test_where_nothing_can_be_judged_the_gate_says_so(flowbench, database):
    """A check that passes because there was too little to see is no check."""
    seeds(database, "cfm", BASE[:2])
    seeds(database, "edm", BASE[:2])
    words = ["--baseline", "cfm", "--fail-on", "worse"]
    output = compared(flowbench, *words, expected=5)
    assert (
        "--fail-on cannot judge 1 of 1 verdicts: edm against cfm in fd @ 1: not enough data"
        in output
    )
    assert "2 training seeds in common, 3 are needed" in output
    assert words_of(output) == {("edm", "fd @ 1"): "not enough data"}
    output = compared(flowbench, *words[:3], "not-enough-data", expected=6)
    assert "1 of 1 verdicts fail" in output


def test_a_baseline_alone_has_nothing_to_be_held_against(flowbench, database):
    seeds(database, "cfm", BASE)
    output = compared(flowbench, "--baseline", "cfm", "--fail-on", "worse", expected=5)
    assert "--fail-on cannot judge" in output
    compared(flowbench, "--baseline", "cfm")


def variants(database):
    """Three rows of one method."""
    for start in ("teacher", "random"):
        for seed, value in enumerate(BASE):
            more = {"changed": {"start": start, "k": 2}, "options": {"start": start, "k": 2}}
            put(database, spec("lmm", seed, **more), score(value + len(start)))


def test_an_ambiguous_baseline_lists_what_to_type(flowbench, three):
    variants(three)
    output = compared(flowbench, "--baseline", "lmm")
    assert "Against lmm: " in output, "the plain one is meant by its name"


def test_a_label_with_spaces_is_typed_as_the_message_quotes_it(flowbench, database):
    import shlex

    variants(database)
    seeds(database, "cfm", BASE)
    output = compared(flowbench, "--baseline", "lmm", expected=2)
    assert "--baseline lmm fits several rows" in output
    _, _, choice = output.strip().partition("choose of ")
    named = [word.rstrip(",") for word in shlex.split(choice)]
    assert named == ["lmm k=2 start=random", "lmm k=2 start=teacher"]
    for label in named:
        assert f"Against {label}" in compared(flowbench, "--baseline", label)


def test_methods_that_were_not_asked_to_be_a_baseline_are_none_where_they_cannot(
    flowbench, database
):
    """`compare A B` shows both wherever they are, and judges where there is one row of A."""
    seeds(database, "cfm", BASE)
    for seed, value in enumerate(BASE):
        put(database, spec("edm", seed, dataset="moons", data="m"), score(value))
    output = compared(flowbench, "cfm", "edm")
    assert "moons: 100 samples" in output and "digits: 100 samples" in output
    variants(database)
    output = compared(flowbench, "lmm", "cfm")
    assert "lmm k=2 start=random" in output and "Against" not in output
    output = compared(flowbench, "cfm", "lmm")
    assert output.count("Against cfm: digits") == 1


def test_a_baseline_that_a_data_set_lacks_is_judged_where_it_is(flowbench, three):
    put(three, spec("edm", dataset="moons", data="m"), score(1.0))
    output = compared(flowbench, "--baseline", "cfm")
    assert output.count("Against ") == 1 and "moons: 100 samples" in output


def test_metrics_of_several_data_sets_are_shown_where_they_are(flowbench, three):
    put(three, spec("edm", dataset="moons", data="m"), score(1.0, "w2", nfe=2))
    output = compared(flowbench, "--metric", "fd,w2")
    assert "fd @ 1" in output and "w2 @ 2" in output
    assert "moons" not in compared(flowbench, "--metric", "fd")
    assert compared(flowbench, "--sort", "w2").count("100 samples") == 2
    line = compared(flowbench, "--metric", "fd,w3", expected=2)
    assert "no metric 'w3': there are fd, w2" in line


def test_a_fact_of_whole_runs_has_no_nfe_to_sort_by(flowbench, database):
    put(database, spec(), score(1.0), score(2.0, "S", nfe=-1, n=0), score(1.0, nfe=0))
    line = compared(flowbench, "--sort", "S@1", expected=2)
    assert "--sort S@1: S was measured at no NFE, but for whole runs" in line
    assert "fd was measured at 1, auto" in compared(flowbench, "--sort", "fd@3", expected=2)


def test_where_real_data_are_the_goal_the_floor_decides(flowbench, database):
    """edm lies below the floor: less is not better there."""
    near = [1.05, 1.06, 1.04, 1.05]
    real = {"name": "w2", "goal": "floor"}
    seeds(database, "cfm", near, lambda seed: floor(1.0, **real), **real)
    seeds(database, "edm", [0.2, 0.21, 0.22, 0.2], **real)
    output = compared(flowbench, "--baseline", "cfm")
    line = dict(zip(COLUMNS, verdicts(output)["edm", "w2 @ 1"], strict=True))
    assert line["verdict"] == "worse" and line["direction"] == "nearer to the floor"
    assert float(line["difference"]) > 0, "of the distances from the floor"


def test_without_the_floor_there_is_no_verdict(flowbench, database):
    real = {"name": "w2", "goal": "floor"}
    seeds(database, "cfm", BASE, **real)
    seeds(database, "edm", BASE, **real)
    output = compared(flowbench, "--baseline", "cfm")
    assert words_of(output) == {("edm", "w2 @ 1"): "not comparable"}
    assert "the best value is that of real data, which was not measured" in output


def test_other_fingerprints_are_not_comparable(flowbench, database):
    """Also where the user has them shown apart."""
    seeds(database, "cfm", BASE)
    seeds(database, "edm", BASE, protocol=IMAGES | {"ema": False})
    compared(flowbench, "--baseline", "cfm", expected=5)
    output = compared(flowbench, "--baseline", "cfm", "--allow-mixed")
    assert "Against" not in output, "they stand in tables of their own"
    words = ["--baseline", "cfm", "--allow-mixed", "--fail-on", "worse"]
    assert "--fail-on cannot judge" in compared(flowbench, *words, expected=5)


def test_seeds_that_only_one_side_has_do_not_count(flowbench, database):
    seeds(database, "cfm", BASE)
    for seed in (2, 3, 4, 5):
        put(database, spec("edm", seed), score(1.0 + seed / 100))
    output = compared(flowbench, "--baseline", "cfm")
    assert words_of(output) == {("edm", "fd @ 1"): "not enough data"}
    assert "2 training seeds in common" in output


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e308, -1e308])
def test_one_diverged_seed_is_not_left_out(flowbench, three, bad):
    put(three, spec("edm", 4), score(bad))
    put(three, spec("cfm", 4), score(5.0))
    output = compared(flowbench, "--baseline", "cfm")
    assert words_of(output)["edm", "fd @ 1"] == "not comparable"
    assert "not finite at seed 4 (other)" in output


def test_huge_numbers_are_shown_and_never_raise(flowbench, database):
    seeds(database, "cfm", [1e308, 1.5e308, 1e308])
    seeds(database, "edm", [-1e308, 1e308, 1e308])
    for words in (["compare"], ["compare", "--baseline", "cfm"], ["report"]):
        for form in ("table", "md", "latex"):
            code, output = flowbench(*words, "--format", form)
            assert code == 0 and "inf" in output, output
    for form in ("csv", "json"):
        assert flowbench("report", "--format", form)[0] == 0


def test_columns_that_are_not_shown_are_not_judged(flowbench, three):
    for method in ("cfm", "edm", "lmm"):
        for seed in range(4):
            put(three, spec(method, seed), score(1.0 + seed, nfe=2), score(2.0, "S", -1, n=0))
    output = compared(flowbench, "--baseline", "cfm", "--nfe", "2", "--metric", "fd")
    assert {column for _, column in words_of(output)} == {"fd @ 2"}
    output = compared(flowbench, "--baseline", "cfm")
    assert {column for _, column in words_of(output)} == {"fd @ 1", "fd @ 2", "S"}
    assert "Holm's correction over 6 comparisons" in output


def order(output):
    _, _, table = output.partition("---")
    return re.findall(r"^(cfm|edm|lmm|ctm|lfm)\b", table, re.MULTILINE)


def test_rows_are_sorted_best_first_and_those_without_a_number_last(flowbench, database):
    put(database, spec("cfm"), score(3.0), score(1.0, nfe=2), score(9.0, "is", goal="max"))
    put(database, spec("ctm"), score(1.0), score(2.0, nfe=2), score(8.0, "is", goal="max"))
    put(database, spec("edm"), score(float("nan")), score(3.0, nfe=2))
    put(database, spec("lfm"), score(7.0, nfe=0))
    put(database, spec("lmm"), score(2.0), score(0.5, "S", nfe=-1, n=0))

    def sorted_by(word):
        return order(compared(flowbench, "--metric", "fd,is,S", "--sort", word))

    assert order(compared(flowbench)) == ["cfm", "ctm", "edm", "lfm", "lmm"]
    assert sorted_by("fd") == sorted_by("fd@1") == ["ctm", "lmm", "cfm", "edm", "lfm"]
    assert sorted_by("fd@2") == sorted_by(" fd @ 2 ") == ["cfm", "ctm", "edm", "lfm", "lmm"]
    assert sorted_by("fd@auto")[0] == "lfm"
    assert sorted_by("is")[:2] == ["cfm", "ctm"], "where more is better"
    assert sorted_by("S")[0] == "lmm"


def test_sorting_by_a_metric_whose_goal_is_the_floor(flowbench, database):
    for method, value in (("cfm", 0.1), ("edm", 1.1), ("lmm", 3.0)):
        put(
            database,
            spec(method),
            score(value, "w2", goal="floor"),
            floor(1.0, "w2", goal="floor"),
        )
    assert order(compared(flowbench, "--sort", "w2")) == ["edm", "cfm", "lmm"]


def test_the_number_in_a_metrics_name_may_be_left_out(flowbench, database):
    for method, value in (("cfm", 2.0), ("edm", 1.0)):
        put(database, spec(method), score(value, "fid"))
    for name in ("fid", "fid100"):
        output = compared(flowbench, "--metric", name, "--sort", name)
        assert "fid100 @ 1" in output and order(output) == ["edm", "cfm"]


def test_verdicts_are_the_same_whatever_else_is_stored(flowbench, three):
    """Another data set, another n, other noise of others: no part of the family."""
    before = verdicts(compared(flowbench, "cfm", "edm"))
    put(three, spec("edm", 0, dataset="moons", data="m"), score(1.0))
    put(three, spec("lfm", 0, data=DATA), score(1.0))
    assert verdicts(compared(flowbench, "cfm", "edm")) == before


def test_a_candidate_that_diverged_does_not_pass_a_gate(flowbench, database):
    """Its other numbers are equal, so there is a verdict that does not fail."""
    seeds(database, "cfm", BASE, lambda seed: score(1.0, "cost"))
    seeds(database, "edm", [math.nan] * 4, lambda seed: score(1.0, "cost"))
    words = ["--metric", "fd,cost", "--baseline", "cfm", "--fail-on", "worse"]
    output = compared(flowbench, *words, expected=5)
    assert "cannot judge 1 of 2 verdicts: edm against cfm in fd @ 1: not comparable" in output
    compared(flowbench, "--metric", "cost", *words[2:])


def test_an_empty_gate_is_a_mistake(flowbench, three):
    output = compared(flowbench, "--baseline", "cfm", "--fail-on", "", expected=2)
    assert "no verdict of --fail-on ''" in output


def test_nothing_is_best_of_rows_with_other_noise(flowbench, database):
    for stream in (0, 1):
        put(database, spec("cfm"), score(2.0, seed=stream))
    put(database, spec("edm"), score(1.0, seed=0))
    output = compared(flowbench, "--format", "md")
    assert "**1.000" not in output
    assert "no best in columns whose rows have other noise streams" in output
    put(database, spec("edm"), score(1.0, seed=1))
    assert "**1.000" in compared(flowbench, "--format", "md")


def test_s_of_other_rows_is_marked_and_refuses_only_who_asks_for_it(flowbench, database):
    for method, count in (("cfm", 50), ("edm", 60)):
        own = score(1.0, "S", nfe=-1, n=0, protocol={"rows": count})
        put(database, spec(method), score(2.0), own)
    output = compared(flowbench)
    assert "1.000 *" in output and "because these differ: protocol" in output
    assert "protocol of S differs" in compared(flowbench, "--metric", "fd,S", expected=5)


def test_only_what_was_asked_for_or_begun_is_offered(flowbench, database):
    """A method may not be able to sample with any NFE that another has."""
    put(database, spec("lfm"), score(1.0, nfe=4))
    put(database, spec("cfm"), score(1.0, nfe=1), score(1.0, nfe=4))
    assert "not measured: flowbench" not in compared(flowbench)
    assert "run lfm --dataset digits --nfe 1 " in compared(flowbench, "--nfe", "1")
