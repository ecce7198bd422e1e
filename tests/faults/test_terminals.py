"""Outputs that are closed, full, narrow or of few letters, and surroundings that lack a folder."""

import dataclasses
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from fault_tools import SHORT, outcomes, query, scores
from small_runs import ran

from flowbench import cache
from flowbench.cli import streams
from flowbench.records import FlowbenchError
from flowbench.store import Store

WORDS = ["edm" if word == "cfm" else word for word in SHORT if word != "--quiet"]
LABEL = "größe=ελ 日本"  # letters of one byte, two and three, and some that take two columns
TABLES = [
    *("compare", "report", "methods", "datasets", "networks", "plugins", "published"),
    *("methods cfm", "weights list", "ref list", "data list", "doctor"),
]
# What a shell does with many commands, in one process because each start takes seconds.
DRIVER = """
import sys
from flowbench.cli import cli, streams
streams.secure()
for words in sys.argv[1].split("|"):
    print("$", words, flush=True)
    try:
        cli(words.split(), prog_name="flowbench")
    except SystemExit as end:
        print("exit code", end.code, flush=True)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with a real run, and one of another tool whose names use many letters."""
    folder = tmp_path_factory.mktemp("results")
    ran(folder, WORDS[1:])
    store = Store(f"sqlite:///{folder / 'results.db'}")
    (spec,) = store.specs().values()
    other = dataclasses.replace(spec, seed=9, changed={"path": LABEL})
    with store.attempt(other, {"python": "3", "torch": "2"}) as attempt:
        for row in store.measured():
            attempt.add(row.score)
    store.close()
    return folder


def surroundings(folder, **more):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "FLOWBENCH_CACHE")}
    kept |= {"FLOWBENCH_DB": str(folder / "results.db"), "OMP_NUM_THREADS": "1"}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2])} | more


def start(words, folder, **options):
    command = [sys.executable, "-m", "flowbench", *words]
    given = {"stderr": subprocess.PIPE, "env": surroundings(folder), "cwd": folder} | options
    return subprocess.run(command, text=True, timeout=120, **given)


def without_reader():
    """The end of a pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def without_room():
    """Both ends of a pipe that is full, and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, writing


@pytest.mark.parametrize("words", [["compare"], ["methods"], ["run", "--help"]])
def test_a_table_whose_reader_has_gone_is_no_failure(results, words):
    gone = without_reader()
    done = start(words, results, stdout=gone)
    os.close(gone)
    assert (done.returncode, done.stderr) == (0, "")


def test_head_gets_its_line(results):
    line = '"$0" -m flowbench compare | head -1; echo ${PIPESTATUS[0]}'
    command = ["bash", "-c", line, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings(results))
    assert done.stderr == "" and done.stdout.endswith("\n0\n")
    assert done.stdout.startswith("moons: 50 samples, 20 steps of 16")


def test_a_run_goes_on_when_nobody_reads_any_more(tmp_path):
    """`flowbench run ... 2>&1 | head`: the reader goes, the run ends as ever."""
    gone = without_reader()
    done = start(WORDS, tmp_path, stdout=gone, stderr=gone)
    os.close(gone)
    assert done.returncode == 0 and outcomes(tmp_path / "results.db") == ["ok"]
    assert len(scores(tmp_path / "results.db")) >= 10


def test_a_run_does_not_wait_for_a_reader_who_does_not_read(tmp_path):
    """Its progress is left out; `subprocess` ends the test where it would wait for ever."""
    reading, writing = without_room()
    done = start(WORDS, tmp_path, stdout=subprocess.DEVNULL, stderr=writing)
    assert done.returncode == 0 and outcomes(tmp_path / "results.db") == ["ok"]
    os.close(reading), os.close(writing)


