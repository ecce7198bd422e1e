"""What papers print: the file of their numbers, and what of ours they are held against."""

import csv
import dataclasses
import io
import json
import math
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from flowbench import options, plugins, presets, suites
from flowbench.comparison import published
from flowbench.comparison.naming import named
from flowbench.comparison.view import Cell, Group, Section
from flowbench.data import recipes
from flowbench.records import ADAPTIVE, Budget, FlowbenchError, Spec
from flowbench.report import reproduction

ROWS = published.rows()
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PAPERS = ("cifar10", "imagenet64", "afhq64", "lmm-ablation", "lfm-images")
LMM, LFM = "arXiv:2412.06403", "arXiv:2410.02548"
COUNTS = {
    **{(LMM, "2"): 67, (LMM, "4"): 33, (LMM, "5"): 5},
    **{(LMM, "7"): 17, (LMM, "8"): 10, (LMM, "9"): 10},
    **{(LFM, "reviews A"): 12, (LFM, "reviews B"): 5, (LFM, "reviews C"): 8, (LFM, "reviews D"): 4},
}
# Read off the papers: table, method, variant, labels, NFE, metric: value, standard deviation.
SPOTS = {
    (LMM, "2", "BigGAN", "", False, 1, "is"): (9.22, None),
    (LMM, "2", "EDM", "", True, 35, "fid"): (1.79, None),
    (LMM, "2", "SiD", "alpha 1.2", True, 1, "fid"): (1.71, None),
    (LMM, "2", "3-Rect-Flow", "distilled", False, 1, "is"): (8.79, None),
    (LMM, "2", "LMM", "", True, 2, "fid"): (1.39, None),
    (LMM, "4", "EDM", "stochastic sampler", True, 511, "fid"): (1.36, None),
    (LMM, "4", "CTM", "", True, 2, "is"): (64.29, None),
    (LMM, "5", "LMM", "", False, 1, "fid"): (2.68, None),
    (LMM, "7", "LMM", "VGG+ADL, steps 0 3 5", True, 3, "fid"): (1.381, 0.015),
    (LMM, "8", "LMM", "VGG+ADL+SOT, steps 0 1", True, 2, "fid"): (1.167, 0.016),
    (LMM, "9", "LMM", "VGG, step 0", False, 1, "fid"): (5.458, 0.053),
    (LFM, "reviews B", "LFM", "OT path, adjusted steps", False, 84, "fid"): (59.7, None),
    (LFM, "reviews C", "2-Rect-Flow", "distilled", False, 4, "fid"): (82.8, None),
}


def words_of(row):
    """Method and options that `ours` names, as the method takes them."""
    assert row.words is not None
    return row.words.method, dict(row.words.options)


OURS = [row for row in ROWS if row.ours]
DISTINCT = list({row.ours: row for row in OURS}.values())


def test_each_table_has_as_many_numbers_as_the_paper():
    assert Counter((row.paper, row.table) for row in ROWS) == COUNTS
    assert len(ROWS) == 171


@pytest.mark.parametrize("key", SPOTS, ids=lambda key: " ".join(map(str, key[1:])))
def test_numbers_are_those_of_the_papers(key):
    found = [
        (row.value, row.sd)
        for row in ROWS
        if (row.paper, row.table, row.method, row.variant, row.conditional, row.nfe, row.metric)
        == key
    ]
    assert found == [SPOTS[key]]


def test_every_row_says_what_it_must_and_no_two_are_one():
    metrics = {metric.name for metric in plugins.metrics()}
    keys = Counter()
    for row in ROWS:
        assert math.isfinite(row.value) and row.value > 0 and (row.sd is None or row.sd > 0)
        assert float(row.printed.split(" ± ")[0]) == row.value
        assert row.metric in metrics and row.dataset in plugins.datasets()
        assert row.samples >= 2 and (row.nfe is None or row.nfe >= 1)
        assert row.method and row.source and row.family and len(row.note) < 100
        assert bool(row.reference) == bool(row.ours and row.metric == "fid")
        row_of = (row.place, row.dataset, row.method, row.variant, row.conditional, row.nfe)
        keys[*row_of, row.metric] += 1
    assert set(keys.values()) == {1}


