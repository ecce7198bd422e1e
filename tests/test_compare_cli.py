"""What compare and report make of every kind of database, and the numbers of their view."""

import json
import math
import re
import unicodedata

import numpy as np
import pytest
from stored_rows import DATA, floor, let_in, put, score, spec, timed

from flowbench.comparison.build import build
from flowbench.records import Budget, Diverged, FlowbenchError, Measured, RunFailed, Score, Tried
from flowbench.report import layout
from flowbench.store import Store

FORMS = ("table", "md", "latex", "csv", "json", "html")
ESCAPE = "\x1b[31mred\x1b]0;title\x07\r\n| **b** | \"q\" 'p' <script>alert(1)</script> \u202eabc"


def row(run, value, stream=0, origin="", environment="", **more):
    return Measured(run.name, run, score(value, seed=stream, **more), 1, 1, environment, origin)


def only(rows, tried=()):
    (section,) = build(rows, tried).sections
    return section


# The view.


@pytest.mark.parametrize("seed", range(8))
def test_means_and_deviations_are_numpys(seed):
    """Training seeds and noise streams apart, also where some streams are missing."""
    draw = np.random.default_rng(seed)
    values = {
        run: {
            stream: float(v)
            for stream, v in enumerate(draw.normal(1e3, 1, size=draw.integers(1, 5)))
        }
        for run in range(int(draw.integers(1, 6)))
    }
    rows = [
        row(spec(seed=s), v, stream) for s, some in values.items() for stream, v in some.items()
    ]
    draw.shuffle(rows)
    cell = only(rows).cells["cfm", "fd", 1]
    means = [np.mean(list(some.values())) for some in values.values()]
    assert cell.mean == pytest.approx(np.mean(means), rel=1e-12)
    assert (cell.seeds, cell.streams) == (len(values), min(map(len, values.values())))
    if len(means) > 1:
        assert cell.sd == pytest.approx(np.std(means, ddof=1), rel=1e-9)
    else:
        assert cell.sd is None
    several = [list(some.values()) for some in values.values() if len(some) > 1]
    if several:
        free = [len(some) - 1 for some in several]
        pooled = np.average([np.var(some, ddof=1) for some in several], weights=free)
        assert cell.sampling_sd == pytest.approx(math.sqrt(pooled), rel=1e-9)
    else:
        assert cell.sampling_sd is None


def test_more_noise_of_one_training_does_not_weigh_more():
    """The unit is the training seed: 1 and 3 have the mean 2, however often 3 was sampled."""
    rows = [row(spec(seed=0), 1.0), *(row(spec(seed=1), 3.0, stream) for stream in range(9))]
    assert only(rows).cells["cfm", "fd", 1].mean == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_shown_without_a_deviation(bad):
    rows = [row(spec(seed=0), 1.0), row(spec(seed=1), bad), row(spec(seed=1), 2.0, 1)]
    cell = only(rows).cells["cfm", "fd", 1]
    assert not math.isfinite(cell.mean) and cell.sd is None and cell.sampling_sd is None
    assert layout.number(cell) == str(bad)


def test_huge_values_neither_raise_nor_win():
    rows = [row(spec("edm", seed), 1e308) for seed in range(3)]
    rows += [row(spec("cfm", seed), 1e308 * (-1) ** seed) for seed in range(3)]
    rows += [row(spec("lmm", seed), 5.0) for seed in range(3)]
    section = only(rows)
    assert layout.number(section.cells["edm", "fd", 1]).startswith("inf")
    cell = section.cells["cfm", "fd", 1]
    assert cell.mean == pytest.approx(1e308 / 3) and cell.sd == math.inf
    assert layout.number(cell) == "3.33e+307 ± inf"
    assert section.cells["lmm", "fd", 1].best and not section.cells["edm", "fd", 1].best


