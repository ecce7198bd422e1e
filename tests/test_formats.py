"""The same numbers in every format, for the results that come along and for awkward ones."""

import csv
import io
import json
import math
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from report_readers import READERS, Page, numbers, unescaped, untexed
from stored_rows import floor, put, score, spec, timed

from flowbench.comparison.opening import opened
from flowbench.comparison.selection import Filter
from flowbench.records import RUN_LEVEL, Budget, RunFailed
from flowbench.report.layout import number
from flowbench.report.sections import COSTS, INTERNAL, title
from flowbench.report.text import printable

SHIPPED = Path(__file__).parents[1] / "results.db"
# What may follow a number: not ranked, fewer seeds or noise streams than its row has.
AFTER = re.compile(r"( \*)?( \(\d+ of \d+ (seeds|noise streams)\))?")
HOSTILE = "x|y `q` *b* _u_ <i>&amp; $m$ \\ \" ' 100% {c} ~t~ #"


@pytest.fixture
def synthetic(database):
    """Ragged seeds and streams, other protocols, NaN, adaptive NFE, hostile words."""
    values = np.random.default_rng(0).lognormal(size=(60,)).tolist()
    for seed in range(3):
        numbers = [
            score(values.pop(), name, nfe, seed=stream, goal=goal)
            for stream in range(1 + seed % 2 + 1)
            for nfe in (1, 4, 0)
            for name, goal in (("fd", "min"), ("is", "max"))
        ]
        facts = [score(7.25, "nfe", 0, n=100, goal=""), score(1e-7 * (seed + 1), "S", -1, n=0)]
        put(database, spec("cfm", seed), *numbers, *facts, timed(0.125 + seed), floor(0.5))
    hostile = {"changed": {"note": HOSTILE}, "options": {"note": HOSTILE}}
    put(database, spec("edm", **hostile), score(1234567.0), score(1e-9, nfe=4), timed(2.0, batch=3))
    put(database, spec("lmm"), score(math.nan), score(math.inf, nfe=4), score(0.0, nfe=0))
    put(database, spec("ctm"), score(3.0, protocol={"rows": 5}), score(2.0, "S", -1, n=0))
    put(database, spec("lfm", budget=Budget(9, 9)), score(4.0), score(1.0, "train-images", -1, n=0))
    put(database, spec("cfm", dataset="moons", data="m"), score(5.0, n=50), score(6.0, n=60))
    for method, value in (("cfm", 2.5), ("edm", 1.25)):  # of which one is best
        put(database, spec(method, dataset="rose", data="r"), score(value), score(9 - value, nfe=4))
    put(database, spec("edm", 7), error=RunFailed(f"the loss is {HOSTILE}"))
    return database


def sections(database):
    return opened(str(database), Filter())[1].sections


def shown(database):
    """Every number that formats for people show: (table, label, NFE, metric) -> its Cell.

    All but internal facts, in the rows for which a quality is known.
    """
    found = {}
    for section in sections(database):
        quality = {
            (label, nfe)
            for label, name, nfe in section.cells
            if name not in (*COSTS, *INTERNAL) and nfe != RUN_LEVEL
        }
        for (label, name, nfe), cell in section.cells.items():
            if name not in INTERNAL and (nfe != RUN_LEVEL or name in COSTS):
                for level in section.nfes if nfe == RUN_LEVEL else [nfe]:
                    if (label, level) in quality:
                        found[title(section), label, level, name] = cell
    return found


def difference(expected, found):
    """What a format says otherwise, or lacks: the first of it, None where all is the same."""
    for key, cell in expected.items():
        if key not in found:
            return f"{key} is missing"
        words = number(cell)
        if not found[key].startswith(words) or not AFTER.fullmatch(found[key][len(words) :]):
            return f"{key}: {found[key]} instead of {words}"
    return None


def records_differ(expected, records):
    """The same for records, whose means have to be equal to the last digit."""
    found = {(r["where"], r["label"], r["nfe"], r["metric"]): r for r in records}
    for key, cell in expected.items():
        record = found.get(key)
        if record is None:
            return f"{key} is missing"
        for name, value in (
            ("mean", cell.mean),
            ("sd", cell.sd),
            ("sampling_sd", cell.sampling_sd),
        ):
            told = None if record[name] in (None, "") else float(record[name])
            if told != value and not (math.isnan(told or 0) and math.isnan(value or 0)):
                return f"{name} of {key}: {told} instead of {value}"
    return None


def report(flowbench, form, folder):
    code, output = flowbench("report", "--format", form, "--runs", str(folder))
    assert code == 0, output
    return output