@pytest.mark.parametrize("row", DISTINCT, ids=lambda row: row.ours)
def test_what_is_called_ours_can_be_run(row):
    """Its words are words of `flowbench run`, its options those of the method, its preset there."""
    from flowbench.cli.run import run

    context = run.make_context("run", [*shlex.split(row.ours), "--dataset", row.dataset])
    assert context.params["method"] == row.words.method
    method, chosen = words_of(row)
    said = presets.get(method, row.words.preset).chosen if row.words.preset else {}
    made = plugins.method(method, {**said, **chosen})
    assert row.words.fit(spec(method, options.values(made), row))
    assert made.refuses(row.level or None) is None if hasattr(made, "refuses") else True
    labelled = recipes.RECIPES[row.dataset].classes
    if row.method not in ("OT-CFM", "BOT-CFM"):  # which have none, among rows that do
        assert row.words.unconditional == bool(labelled and not row.conditional)


def spec(method, chosen, row, **changes):
    """A run that fits the words of a published row."""
    words = row.words
    values = {
        "method": method,
        "dataset": row.dataset,
        "seed": 0,
        "budget": Budget(words.steps or 1000, words.batch or 512),
        "options": chosen,
        "changed": {"preset": words.preset} if words.preset else {},
        "setting": {"unconditional": True} if words.unconditional else {},
    }
    return Spec(**{**values, **changes})


def section(row, runs, value=1.0, n=None, dataset=None, nfe=None, metric=None, **fields):
    """A section with a cell at the row's place for each run."""
    n = n or row.samples
    made = Section(dataset or row.dataset, "d" * 64, n)
    for label, run in runs.items():
        traits = {"teacher": row.words.teacher or ""}
        made.groups.append(Group(label, run, (0,), traits=traits))
        place = (label, named(metric or row.metric, n), row.level if nfe is None else nfe)
        made.cells[place] = Cell({0: {0: value}}, "min", fields)
    return made


def find(method, **values):
    """The first published row of a method with these values."""
    known = {"metric": "fid", **values}
    return next(
        row
        for row in ROWS
        if row.method == method and all(getattr(row, name) == v for name, v in known.items())
    )


def fitting(row):
    """A run that is exactly what the paper's row asks for."""
    method, chosen = words_of(row)
    said = presets.get(method, row.words.preset).chosen if row.words.preset else {}
    return spec(method, options.values(plugins.method(method, {**said, **chosen})), row)


FULL = find("LMM", dataset="cifar10", table="2", conditional=True, nfe=1)


@pytest.mark.parametrize("row", DISTINCT, ids=lambda row: row.ours)
def test_a_run_as_the_paper_has_it_is_held_against_it(row):
    found = published.matches(section(row, {"a": fitting(row)}, row.value + 0.25), [row])
    assert [match.published for match in found] == [row]
    assert found[0].difference == pytest.approx(0.25)
    assert found[0].remarks == ()


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "cifar10-jpeg"},
        {"n": 5000},
        {"n": 60_000},
        {"nfe": 4},
        {"metric": "fid-clean"},
        {"metric": "is"},
    ],
    ids=str,
)
def test_numbers_of_another_protocol_are_not_held_against_it(change):
    assert not published.matches(section(FULL, {"a": fitting(FULL)}, **change), [FULL])
    assert published.matches(section(FULL, {"a": fitting(FULL)}), [FULL])


@pytest.mark.parametrize(
    "change",
    [
        {"method": "rect-flow"},
        {"setting": {"unconditional": True}},
        *({"options": part} for part in ({"norm": "l2"}, {"adversarial": 0.0}, {"sot": 0.0})),
    ],
    ids=str,
)
def test_other_runs_are_not_held_against_it(change):
    run = fitting(FULL)
    if "options" in change:
        change = {"options": {**run.options, **change["options"]}}
    other = dataclasses.replace(run, **change)
    assert not published.matches(section(FULL, {"a": other}), [FULL])


