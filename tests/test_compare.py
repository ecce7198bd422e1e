"""Groups over seeds, best values, protocols that must not mix, floors, commands."""

import math
import statistics

import pytest

from flowbench.command_line import command
from flowbench.comparison.build import build
from flowbench.entries import Dataset
from flowbench.records import Budget, Measured, Score, Spec, Tried
from flowbench.report import layout
from flowbench.report.sections import matrix

PROTOCOL = {"reference": 1}


def spec(method="cfm", seed=0, **more):
    return Spec(method, "digits", seed, Budget(10, 2), data="d1", **more)


def sections(rows, tried=()):
    return build(rows, tried).sections


def row(spec, value, nfe=1, name="fd", n=100, goal="min", subject="model", protocol=PROTOCOL):
    score = Score(name, value, nfe, subject, n, goal=goal, protocol=protocol)
    return Measured(spec.name, spec, score, 1, 1, "")


def cell(found, label, name="fd", nfe=1):
    return found.cells[label, name, nfe]


def test_mean_and_deviation_over_seeds():
    values = [1.0, 2.0, 6.0]
    (found,) = sections([row(spec(seed=i), value) for i, value in enumerate(values)])
    (group,) = found.groups
    assert group.seeds == (0, 1, 2)
    assert cell(found, "cfm").mean == 3
    assert cell(found, "cfm").sd == pytest.approx(statistics.stdev(values))
    assert layout.number(cell(found, "cfm")) == "3.000 ± 2.6"


def test_the_best_of_a_column_follows_the_direction_of_the_metric():
    rows = [row(spec("a"), 1.0), row(spec("b"), 2.0)]
    rows += [row(spec(m), v, name="is", goal="max") for m, v in (("a", 1.0), ("b", 2.0))]
    rows += [row(spec(m), v, name="fact", goal="") for m, v in (("a", 1.0), ("b", 2.0))]
    (found,) = sections(rows)
    best = {key[:2] for key, value in found.cells.items() if value.best}
    assert best == {("a", "fd"), ("b", "is")}


def test_where_real_data_are_the_goal_the_nearest_to_them_is_best():
    rows = [row(spec("collapsed"), 1.0, goal="floor"), row(spec("good"), 3.2, goal="floor")]
    (found,) = sections([*rows, row(spec("good"), 3.0, nfe=-1, subject="floor", goal="floor")])
    assert cell(found, "good").best and not cell(found, "collapsed").best
    assert not any(value.best for value in sections(rows)[0].cells.values()), "no floor, no best"


def test_another_protocol_is_not_ranked():
    first, second = sections([row(spec("a"), 1.0), row(spec("b"), 2.0, protocol={"reference": 2})])
    assert not any(cell.best for found in (first, second) for cell in found.cells.values())
    assert second.differs == ("fd: split 2 instead of 1",)
    assert "this table's fd: split 2 instead of 1" in matrix(second, ["fd"]).notes


def test_times_of_another_machine_share_a_table_but_no_ranking():
    def timed(method, device):
        facts = {"device": device, "batch": 100, "threads": 1}
        return row(spec(method), 1.0, name="ms-per-sample", n=0, protocol=facts)

    rows = [row(spec("a"), 1.0), row(spec("b"), 2.0), timed("a", "one"), timed("b", "other")]
    (found,) = sections(rows)
    table = matrix(found, ["fd", "ms-per-sample"])
    assert [cell.words for cell in table.rows[0][1:]] == ["1.000", "1.000 *"]
    assert "*: not ranked, because these differ: device" in table.notes


@pytest.mark.parametrize("other", [{"n": 200}, {"spec": spec("b", version="x")}])
def test_other_samples_or_data_get_a_table_of_their_own(other):
    import dataclasses

    second = dataclasses.replace(spec("b"), data="d2") if "spec" in other else spec("b")
    found = sections([row(spec("a"), 1.0), row(second, 2.0, n=other.get("n", 100))])
    assert len(found) == 2


def test_runs_that_differ_in_options_budget_or_code_are_rows_of_their_own():
    import dataclasses

    variants = [
        spec(),
        spec(options={"lr": 1}, changed={"lr": 1}),
        dataclasses.replace(spec(), budget=Budget(20, 2)),
        dataclasses.replace(spec(), code="abcdefgh"),
    ]
    found = sections([row(one, 1.0) for one in variants])
    labels = {group.label for section in found for group in section.groups}
    assert len(labels) == 4 and len(found) == 2, "another budget is another table"
    assert "cfm lr=1" in labels and "cfm [20 x 2]" in labels
    assert "cfm [10 x 2] [code abcdef]" in labels


def test_not_finite_values_are_shown_and_never_best():
    rows = [row(spec("a"), math.nan), row(spec("b"), math.inf), row(spec("c"), 5.0)]
    (found,) = sections(rows)
    assert math.isnan(cell(found, "a").mean) and cell(found, "b").mean == math.inf
    assert cell(found, "c").best
    assert [layout.number(cell(found, m)) for m in "ab"] == ["nan", "inf"]