def check_text(text, form, expected):
    found = numbers(form, text)
    assert len(expected) > 10
    assert difference(expected, found) is None
    names = {name for *_, name in expected}
    said = {k for k, words in found.items() if k[-1] in names and re.match(r"-?\d|nan|inf", words)}
    assert said == set(expected), "nothing else is shown as a number"


@pytest.fixture
def shipped(database):
    """A copy of the results that come along."""
    shutil.copy(SHIPPED, database)
    return database


@pytest.mark.parametrize("form", ["table", "md", "latex"])
def test_formats_for_people_show_the_numbers_of_the_view(flowbench, synthetic, tmp_path, form):
    check_text(report(flowbench, form, tmp_path / "runs"), form, shown(synthetic))


@pytest.mark.parametrize("form", ["table", "md", "latex"])
def test_also_those_that_come_along(flowbench, shipped, tmp_path, form):
    check_text(report(flowbench, form, tmp_path / "runs"), form, shown(shipped))


def test_the_page_shows_the_same(flowbench, synthetic, tmp_path):
    check_page(report(flowbench, "html", tmp_path / "runs"), shown(synthetic))


@pytest.mark.slow
def test_the_page_of_those_that_come_along(flowbench, shipped, tmp_path):
    check_page(report(flowbench, "html", tmp_path / "runs"), shown(shipped))


def check_page(text, expected):
    """What the page shows, and that it sorts by the mean to the last digit."""
    check_text(text, "html", expected)
    page, checked = Page(text), 0
    for (caption,), (head, *rows) in zip(page.captions, page.rows, strict=True):
        columns = [words.strip() for words, _ in head]
        for row in rows if "NFE" in columns and "published" not in columns else ():
            nfe = row[columns.index("NFE")][0]
            for (_, value), name in zip(row, columns, strict=True):
                level = 0 if nfe.startswith("auto") else int(nfe or -9)
                cell = expected.get((caption, row[0][0], level, name))
                if cell is not None and not math.isnan(cell.mean):
                    assert float(value.replace("Infinity", "inf")) == cell.mean
                    checked += 1
    assert checked > 10


def json_records(text, titles):
    return [located(r, titles) for r in json.loads(text)["scores"] if r["subject"] == "model"]


def csv_records(text, titles):
    rows = csv.DictReader(io.StringIO(text))
    return [located(r, titles) for r in rows if r["subject"] == "model"]


def located(record, titles):
    place = tuple(str(record[name]) for name in ("dataset", "data", "n", "budget", "conditioning"))
    words = str(record["nfe"])
    nfe = {"run": RUN_LEVEL, "auto": 0}.get(words)
    found = titles[*place, str(record["part"])]
    return record | {"where": found, "nfe": int(words) if nfe is None else nfe}


@pytest.mark.parametrize("which", ["synthetic", "shipped"])
def test_formats_for_programs_have_every_number_to_the_last_digit(
    flowbench, request, tmp_path, which
):
    database = request.getfixturevalue(which)
    every = sections(database)
    titles = {
        (s.dataset, s.data, str(s.n), s.budget, s.conditioning, str(s.part)): title(s)
        for s in every
    }
    expected = {
        (title(s), label, nfe, name): cell
        for s in every
        for (label, name, nfe), cell in s.cells.items()
    }
    for form, read in (("json", json_records), ("csv", csv_records)):
        records = read(report(flowbench, form, tmp_path), titles)
        assert len(records) == len(expected)
        assert records_differ(expected, records) is None
        altered = [dict(record) for record in records]
        place = next(i for i, r in enumerate(altered) if math.isfinite(float(r["mean"])))
        altered[place]["mean"] = float(np.nextafter(float(altered[place]["mean"]), np.inf))
        assert records_differ(expected, altered), "a change of the last digit is seen"
        assert records_differ(expected, records[1:]).endswith("is missing")


@pytest.mark.parametrize("form", READERS)
def test_an_altered_number_is_caught(flowbench, synthetic, tmp_path, form):
    """The check of this file would notice another digit, another row, and a missing number."""
    expected = shown(synthetic)
    text = report(flowbench, form, tmp_path / "runs")
    found = numbers(form, text)
    assert difference(expected, found) is None
    key = next(k for k, cell in expected.items() if cell.sd and "e" not in number(cell))
    digits = re.match(r"[\d.]+", found[key])[0]
    other = digits[:-1] + str((int(digits[-1]) + 1) % 10)
    assert difference(expected, found | {key: found[key].replace(digits, other)})
    assert difference(expected, found | {key: found[key] + " or so"})
    assert difference(expected, {k: w for k, w in found.items() if k != key})
    assert difference(expected, numbers(form, text.replace(digits, other)))