def test_an_option_that_the_run_does_not_have_is_no_match_and_no_failure():
    run = fitting(FULL)
    other = dataclasses.replace(run, options={"norm": "lpips"})
    assert not published.matches(section(FULL, {"a": other}), [FULL])


def test_a_row_of_another_budget_is_another_row_where_the_paper_tells_them_apart():
    equal_steps = find("LFM", dataset="cifar10", table="reviews A", variant="OT path")
    equal_time = find("LFM", dataset="cifar10", table="reviews D")
    runs = {"a": fitting(equal_steps), "d": fitting(equal_time)}
    found = published.matches(section(equal_steps, runs), [equal_steps, equal_time])
    assert [(m.group.label, m.published.table) for m in found] == [
        ("a", "reviews A"),
        ("d", "reviews D"),
    ]


def test_two_rows_of_ours_are_both_kept():
    run = fitting(FULL)
    again = dataclasses.replace(run, budget=Budget(10, 4))
    found = published.matches(section(FULL, {"long": run, "short": again}), ROWS)
    assert Counter(match.group.label for match in found) == {"long": 2, "short": 2}
    assert {match.published.table for match in found} == {"2", "7"}


def remarks(run, **values):
    made = section(FULL, {"a": run}, **values)
    return published.matches(made, [FULL])[0].remarks


def test_what_is_known_to_differ_is_said():
    run = fitting(FULL)
    assert remarks(dataclasses.replace(run, changed={})) == ("not by --preset cifar10",)
    changed = {**run.changed, "steps": 10, "precision": "bf16", "norm": "lpips"}
    told = remarks(dataclasses.replace(run, changed=changed))
    assert told == ("set here: precision=bf16, steps=10",)
    told = remarks(run, split="train, 5000")
    assert told == ("held against train, 5000, not train, 50000",)
    assert remarks(run, split="train, 50000") == ()
    weights = dataclasses.replace(run, changed={"weights": "a.pkl@12345678"}, weights="1" * 64)
    assert remarks(weights) == ("set here: weights=a.pkl@12345678",)


def test_another_teacher_and_another_protocol_are_said():
    made = section(FULL, {"a": fitting(FULL)})
    made.groups[0] = dataclasses.replace(made.groups[0], traits={"teacher": "cfm"})
    made.differs = ("fid: resize a instead of b", "kid: resize a instead of b")
    told = published.matches(made, [FULL])[0].remarks
    assert told == ("its teacher is cfm, not edm", "fid: resize a instead of b")


def asked(row, dataset):
    """The run that a suite's row asks for, as planning would name it, and its samples."""
    said = presets.get(row.method, row.preset) if row.preset else presets.Preset("")
    run = {name: value.value for name, value in said.run.items()}
    made = plugins.method(row.method, {**said.chosen, **row.options})
    unlabelled = row.unconditional or run.get("unconditional")
    found = Spec(
        row.method,
        dataset,
        0,
        Budget(row.steps or run["steps"], row.batch or run["batch"]),
        options.values(made),
        changed={**row.options, **({"preset": row.preset} if row.preset else {})},
        setting={"unconditional": True} if unlabelled and recipes.RECIPES[dataset].classes else {},
    )
    return found, row.samples or run.get("samples") or plugins.datasets()[dataset].samples


@pytest.mark.parametrize("name", PAPERS)
def test_every_number_of_a_suite_is_that_of_the_file(name):
    """Its rows, with the expected values as if measured, differ from the papers by nothing."""
    suite = suites.read(BENCHMARKS / f"{name}.toml")
    rows = {row.label: row for row in suite.rows}
    for entry in suite.expectations:
        run, samples = asked(rows[entry.label], entry.dataset)
        made = Section(entry.dataset, "", samples, groups=[Group(entry.label, run, (0,))])
        place = (entry.label, named(entry.metric, samples), entry.level)
        made.cells[place] = Cell({0: {0: entry.value}})
        found = published.matches(made, ROWS)
        assert min(abs(match.difference) for match in found) == 0, entry
        # Tables 2 to 5 round what Tables 7 to 9 have; a run of other settings is told apart.
        for match in found:
            other = any(remark.startswith("not by --preset") for remark in match.remarks)
            assert abs(match.difference) < 0.01 or other, entry


