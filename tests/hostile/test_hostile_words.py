"""Words of strangers in every output: no command to a terminal, no markup, no formula."""

import csv
import io
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from stored_rows import floor, put, score, spec

from flowbench import places
from flowbench.cli.guarded import Guarded
from flowbench.records import Diverged, FlowbenchError

# Clears the screen, fills the clipboard, makes a link, rings, turns text around, hides it.
ESCAPES = "\x1b[2J\x1b]52;c;eA==\x07\x1b]8;;http://x\x1b\\\x9b31m\x08\u202etxt\u200b\u2066\x85"
MARKUP = "=1+1<script>alert(1)</script><img src=x onerror=alert(1)>\\input{/etc/passwd}$x$|[a](b)`c"
NEVER = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
PLACES = {
    "error": "update attempts set error_text = :bad",
    "kind of error": "update attempts set error_type = :bad",
    "notes": "update attempts set notes = json_array(:bad)",
    "score": "update scores set name = :bad where n > 0",
    "subject": "update scores set subject = :bad where name = 'floor'",
    "goal": "update scores set goal = :bad",
    "name": "update runs set name = :bad where seed = 1",
    "data set": "update runs set dataset = :bad, method = :bad",
    "role": "update artifacts set role = :bad, path = :bad, sha256 = :bad",
    "time": "update attempts set started = :bad, ended = :bad",
    "origin": "update attempts set origin = :bad",
    "host": "update attempts set host = :bad",
}
COMMANDS = (
    ("compare",),
    ("compare", "--format", "md"),
    ("compare", "--format", "latex"),
    ("report",),
    ("report", "--format", "md"),
    ("report", "--format", "csv"),
    ("report", "--format", "json"),
    ("report", "--format", "latex"),
    ("show", "2"),
    ("show", "2", "--format", "json"),
    ("show", "nobody-at-all"),
    ("doctor",),
    ("why", "cfm", "--dataset", "digits"),
)


@pytest.fixture
def filled(database):
    """A database with runs that ended well and one that did not."""
    put(database, spec(), score(1.0), floor(0.5))
    put(database, spec(seed=1), score(2.0), score(3.0, nfe=2))
    put(database, spec(seed=2), score(1.0), error=Diverged("the loss became nan"))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "insert into artifacts (attempt_id, role, path, sha256, bytes, created)"
            " values (2, 'network', 'x/y', 'f', 3, '')"
        )
    return database


def harmless(words, output):
    """No byte of the output is a command to a terminal."""
    found = NEVER.search(output)
    assert not found, (words, output[max(0, found.start() - 60) : found.end() + 20])
    assert "Traceback" not in output, output


@pytest.mark.parametrize("place", PLACES)
def test_no_word_of_a_stranger_reaches_the_terminal_as_a_command(flowbench, filled, place):
    with closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute("pragma ignore_check_constraints=on")
        connection.execute(PLACES[place], {"bad": f"a{ESCAPES}b\rc\nd"})
    for words in COMMANDS:
        harmless(words, flowbench(*words)[1])


def test_files_that_are_written_hold_no_commands_either(flowbench, filled, tmp_path):
    with closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute(PLACES["error"], {"bad": ESCAPES})
        connection.execute(PLACES["score"], {"bad": f"fd{ESCAPES}"})
    for ending in ("html", "md", "csv", "json", "tex", "txt"):
        path = tmp_path / f"x.{ending}"
        code, output = flowbench("report", "--output", str(path), "--no-pictures")
        assert code == 0 or ending == "txt", output
        if path.exists():
            harmless(ending, path.read_text(encoding="utf-8"))


def test_markup_of_a_stranger_is_text(flowbench, database, tmp_path):
    good, bad = spec(), spec(method=MARKUP.replace("/", "").replace("\\", ""))
    put(database, good, score(1.0))
    paths = [tmp_path / "good.html", tmp_path / "bad.html"]
    assert flowbench("report", "--output", str(paths[0]), "--no-pictures")[0] == 0
    put(database, bad, score(2.0))
    put(database, replace(bad, seed=1), error=Diverged(MARKUP))
    assert flowbench("report", "--output", str(paths[1]), "--no-pictures")[0] == 0
    pages = [path.read_text(encoding="utf-8") for path in paths]
    for tag in ("<script", "<img"):
        assert pages[0].count(tag) == pages[1].count(tag)
    assert "<script>alert" not in pages[1] and "onerror" in pages[1]
    text = flowbench("report", "--format", "latex")[1]
    assert "\\input{/" not in text and "$x$" not in text
    text = flowbench("report", "--format", "md")[1]
    assert "[a](b)" not in text.replace("\\[", "") and "<script>" not in text.replace("\\<", "")