def test_small_differences_of_large_numbers_are_kept():
    """A mean of squares minus the square of the mean would lose all digits."""
    values = [1e9 + d for d in (0.0, 0.25, 0.5)]
    cell = only([row(spec(seed=i), v) for i, v in enumerate(values)]).cells["cfm", "fd", 1]
    assert cell.sd == pytest.approx(0.25, rel=1e-9)


@pytest.mark.parametrize(
    "one, other, labels",
    [
        ({"options": {"k": 1}}, {"options": {"k": 2}}, {"cfm [k=1]", "cfm [k=2]"}),
        (
            {"setting": {"augment": "flip"}},
            {},
            {"cfm [augment=flip]", "cfm [augment=none]"},
        ),
        (
            {"setting": {"network": {"name": "ddpmpp", "channels": 8}}},
            {"setting": {"network": {"name": "ddpmpp", "channels": 16}}},
            {"cfm [channels=8]", "cfm [channels=16]"},
        ),
        (
            {"changed": {"k": 1}, "options": {"k": 1}},
            {"changed": {"k": 2}, "options": {"k": 2}},
            {"cfm k=1", "cfm k=2"},
        ),
        ({"code": "abcdefgh"}, {"code": "hgfedcba"}, {"cfm [code abcdef]", "cfm [code hgfedc]"}),
        ({"teacher": "a" * 64}, {"teacher": "b" * 64}, None),
        ({"options": {"k": 1}}, {"options": {"k": "1"}}, None),
        (
            {"changed": {"a": "1 b=2"}, "options": {"a": "1 b=2", "b": 0}},
            {"changed": {"a": "1", "b": "2"}, "options": {"a": "1", "b": "2"}},
            {"cfm a=1 b=2 [a=1 b=2 b=0]", "cfm a=1 b=2 [a=1 b=2]"},
        ),
    ],
)
def test_two_runs_of_one_seed_are_never_one_row(one, other, labels):
    """The bad case would show one of the two numbers, or the mean of two methods."""
    section = only([row(spec(**one), 1.0), row(spec(**other), 3.0)])
    found = {group.label for group in section.groups}
    assert len(found) == 2 and (labels is None or found == labels)
    assert {cell.mean for cell in section.cells.values()} == {1.0, 3.0}


def test_seeds_of_other_options_are_not_averaged_though_nobody_typed_them():
    """A default that a later version changed."""
    rows = [row(spec(seed=0, options={"k": 1}), 1.0), row(spec(seed=1, options={"k": 2}), 3.0)]
    assert {g.label: g.seeds for g in only(rows).groups} == {"cfm [k=1]": (0,), "cfm [k=2]": (1,)}


def test_a_method_is_not_taken_for_another_with_an_option():
    rows = [row(spec("cfm k=1"), 1.0), row(spec("cfm", changed={"k": 1}), 3.0)]
    assert {g.label for g in only(rows).groups} == {
        "cfm k=1 [method=cfm k=1]",
        "cfm k=1 [method=cfm]",
    }


def test_runs_that_are_alike_keep_their_plain_name():
    rows = [row(spec(seed=seed, version=str(seed)), 1.0) for seed in range(3)]
    assert [g.label for g in only(rows).groups] == ["cfm"]


def test_the_same_run_with_two_numbers_of_samples_is_in_two_tables():
    rows = [
        row(spec(), 1.0, n=100),
        row(spec(), 2.0, n=50),
        row(spec(), 0.5, name="S", nfe=-1, n=0),
    ]
    found = build(rows).sections
    assert [section.n for section in found] == [50, 100]
    assert [section.cells["cfm", "fd", 1].mean for section in found] == [2.0, 1.0]
    assert all(section.cells["cfm", "S", -1].mean == 0.5 for section in found)


def test_a_floor_is_the_one_with_the_nearest_n():
    floors = [row(spec(), v, subject="floor", n=n, nfe=-1) for v, n in ((1, 90), (2, 50), (3, 900))]
    section = only([row(spec(), 5.0), *floors])
    assert (section.floors["fd"].mean, section.floor_n) == (1, 90)