def test_progress_is_left_out_of_a_full_pipe_and_goes_on_when_it_is_read(monkeypatch):
    reading, writing = without_room()
    full = os.fdopen(writing, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", full)
    assert not select.select([], [writing], [], 0)[1], "a line would wait here"
    streams.tell("left out")
    os.read(reading, 8192)
    streams.tell("heard")
    left = b""
    while b"heard" not in left:
        left = os.read(reading, 2**20)
    assert left.endswith(b"heard\n") and b"left out" not in left
    full.close(), os.close(reading)


def test_a_pipe_that_does_not_wait_loses_nothing():
    """Other programs at the same pipe may make it so; it took an error to notice."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    content = b"0123456789" * 20_000
    child = os.fork()
    if child == 0:
        os.close(reading)
        raw, done = streams.Output(writing), 0
        while done < len(content):
            done += raw.write(content[done:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == content
    assert os.waitpid(child, 0)[1] == 0


def test_closed_streams_do_not_get_into_the_database(tmp_path):
    """The next file that is opened would take the number of the stream."""
    done = start(WORDS, tmp_path, stderr=None, preexec_fn=lambda: os.closerange(0, 3))
    assert done.returncode == 0
    assert outcomes(tmp_path / "results.db") == ["ok"]
    assert query(tmp_path / "results.db", "pragma integrity_check") == [("ok",)]


@pytest.mark.parametrize(
    "more",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["latin-1", "C"],
)
def test_every_table_can_be_written_in_few_letters(results, more):
    words = "|".join([*TABLES, "compare --format md", "report --format csv", "nonsense"])
    command = [sys.executable, "-c", DRIVER, words]
    given = {"env": surroundings(results, **more), "cwd": results}
    done = subprocess.run(command, capture_output=True, timeout=120, **given)
    output = done.stdout.decode("latin-1")
    assert done.returncode == 0 and b"Traceback" not in done.stdout + done.stderr
    codes = re.findall(r"exit code (\S+)", output)
    assert codes == ["0"] * (len(codes) - 1) + ["2"], (codes, done.stderr)
    if "latin-1" in more.values():
        assert b"gr\xf6\xdfe=\\u03b5\\u03bb" in done.stdout, "what there is, and the rest by number"


def on_terminal(folder, columns, words, **more):
    """What commands print on a terminal of so many columns, and the exit code of the process."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-c", DRIVER, "|".join(words)]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    environment = surroundings(folder, **more)
    process = subprocess.Popen(command, **streams, env=environment, cwd=folder)
    os.close(theirs)
    parts = []
    while True:
        try:
            parts.append(os.read(ours, 65536))
        except OSError:  # how Linux says that the other end is closed
            break
    os.close(ours)
    return process.wait(), b"".join(parts).decode(errors="replace").replace("\r", "")


@pytest.mark.parametrize("columns, term", [(80, "xterm-256color"), (30, "dumb")])
def test_tables_fit_a_terminal_or_go_on_below(results, columns, term):
    code, output = on_terminal(results, columns, [*TABLES, "run --help"], TERM=term)
    assert code == 0 and "Traceback" not in output
    assert set(re.findall(r"exit code (\S+)", output)) == {"0"}
    assert ("\x1b" in output) == (term != "dumb"), "a dumb terminal knows no colours"
    if columns < 80:
        return
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    table = plain.split("$ compare")[1].split("$ report")[0]
    rules = [line for line in table.splitlines() if set(line) == {"-", " "}]
    assert rules and all(len(rule) <= columns for rule in rules)


@pytest.mark.long
def test_a_live_bar_on_a_narrow_terminal_is_taken_away(tmp_path):
    code, output = on_terminal(tmp_path, 30, [" ".join(WORDS)], TERM="xterm")
    assert code == 0 and "Traceback" not in output and "exit code 0" in output
    assert outcomes(tmp_path / "results.db") == ["ok"]


def test_a_folder_that_was_deleted_is_one_line(results, tmp_path):
    def lost():
        folder = tmp_path / "gone"
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()

    done = start(["compare"], results, stdout=subprocess.PIPE, cwd=tmp_path, preexec_fn=lost)
    assert done.returncode == 2 and done.stdout == ""
    said = "Error: the folder that you are in does not exist any more: cd to another one\n"
    assert done.stderr == said
    done = start(["--help"], results, stdout=subprocess.PIPE, cwd=tmp_path, preexec_fn=lost)
    assert done.returncode == 0 and done.stdout.startswith("Usage:")


def test_no_home_and_no_temporary_folder(results, tmp_path):
    lacking = surroundings(results) | {"TMPDIR": str(tmp_path / "none")}
    for name in ("HOME", "FLOWBENCH_CACHE"):
        del lacking[name]
    done = start(["compare"], results, stdout=subprocess.PIPE, env=lacking)
    assert done.returncode == 0 and done.stdout.startswith("moons") and done.stderr == ""


def test_a_user_without_a_home_is_told_what_to_name(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert cache.place("x").name == "x", "FLOWBENCH_CACHE is named"
    monkeypatch.delenv("FLOWBENCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(FlowbenchError, match="name a folder with FLOWBENCH_CACHE"):
        cache.place("x")