def test_a_suite_with_a_wrong_number_would_be_found():
    suite = suites.read(BENCHMARKS / "afhq64.toml")
    rows, entry = {row.label: row for row in suite.rows}, suite.expectations[0]
    run, samples = asked(rows[entry.label], entry.dataset)
    made = Section(entry.dataset, "", samples, groups=[Group("EDM", run, (0,))])
    made.cells["EDM", "fid", 79] = Cell({0: {0: entry.value + 0.1}})
    assert [match.difference for match in published.matches(made, ROWS)] == [pytest.approx(0.1)]


def written(table):
    return [[text.words for text in row] for row in table.rows]


def test_the_reproduction_table_has_published_ours_and_the_difference():
    run = fitting(FULL)
    made = section(FULL, {"mine": run})
    made.cells["mine", "fid", 1] = Cell({0: {0: 1.6}, 1: {0: 1.8}}, "min")
    table = reproduction.table(made, ROWS)
    assert table.columns == [
        *("method", "published as", "metric", "NFE", "published", "ours", "ours - published"),
        "paper",
    ]
    first = ["mine", "LMM, with labels", "fid", "1", "1.57", "1.700 ± 0.14", "+0.13"]
    assert written(table)[0] == [*first, "arXiv:2412.06403, Table 2"]
    assert written(table)[1][4:7] == ["1.575 ± 0.016", "1.700 ± 0.14", "+0.125"]
    assert [text.value for text in table.rows[0][4:7]] == pytest.approx([1.57, 1.7, 0.13])
    assert not any(text.best for row in table.rows for text in row)
    assert table.tags[0] == {"dataset": "cifar10", "method": "lmm", "nfe": "1"}
    assert any("below 0 is better for fid" in note for note in table.notes)


def test_an_adaptive_solver_is_shown_with_both_counts():
    row = find("OT-CFM", dataset="cifar10")
    made = section(row, {"mine": fitting(row)}, 6.0)
    made.cells["mine", "nfe", ADAPTIVE] = Cell({0: {0: 139.62}})
    table = reproduction.table(made, [row])
    assert written(table)[0][3:7] == ["auto (published 142, ours 139.6)", "6.35", "6.000", "-0.35"]
    row = find("LFM", dataset="flowers128", table="reviews A")
    table = reproduction.table(section(row, {"mine": fitting(row)}, math.nan), [row])
    assert written(table)[0][2:7] == ["fid5k", "auto (published not said)", "59.7", "nan", "nan"]


def test_there_is_no_table_where_nothing_corresponds():
    other = section(FULL, {"a": fitting(FULL)}, n=5000)
    assert reproduction.table(other, ROWS) is None


def test_what_differs_stands_below_the_table():
    run = dataclasses.replace(fitting(FULL), changed={})
    table = reproduction.table(section(FULL, {"mine": run}), [FULL])
    assert table.notes[2:] == ["every row: not by --preset cifar10"]
    table = reproduction.table(section(FULL, {"a": run, "b": fitting(FULL)}), [FULL])
    assert table.notes[2:] == ["a: not by --preset cifar10"]
    row = find("CD", dataset="cifar10")
    table = reproduction.table(section(row, {"mine": fitting(row)}), [row])
    assert table.notes[2:] == ["CD: with NCSN++"]


@pytest.mark.parametrize(
    "value, text", [(0.0, "+0"), (-0.05, "-0.05"), (1234.5, "+1234"), (-math.inf, "-inf")]
)
def test_differences_have_their_sign(value, text):
    assert reproduction.signed(value) == text


def test_published_rows_have_a_column_a_metric_and_others_only_where_they_vary():
    one = published.select(ROWS, dataset="cifar10", paper=LMM, nfes=(1, 2), metrics=("fid", "is"))
    one = [row for row in one if row.table == "2"]
    table = reproduction.published_table(one, "a")
    assert table.columns == ["method", "variant", "labels", "NFE", "fid", "is", "source"]
    line = ["LMM", "", "no", "1", "1.90", "10.16", "Matityahu & Fattal 2024"]
    assert line in written(table)
    assert len(table.rows) == len({(r.method, r.variant, r.conditional, r.nfe) for r in one})
    table = reproduction.published_table(ROWS, "b")
    assert table.columns[2] == "data" and table.columns[-1] == "paper"
    assert not any(text.best for row in table.rows for text in row)
    assert table.notes[0] == reproduction.ABOUT
    shown = [text.value for row in table.rows for text in row[5:-2] if text.words]
    assert sorted(shown) == sorted(row.value for row in ROWS)