def test_merged_results_share_a_row_that_says_so():
    rows = [row(spec(seed=0), 1.0), row(spec(seed=1), 3.0, origin="abc", environment="e")]
    (group,) = only(rows).groups
    assert (
        group.origins == ("", "abc") and group.seeds == (0, 1) and group.environments == ("", "e")
    )


def test_a_view_does_not_depend_on_the_order_of_its_scores():
    rows = [
        row(spec(method, seed), seed + nfe + len(method), stream, nfe=nfe, name=name)
        for method in ("cfm", "edm", "lmm")
        for seed in range(3)
        for stream in range(2)
        for nfe in (1, 2)
        for name in ("fd", "w2")
    ]
    rows += [row(spec("ctm"), 3.0, protocol={"ema": False})]
    first = build(rows).sections
    np.random.default_rng(0).shuffle(rows)
    again = build(rows).sections
    assert [s.groups for s in first] == [s.groups for s in again]
    assert [s.cells for s in first] == [s.cells for s in again]


def test_least_is_that_over_noise_of_metrics_that_are_published_so():
    rows = [
        row(spec(seed=s), 10 * s + i, i, name=n)
        for s in (1, 2)
        for i in (0, 1)
        for n in ("fid", "fd")
    ]
    section = only(rows)
    assert section.cells["cfm", "fid100 least", 1].means == {1: 10, 2: 20}
    assert ("cfm", "fd least", 1) not in section.cells


# Databases of every kind.


def shown(flowbench, *words, code=0):
    found, output = flowbench(*words)
    assert found == code, output
    assert "Traceback" not in output
    return output


def one_line(flowbench, *words):
    output = shown(flowbench, *words, code=2)
    assert output.startswith("Error: ") and output.count("\n") == 1, output
    return output


@pytest.mark.parametrize("command", ["compare", "report"])
def test_where_nothing_was_measured_the_message_says_what_to_type(flowbench, database, command):
    assert "run `flowbench run ...` first" in one_line(flowbench, command)
    Store(f"sqlite:///{database}").close()
    assert "measure some with: flowbench run METHOD" in one_line(flowbench, command)
    put(database, spec())
    assert "measure some with: flowbench run METHOD" in one_line(flowbench, command)
    put(database, spec("edm"), floor(1.0))
    put(database, spec("lmm"), score(1.0, "S", nfe=-1, n=0), timed(3.0))
    assert "measure some with: flowbench run METHOD" in one_line(flowbench, command)


@pytest.mark.parametrize("content", [b"", b"no database at all\n" * 99, b"SQLite format 3\0"])
def test_a_file_that_is_no_database_is_one_line(flowbench, database, content):
    database.write_bytes(content)
    for command in ("compare", "report"):
        one_line(flowbench, command)


def test_only_numbers_without_a_goal(flowbench, database):
    put(database, spec(), score(1.0, "clipped", goal=""), score(2.0, "mine", goal=""))
    assert "2.000" in shown(flowbench, "report")
    assert "2.000" in shown(flowbench, "compare", "--metric", "mine")
    shown(flowbench, "compare", "--baseline", "cfm")


def test_metrics_of_which_none_is_a_headline(flowbench, database):
    for method in ("cfm", "edm"):
        put(database, spec(method), score(2.0, "mine"))
    output = shown(flowbench, "compare")
    assert "2.000" in output, "a table without a column tells nobody anything"


def test_every_format_of_a_run_without_a_budget_label_or_environment(flowbench, database):
    put(database, spec(data="", budget=Budget(1, 1)), score(1.0), machine={})
    for form in FORMS:
        shown(flowbench, "report", "--format", form)


# Attempts that did not end well.


def ended(number, outcome, run=None, generation=1):
    run = run or spec()
    return Tried(number, run.name, run, number, generation, outcome, "why", "", "", "")