@pytest.mark.parametrize("which", ["synthetic", "shipped"])
def test_means_are_those_of_the_stored_numbers(flowbench, request, which):
    """From the database by SQL, and by numpy."""
    database = request.getfixturevalue(which)
    query = """
        select runs.name, runs.seed, scores.name, scores.nfe, scores.seed, scores.value, kind
        from scores join attempts on attempts.id = attempt_id join runs on runs.id = run_id
        where subject = 'model' and scores.n in (0, ?)
    """
    checked = 0
    for section in sections(database):
        with sqlite3.connect(database) as connection:
            stored = connection.execute(query, (section.n,)).fetchall()
        connection.close()
        for group in section.groups:
            names = set(group.runs.values())
            values = {}
            for run, seed, name, nfe, _, value, kind in stored:
                if run in names:
                    real = value if kind == "finite" else float(kind)
                    values.setdefault((name, nfe), {}).setdefault(seed, []).append(real)
            for (label, name, nfe), cell in section.cells.items():
                if label == group.label:
                    means = [np.mean(some) for some in values[name, nfe].values()]
                    np.testing.assert_allclose(cell.mean, np.mean(means), rtol=1e-12)
                    assert cell.seeds == len(means)
                    if cell.sd is not None:
                        expected = np.std(means, ddof=1)
                        np.testing.assert_allclose(cell.sd, expected, rtol=1e-9, atol=1e-12)
                    checked += 1
    assert checked > 15


def test_identical_input_gives_identical_bytes(flowbench, synthetic, tmp_path):
    for form in ("table", "md", "latex", "csv", "json", "html"):
        assert report(flowbench, form, tmp_path) == report(flowbench, form, tmp_path), form


def test_what_is_printed_is_what_is_written(flowbench, synthetic, tmp_path):
    endings = {"md": ".md", "latex": ".tex", "csv": ".csv", "json": ".json", "html": ".html"}
    for form, ending in endings.items():
        path = tmp_path / f"deep/out{ending}"
        code, output = flowbench("report", "-o", str(path), "--runs", str(tmp_path / "runs"))
        assert (code, output) == (0, f"wrote {path}\n")
        assert path.read_text(encoding="utf-8") == report(flowbench, form, tmp_path / "runs")
    path = tmp_path / "out.txt"
    assert flowbench("report", "-o", str(path))[0] == 0
    assert path.read_text(encoding="utf-8") == flowbench("report")[1]


def test_compare_prints_the_same_words_as_the_report(flowbench, shipped):
    for form in ("table", "md", "latex"):
        for section in sections(shipped):
            words = ["--dataset", section.dataset, "--metric", "sw2", "--format", form]
            output = flowbench("compare", *words)[1].replace(r"$\pm$", "±")
            for (_, name, _), cell in section.cells.items():
                if name == "sw2":
                    assert number(cell) in output


def test_the_best_is_the_same_everywhere(flowbench, synthetic, tmp_path):
    every = sections(synthetic)
    best = sorted(
        number(cell)
        for section in every
        for (_, name, _), cell in section.cells.items()
        if cell.best and name not in INTERNAL
        for _ in (section.nfes if name in section.facts else [0])
    )
    assert best
    bold = {"md": r"\*\*(\d[^*]*)\*\*", "latex": r"\\textbf\{(\d[^}]*)\}"}
    for form, pattern in bold.items():
        text = report(flowbench, form, tmp_path).replace(r"$\pm$", "±")
        found = [re.sub(AFTER.pattern + "$", "", words) for words in re.findall(pattern, text)]
        words = [w for w in found if "samples" not in w]
        assert set(words) == set(best), form
    told = [r for r in json.loads(report(flowbench, "json", tmp_path))["scores"] if r["best"]]
    assert {r["label"] for r in told} == {
        label for s in every for (label, _, _), cell in s.cells.items() if cell.best
    }
    assert report(flowbench, "html", tmp_path).count('<strong title="best') == len(best)


def test_failures_stand_with_their_reason_in_every_format(flowbench, synthetic, tmp_path):
    texts = {f: report(flowbench, f, tmp_path) for f in ("table", "md", "latex", "html", "csv")}
    rows = csv.DictReader(io.StringIO(texts["csv"]))
    lines = {
        "table": texts["table"],
        "md": unescaped(texts["md"]),
        "latex": untexed(texts["latex"]),
        "html": " ".join(
            words for table in Page(texts["html"]).rows for r in table for words, _ in r
        ),
        "csv": " ".join(row["reason"] for row in rows if row["subject"] == "failure"),
        "json": json.loads(report(flowbench, "json", tmp_path))["failures"]["digits"][0],
    }
    for form, line in lines.items():
        assert printable(f"the loss is {HOSTILE}") in line and "failed" in line, form
