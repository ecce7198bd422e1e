"""Formats of reports from plugins: by name and by ending, what they are given, what goes wrong."""

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from stored_rows import let_in, put, score, spec

from flowbench import plugins
from flowbench.cli import cli
from flowbench.records import RunFailed
from flowbench.report.catalogue import reports

TSV = Path(__file__).parent / "third_party/flowbench_tsv.py"
FORM = """
from flowbench import FlowbenchError, ReportFormat, hookimpl

def render(report):
    {body}

@hookimpl
def reports():
    return [ReportFormat({name!r}, "for the test", {endings!r}, render)]
"""


@pytest.fixture
def results(database, monkeypatch):
    """Two methods, of which one has two seeds and a label with what a table may not have."""
    let_in(monkeypatch)
    put(database, spec("cfm"), score(1 / 3), score(2.0, nfe=4))
    put(database, spec("cfm", 1), score(0.1 + 0.2), score(2.5, nfe=4))
    awkward = {"changed": {"note": "a\tb\nc"}, "options": {"note": "a\tb\nc"}}
    put(database, spec("edm", **awkward), score(1e-9))
    put(database, spec("lmm"), error=RunFailed("no room"))
    return database


@pytest.fixture
def form(tmp_path, monkeypatch):
    """Write a plugin with one format, and open its file; returns the file."""

    def write(body, name="odd", endings=(".odd",)):
        path = tmp_path / f"{name.replace(' ', '')}{len(list(tmp_path.glob('*.py')))}.py"
        path.write_text(FORM.format(body=body, name=name, endings=endings))
        before = [str(other) for other in tmp_path.glob("*.py") if other != path]
        monkeypatch.setenv("FLOWBENCH_PLUGINS", ":".join([*before, str(path)]))
        return path

    return write


def test_the_built_in_ones_come_through_the_hook_alone(flowbench, results, monkeypatch, tmp_path):
    assert list(plugins.reports().values()) == reports()
    code, output = flowbench("report", "--format", "mdd")
    assert code == 2 and "not one of 'table', 'md', 'latex', 'csv', 'json', 'html'" in output
    monkeypatch.setenv("FLOWBENCH_DISABLED", "flowbench:reports")
    code, output = flowbench("report", "--format", "md")
    assert code == 2 and "'md' is not one of" in output
    assert flowbench("report", "-o", str(tmp_path / "a.md"))[0] == 2


def read(text):
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_the_example_holds_every_number_to_the_last_digit(flowbench, results, monkeypatch):
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(TSV))
    code, output = flowbench("report", "--format", "tsv")
    assert code == 0, output
    known = json.loads(flowbench("report", "--format", "json")[1])["scores"]
    found = read(output)
    assert len(found) == len(known) == 3
    for row, record in zip(found, known, strict=True):
        assert float(row["mean"]) == record["mean"] and row["metric"] == record["metric"]
        assert row["sd"] == ("" if record["sd"] is None else str(record["sd"]))
        assert row["label"].split() == record["label"].split()
    assert {row["sd"] for row in found} >= {""} and len({row["sd"] for row in found}) > 1


def test_the_ending_of_a_file_names_it_too(flowbench, results, monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(TSV))
    printed = flowbench("report", "--format", "tsv")[1]
    for name in ("new/a.tsv", "b.TSV"):
        assert flowbench("report", "-o", str(tmp_path / name))[0] == 0
        assert (tmp_path / name).read_text() == printed
    code, output = flowbench("report", "-o", str(tmp_path / "a.txv"))
    assert code == 2 and output.strip().endswith(".htm, .tsv: add --format")


def test_the_longest_ending_wins_and_then_what_came_first(flowbench, results, form, tmp_path):
    form("return 'long'", endings=(".wide.md", ".md"))
    flowbench("report", "-o", str(tmp_path / "a.wide.md"))
    flowbench("report", "-o", str(tmp_path / "a.md"))
    assert (tmp_path / "a.wide.md").read_text() == "long"
    assert (tmp_path / "a.md").read_text() == flowbench("report", "--format", "md")[1]


def test_bytes_are_written_as_they_are_and_never_to_a_terminal(
    results, form, monkeypatch, tmp_path
):
    form("return bytes(range(256))")
    path = tmp_path / "a.odd"
    assert CliRunner().invoke(cli, ["report", "-o", str(path)]).exit_code == 0
    assert path.read_bytes() == bytes(range(256))
    words = ["report", "--format", "odd"]
    assert CliRunner().invoke(cli, words).stdout_bytes == bytes(range(256))
    monkeypatch.setattr("flowbench.cli.report._is_terminal", lambda: True)
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2 and "name a file with --output" in result.output


def test_a_document_is_built_when_it_is_asked_for(flowbench, results, form, monkeypatch, tmp_path):
    from flowbench.report import building

    built = []
    usual = building.document
    monkeypatch.setattr(building, "document", lambda *a, **k: built.append(k) or usual(*a, **k))
    form("return str(len(report.records()) + len(report.view.failed))", "count")
    assert flowbench("report", "--format", "count") == (0, "4") and built == []
    form("return ' '.join(table.title for table in report.tables())", "titles")
    code, output = flowbench("report", "--format", "titles")
    assert code == 0 and output.startswith("digits") and len(built) == 1
    charts = "str(sum(len(b.charts) for b in report.document({}).blocks))"
    form(f"return {charts.format('')} + ' ' + {charts.format('figures=True')}", "charts")
    code, output = flowbench("report", "--format", "charts", "--no-pictures")
    without, drawn = map(int, output.split()[-2:])
    assert code == 0 and without == 0 and drawn > 0


@pytest.mark.parametrize(
    "body, exit_code, said",
    [
        ("return {}['absent']", 3, "odd0.py:5): KeyError: 'absent'"),
        ("raise ValueError('two\\nlines')", 3, "odd0.py:5): ValueError: two lines"),
        ("return report.records", 3, "returned method, and not text or bytes"),
        ("raise FlowbenchError('no table fits: take md')", 2, "Error: no table fits: take md"),
    ],
)
def test_what_goes_wrong_in_a_plugin_is_one_line(flowbench, results, form, body, exit_code, said):
    form(body)
    code, output = flowbench("report", "--format", "odd")
    assert code == exit_code and said in output.splitlines()[-1] and "Traceback" not in output


def test_a_mistake_in_one_of_ours_is_a_defect(results, monkeypatch):
    from flowbench.report import text

    monkeypatch.setattr(text, "markdown", lambda tables: 1 / 0)
    result = CliRunner().invoke(cli, ["report", "--format", "md"])
    assert result.exit_code == 1 and isinstance(result.exception, ZeroDivisionError)


def test_two_of_one_name_are_refused_with_both(flowbench, results, form):
    paths = [form("return 'one'", "twice"), form("return 'two'", "twice")]
    code, output = flowbench("report", "--format", "twice")
    assert code == 2 and all(str(path) in output.splitlines()[-1] for path in paths)
    assert flowbench("report", "--format", "md")[0] == 0


def test_help_imports_no_plugin(flowbench, form, tmp_path):
    path = form("return ''")
    marker = tmp_path / "imported"
    leave = f"from pathlib import Path; Path({str(marker)!r}).touch()"
    path.write_text(f"{leave}\n{path.read_text()}")
    code, output = flowbench("report", "--help")
    assert code == 0 and "latex|csv|json|html|..." in output and not marker.exists()
    assert flowbench("report", "--format", "none")[0] == 2 and marker.exists()