@pytest.mark.parametrize(
    "outcomes, last",
    [
        (["failed"], "failed"),
        (["ok", "failed"], "failed"),
        (["failed", "ok"], None),
        (["failed", "diverged"], "diverged"),
        (["failed", "running"], None),
        (["interrupted"], "interrupted"),
        (["lost"], "lost"),
        (["ok"], None),
        ([], None),
    ],
)
def test_the_last_attempt_of_a_run_says_how_it_ended(outcomes, last):
    attempts = [ended(i, outcome) for i, outcome in enumerate(outcomes, 1)]
    failed = build([row(spec("edm"), 1.0)], attempts).failed
    assert [attempt.outcome for attempt in failed] == ([last] if last else [])


def test_failures_are_shown_with_their_reason(flowbench, database):
    put(database, spec("cfm"), score(1.0))
    put(database, spec("edm"), error=RunFailed("the disk is full"))
    put(database, spec("lmm", seed=3), score(math.nan), error=Diverged("loss is nan at step 7"))
    put(database, spec("ctm"), error=ZeroDivisionError("division"))
    for words in (["compare"], ["compare", "--format", "md"], ["compare", "--format", "latex"]):
        output = shown(flowbench, *words)
        assert "failed: the disk is full" in output
        assert "diverged: loss is nan at step 7" in output
        assert "failed: ZeroDivisionError: division" in output
    assert "lmm, seed 3 (digits-lmm-s3-" in shown(flowbench, "compare")
    for form in FORMS:
        output = shown(flowbench, "report", "--format", form)
        assert all(w in output for w in ("the disk is full", "loss is nan at step 7", "diverged"))


def test_a_data_set_of_which_there_are_only_failures(flowbench, database):
    put(database, spec("edm", dataset="moons"), error=RunFailed("the disk is full"))
    for _ in range(2):
        for form in FORMS:
            assert "the disk is full" in shown(flowbench, "report", "--format", form), form
        output = shown(flowbench, "compare")
        assert "the disk is full" in output and "moons" in output
        put(database, spec("cfm"), score(1.0))  # and again beside one that has numbers


def test_a_later_success_hides_the_failure(flowbench, database):
    put(database, spec(), error=RunFailed("the disk is full"))
    assert "the disk is full" in shown(flowbench, "compare")
    put(database, spec(), score(1.0))
    for words in (["compare"], *(["report", "--format", form] for form in FORMS)):
        assert "the disk is full" not in shown(flowbench, *words)


def test_a_failure_after_a_success_is_shown_beside_its_numbers(flowbench, database):
    put(database, spec(), score(1.0))
    put(database, spec(), error=RunFailed("the disk is full"))
    output = shown(flowbench, "compare")
    assert "1.000" in output and "attempt 2: failed: the disk is full" in output


def test_a_failure_of_another_method_or_data_set_stays_where_it_is(flowbench, database):
    put(database, spec("cfm"), score(1.0))
    put(database, spec("cfm", dataset="moons", data="m"), score(1.0))
    put(database, spec("edm", dataset="moons"), error=RunFailed("the disk is full"))
    assert "the disk is full" not in shown(flowbench, "compare", "--dataset", "digits")
    assert "the disk is full" not in shown(flowbench, "compare", "cfm")
    output = shown(flowbench, "compare", "--dataset", "moons")
    assert output.count("the disk is full") == 1


# Words of strangers.


@pytest.fixture
def hostile(database, monkeypatch):
    """A database whose every word wants to be more than a word."""
    let_in(monkeypatch)
    facts = {"protocol": {"weights": ESCAPE, "extractor": {"network": ESCAPE}, "mine": ESCAPE}}
    for seed in range(3):
        given = {"changed": {"note": ESCAPE}, "options": {"note": ESCAPE, "guidance": ESCAPE}}
        run = spec(ESCAPE, seed, dataset=f"d{ESCAPE}", data=f"\x1b{DATA}", **given)
        put(database, run, score(1.0, **facts), floor(0.5, **facts), timed(2.0, device=ESCAPE))
        put(database, spec("edm", seed, dataset=f"d{ESCAPE}"), score(2.0, f"n{ESCAPE}"))
        put(database, spec("lmm", seed, dataset="moons", data="m"), error=FlowbenchError(ESCAPE))
    put(database, spec("lmm", dataset="moons", data="m", seed=9), score(1.0))
    return database