def test_no_text_in_a_csv_is_a_formula(flowbench, database):
    for seed, start in enumerate("=+-@"):
        put(database, spec(method=f"{start}1+1", seed=seed), score(-1.0 - seed))
        put(database, spec(method=f"{start}2", seed=seed), error=Diverged(f"\t\r{start}1"))
    code, output = flowbench("report", "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(output)))
    texts = [cell for row in rows for name, cell in row.items() if name not in ("mean", "nfe")]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {row["method"] for row in rows} >= {f"'{start}1+1" for start in "=+-@"}
    numbers = {row["mean"] for row in rows if row["subject"] == "model"}
    assert numbers >= {"-1.0", "-2.0", "-3.0", "-4.0"}  # a negative number stays one


def test_json_is_json_whatever_is_in_it(flowbench, filled):
    with closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute(PLACES["error"], {"bad": ESCAPES})
    code, output = flowbench("show", "3", "--format", "json")
    assert code == 0 and json.loads(output)["attempts"][-1]["error"] == ESCAPES
    assert output.isascii()


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self):
        return True


def test_on_a_terminal_only_colours_and_live_tables_remain():
    terminal, pipe = Terminal(), io.StringIO()
    live = "\x1b[1;32mgreen\x1b[0m\x1b[2K\x1b[1A\r\x1b[?25l"
    for stream in (terminal, pipe):
        assert Guarded(stream).write(live) == len(live)
    assert terminal.getvalue() == live
    assert not NEVER.search(pipe.getvalue())
    terminal = Terminal()
    Guarded(terminal).write(ESCAPES + "\n\té ± 漢")
    assert not NEVER.search(terminal.getvalue()) and terminal.getvalue().endswith("\n\té ± 漢")
    assert not hasattr(Guarded(Terminal()), "buffer")
    assert hasattr(Guarded(io.TextIOWrapper(io.BytesIO())), "buffer"), "for bytes to a file"


SOURCE = '''"""{bad}"""
from flowbench import hookimpl
class A:
    """{bad}"""
    name = "{bad}"
    @hookimpl
    def train(self, data, run): raise ValueError("{bad}")
    @hookimpl
    def sample(self, network, noise, labels, nfe): return noise
'''


@pytest.mark.parametrize("name", ["a\x1b]52;c;eA==\x07.py", "a\u202egnp.py", "a\n\rb.py"])
def test_plugins_with_odd_names_are_shown_without_harm(flowbench, tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_text(SOURCE.format(bad=ESCAPES.encode("unicode_escape").decode()), encoding="utf-8")
    for words in (("plugins",), ("methods",), ("plugins", "--json"), ("doctor",), ("check", "A")):
        harmless(words, flowbench(*words, "--plugin", str(path))[1])
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(path))
    run = ("run", ESCAPES, "--dataset", ESCAPES, "--quiet")
    harmless(run, flowbench(*run)[1])


def test_a_file_that_an_artifact_names_elsewhere_is_not_touched(flowbench, filled, tmp_path):
    outside = tmp_path / "secret"
    outside.write_text("secret")
    for path in (str(outside), "../secret", "x/../../secret", "/etc/passwd"):
        with closing(sqlite3.connect(filled)) as connection, connection:
            facts = (path, "f" * 64, "2026-01-01T00:00:00+00:00")
            connection.execute("update artifacts set path = ?, sha256 = ?, created = ?", facts)
        code, output = flowbench("export", "--bundle", str(tmp_path / "x.zip"))
        assert code == 2 and "has a file at" in output
        assert not (tmp_path / "x.zip").exists()
        assert "secret" not in flowbench("show", "2")[1].replace(path, "")
        code, output = flowbench("reproduce", spec(seed=1).name)
        assert code in (2, 3, 6) and "Traceback" not in output
        assert outside.read_text() == "secret"


def test_pictures_are_drawn_of_files_in_the_folder_alone(tmp_path):
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    assert places.inside(tmp_path / "runs", "x/y") == tmp_path / "runs" / "x" / "y"
    for name in ("../y", "/etc/passwd", "x/../../y", "link/y", "a\0b"):
        with pytest.raises(FlowbenchError, match="outside"):
            places.inside(tmp_path / "runs", name)


def test_errors_for_users_are_printable_lines():
    from flowbench.cli import Failure

    assert Failure(FlowbenchError(ESCAPES)).message.isprintable()