def test_one_bad_seed_is_not_averaged_away():
    (found,) = sections([row(spec(seed=0), 1.0), row(spec(seed=1), math.nan)])
    assert math.isnan(cell(found, "cfm").mean)


def test_the_floor_stands_below_with_its_n():
    rows = [row(spec(), 3.0), row(spec(), 1.0, nfe=-1, n=60, subject="floor")]
    (found,) = sections(rows)
    table = matrix(found, ["fd"])
    assert [cell.words for cell in table.rows[-1]] == ["floor (n = 60)", "1.000"]


def test_what_was_not_measured_comes_with_its_command():
    (found,) = sections([row(spec(options={"lr": 2}, changed={"lr": 2}), 3.0)])
    table = matrix(found, ["fd"], [1, 4, 0], wanted=["edm"])
    assert [cell.words for cell in table.rows[0]] == ["cfm lr=2", "3.000", *["not measured"] * 2]
    budget = "--seed 0 --steps 10 --batch 2 --samples 100"
    expected = f"flowbench run cfm --dataset digits --nfe 4,auto {budget} -o lr=2"
    assert f"not measured: {expected}" in table.notes
    assert (
        f"not measured: flowbench run edm --dataset digits --nfe 1,4,auto {budget}" in table.notes
    )


def test_the_command_leaves_out_the_default_budget_and_names_the_teacher():
    one = spec("lmm", changed={"teacher": "cfm", "indices": [0, 1]})
    entry = Dataset("digits", "", None, Budget(10, 2), samples=100)
    words = command(one, [1], [0, 2], 100, 0, entry)
    assert words == (
        "flowbench run lmm --dataset digits --nfe 1 --seed 0,2 -o indices=0,1 --teacher cfm"
    )
    other = command(one, [1], [0], 50, 3, entry)
    assert "--samples 50 --sample-seed 3" in other


def test_only_the_last_attempt_of_a_run_counts_as_failed():
    def tried(number, outcome, one):
        return Tried(number, one.name, one, number, 1, outcome, "why", "", "", "")

    good, bad = spec(seed=0), spec(seed=1)
    attempts = [tried(1, "failed", good), tried(2, "ok", good), tried(1, "diverged", bad)]
    (found,) = sections([row(good, 1.0)], attempts)
    assert found.failures == [f"cfm, seed 1 ({bad.name}), attempt 1: diverged: why"]


def test_two_teachers_of_one_seed_are_never_averaged():
    import dataclasses

    one = spec("lmm", teacher="a" * 64)
    other = dataclasses.replace(one, teacher="b" * 64)
    (found,) = sections([row(one, 1.0), row(other, 3.0)])
    assert {group.label for group in found.groups} == {
        f"lmm [teacher {letter * 8}]" for letter in "ab"
    }


def test_a_cell_of_fewer_seeds_says_so_and_what_would_fill_it():
    rows = [row(spec(seed=i), 1.0) for i in range(3)] + [row(spec(seed=0), 2.0, nfe=2)]
    table = matrix(sections(rows)[0], ["fd"])
    assert [cell.words for cell in table.rows[0][1:]] == ["1.000 ± 0", "2.000 (1 of 3 seeds)"]
    assert any("--nfe 2 --seed 0,1,2" in note for note in table.notes)


def test_runs_of_other_samples_do_not_fill_a_table_with_empty_rows():
    facts = [row(spec(m), 1.0, nfe=-1, name="S", n=0) for m in "ab"]
    found = sections([row(spec("a"), 1.0, n=50), row(spec("b"), 1.0, n=100), *facts])
    assert [[group.label for group in section.groups] for section in found] == [["a"], ["b"]]


@pytest.mark.parametrize(
    "value, words",
    [(0, "0"), (1234.5, "1234"), (0.012345, "0.01235"), (12.3456, "12.35"), (1e-7, "1.00e-07")],
)
def test_numbers_have_four_digits(value, words):
    assert layout.plain(value) == words


def test_on_a_narrow_terminal_columns_go_on_below_and_no_number_is_cut():
    import io

    from rich.console import Console

    from flowbench.report import terminal

    names = [f"metric-{i}" for i in range(9)]
    (found,) = sections([row(spec(), 0.123456, name=name) for name in names])
    for width, parts in ((200, 1), (60, 3)):
        out = io.StringIO()
        console = Console(file=out, width=width, force_terminal=True, no_color=True)
        terminal.show([matrix(found, names)], console)
        text = out.getvalue()
        assert text.count("0.1235") == 9 and text.count("method") == parts
        assert all(name in text for name in names)


def test_a_floor_of_fewer_rows_stands_beside_and_one_of_another_setting_does_not():
    facts = {"reference": ["train", 50], "directions": 500}
    model = row(spec(), 3.0, name="sw2", protocol={**facts, "rows": 100})
    for change, beside in (({"rows": 60}, True), ({"rows": 60, "directions": 9}, False)):
        real = row(spec(), 1.0, nfe=-1, n=60, name="sw2", subject="floor", protocol=facts | change)
        assert ("sw2" in sections([model, real])[0].floors) is beside