def controls(text):
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co") and c != "\n"}


@pytest.mark.parametrize("form", FORMS)
def test_no_words_of_a_stranger_reach_a_terminal_as_commands(flowbench, hostile, form):
    output = shown(flowbench, "report", "--format", form)
    assert "red" in output
    allowed = {"\u200b"} if form == "html" else set()
    assert controls(output) <= allowed
    if form == "html":
        assert "<script>alert" not in output
    if form == "md":
        assert not re.search(r"(?<!\\)<script", output)
        rows = [line for line in output.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}


def test_comparisons_of_strangers_are_clean_as_well(flowbench, hostile):
    for words in (
        ["--allow-mixed"],
        ["--allow-mixed", "--format", "md"],
        ["--allow-mixed", "--format", "latex"],
        ["--allow-mixed", "--metric", "all", "--dataset", "moons"],
    ):
        assert not controls(shown(flowbench, "compare", *words))


def test_messages_are_one_clean_line(flowbench, hostile):
    for words in (["--baseline", "nobody"], ["--sort", "nothing"], ["--metric", "nothing"]):
        line = one_line(flowbench, "compare", "--allow-mixed", *words)
        assert not controls(line)
    put(hostile, spec(ESCAPE, dataset="moons", data="m"), score(1.0, n=50))
    found, output = flowbench("compare", "--dataset", "moons")
    assert found == 5 and output.count("\n") == 1 and not controls(output), output


def test_a_terminal_gets_no_commands_but_those_of_the_table(hostile):
    import io

    from rich.console import Console

    from flowbench.comparison.opening import opened
    from flowbench.comparison.selection import Filter
    from flowbench.report import sections, terminal

    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None)
    view = opened(str(hostile), Filter())[1]
    terminal.show([sections.ledger(section) for section in view.sections], console)
    assert "red" in out.getvalue() and not controls(out.getvalue())


def test_wide_letters_cut_no_number(database):
    import io

    from rich.console import Console

    from flowbench.report import terminal

    words = [layout.Text("方法" * 9), layout.Text("0.123456"), layout.Text("0.654321")]
    table = layout.Table("x", ["method", "fd", "w2"], [words])
    for width in (30, 60, 200):
        out = io.StringIO()
        console = Console(file=out, width=width, force_terminal=True, color_system=None)
        terminal.show([table], console)
        assert "0.123456" in out.getvalue() and "0.654321" in out.getvalue()


def test_csv_and_json_keep_the_words_of_a_label(flowbench, database):
    label = 'a "quoted" label, with commas; and = signs'
    put(database, spec("cfm", changed={"note": label}), score(1.0))
    (record,) = json.loads(shown(flowbench, "report", "--format", "json"))["scores"]
    assert record["label"] == f"cfm note={label}"
    assert record["label"].replace('"', '""') in shown(flowbench, "report", "--format", "csv")


def test_names_and_metrics_of_plugins_that_are_not_here(flowbench, database):
    put(database, spec("gone-method", dataset="gone-data"), score(1.0, "gone-metric"))
    for form in FORMS:
        assert "gone-method" in shown(flowbench, "report", "--format", form)
    assert "gone-metric @ 1" in shown(flowbench, "compare", "--metric", "all")
    assert "gone-metric @ 1" in shown(
        flowbench, "compare", "gone-method", "--metric", "gone-metric"
    )


def test_a_goal_that_changed_is_that_of_today():
    run = spec()
    rows = [Measured(run.name, run, Score("fd", 1.0, 1, n=5, goal="max"), 1, 1, "")]
    (section,) = build(rows, goals={"fd": "min"}).sections
    assert section.cells["cfm", "fd", 1].goal == "min"