@pytest.mark.parametrize(
    "words, expected",
    [
        ({"dataset": "afhq64"}, 15),
        ({"paper": "2410.02548"}, 29),
        ({"paper": "ARXIV:2410.02548"}, 29),
        ({"method": "LMM", "nfes": (4,)}, 3),
        ({"method": "rect-flow", "dataset": "cifar10"}, 12),
        ({"method": "sid"}, 10),
        ({"metrics": ("is",)}, 31),
        ({"metrics": ("fid5k",)}, 19),
        ({"dataset": "cifar10", "nfes": (ADAPTIVE,)}, 13),
    ],
    ids=str,
)
def test_rows_are_chosen_by_every_word(words, expected):
    assert len(published.select(ROWS, **words)) == expected


@pytest.mark.parametrize(
    "words, message",
    [
        ({"dataset": "cifar"}, "no published data set 'cifar': did you mean cifar10?"),
        ({"paper": "2412.0640"}, "did you mean arXiv:2412.06403?"),
        ({"method": "lmmm"}, "did you mean lmm?"),
        ({"metrics": ("fidd",)}, "did you mean fid?"),
    ],
    ids=str,
)
def test_a_wrong_word_gives_one_line_with_what_was_meant(words, message):
    with pytest.raises(FlowbenchError) as caught:
        published.select(ROWS, **words)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_prints_the_tables_of_the_papers_in_order(flowbench):
    code, output = flowbench("published", "--method", "lmm")
    assert code == 0, output
    titles = [line for line in output.splitlines() if line.startswith("Published: ")]
    assert titles == [f"Published: {LMM}, Table {number}" for number in (2, 4, 5, 7, 8, 9)]
    assert output.count("not measured here") == len(titles)
    for form, start in (("md", "**Published: "), ("latex", "% Tables")):
        code, output = flowbench("published", "--method", "lmm", "--format", form)
        assert code == 0 and output.startswith(start) and "1.575" in output


def test_csv_and_json_hold_what_the_file_holds(flowbench):
    code, output = flowbench("published", "--format", "csv")
    assert code == 0
    file = Path(published.__file__).with_name("published.csv").read_text(encoding="utf-8")
    found, real = (list(csv.DictReader(io.StringIO(text))) for text in (output, file))
    for mine, theirs in zip(found, real, strict=True):
        for name in ("value", "sd"):  # a number without the zeros at its end is the same
            assert float(mine.pop(name) or "nan") == pytest.approx(
                float(theirs.pop(name) or "nan"), abs=0, nan_ok=True
            )
        assert mine == theirs
    code, output = flowbench("published", "--nfe", "511", "--format", "json")
    assert code == 0
    (entry,) = json.loads(output)["published"]
    assert (entry["value"], entry["sd"], entry["nfe"], entry["conditional"]) == (
        1.36,
        None,
        511,
        True,
    )


def test_the_command_refuses_what_it_does_not_know(flowbench):
    code, output = flowbench("published", "--dataset", "cifar100")
    assert code == 2 and "did you mean cifar10?" in output and "Traceback" not in output
    code, output = flowbench("published", "--method", "edm", "--nfe", "3")
    assert code == 2 and "no published number is all of that" in output
    assert flowbench("published", "--nfe", "x")[0] == 2


def test_neither_torch_nor_a_method_is_imported_for_it():
    code = (
        "import sys\n"
        "from flowbench.comparison import published\n"
        "from flowbench.report import latex, reproduction\n"
        "latex.latex(reproduction.published_tables(published.rows()))\n"
        "assert not {'torch', 'altair', 'pandas', 'flowbench_plugins'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
