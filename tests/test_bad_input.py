"""Bad input of every kind: one line that says what is wrong, the exit code, nothing changed."""

import hashlib
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

HERE = ("run", "cfm", "--dataset", "moons")
TINY = (*HERE, "--steps", "4", "--batch", "8", "--samples", "20", "--nfe", "1")
HEAD = "[suite]\ntitle = 'x'\n"
MOONS = f"{HEAD}dataset = 'moons'\n"
ROW = "[[method]]\nlabel = 'a'\nmethod = 'cfm'\n"
FILES = {
    "words.txt": "words\n",
    "empty.toml": "",
    "not.toml": "[suite\n",
    "stranger.toml": f"{HEAD}nosuch = 1\n",
    "rowless.toml": MOONS,
    "unknown.toml": MOONS + ROW.replace("cfm", "nosuch"),
    "twins.toml": MOONS + 2 * ROW,
    "steps.toml": f"{MOONS}steps = 'many'\n{ROW}",
    "option.toml": f"{MOONS}{ROW}options = {{nosuch = 1}}\n",
    "expect.toml": f"{MOONS}{ROW}[[expect]]\nlabel = 'nosuch'\nmetric = 'fd'\nnfe = 1\n"
    "min = 0\nmax = 1\nsource = 'x'\n",
    "broken.py": "def broken(:\n",
    "half.safetensors": "\x08",
    "half.zip": "PK\x03\x04",
    "half.npz": "PK\x03\x04",
    "half.pkl": "\x80\x02",
}
# Words of a command, and what its line says; exit code 2 unless a number stands before.
CASES = [
    # names
    ("nosuch", "No such command 'nosuch'"),
    ("--nosuch", "No such option"),
    ("run", "Missing argument 'METHOD'"),
    ("run cfm", "Missing option '--dataset'"),
    ("run nosuch --dataset moons", "no method 'nosuch': there are .*cfm"),
    ("run cfmm --dataset moons", "did you mean cfm"),
    ("run cfm --dataset nosuch", "no data set 'nosuch': there are .*moons"),
    ("run cfm --dataset moon", "did you mean moons"),
    ("run cfm --dataset moons --preset nosuch", "no preset of cfm .*there are"),
    ("run cfm --dataset moons --network nosuch", "no network 'nosuch': there are"),
    ("run cfm --dataset moons --network ddpmpp", "ddpmpp takes images"),
    ("run cfm --dataset moons --optimizer nosuch", "no optimizer 'nosuch': there are"),
    ("run cfm --dataset moons --optimizer adam,lr=x", "no option of optimizer adam .*there are"),
    ("run cfm --dataset moons --track nosuch", "no observer 'nosuch': there are"),
    ("run cfm --dataset moons --augment nosuch", "augmentation 'nosuch' is unknown: take"),
    ("run cfm --dataset moons --precision fp8", "'fp8' is not one of"),
    ("run cfm --dataset moons --device nosuch", "device 'nosuch' cannot be used"),
    ("run lmm --dataset digits --teacher nosuch", "nosuch is no method, no file and no run"),
    ("run cfm --dataset moons --teacher edm", "learns from data alone"),
    ("methods nosuch", "no method 'nosuch': there are"),
    ("methods cfm --preset nosuch", "no preset of cfm"),
    ("datasets nosuch", "no data set 'nosuch': there are"),
    ("networks nosuch", "no network 'nosuch': there are"),
    ("plugins --why nosuch", "no plugin 'nosuch': there are"),
    ("check nosuch", "no method 'nosuch': there are"),
    ("check cfm --only nosuch", "no check 'NOSUCH': there are"),
    ("weights download nosuch", "no weights 'nosuch': there are"),
    ("data download nosuch", "nosuch is none of cifar10"),
    ("published --paper nosuch", "no paper .*there are"),
    ("chart nosuch", "'nosuch' is not one of"),
    ("show nosuch", 'no run is called "nosuch"'),
    ("show", "Missing argument 'RUN'"),
    ("why nosuch", 'no run is called "nosuch"'),
    ("reproduce nosuch", 'no run is called "nosuch"'),
    ("new method", "Missing argument 'NAME'"),
    ("new method Bad_Name!", "is no name: .*try bad-name"),
    ("new method ../idea", "is no name: .*try idea"),
    ("new method cfm", "there is a method called cfm already: take another name"),
    ("new method idea --from nosuch", "no method 'nosuch': there are"),
    # numbers
    ("run cfm --dataset moons --nfe 0", "'0' is no whole number from 1"),
    ("run cfm --dataset moons --nfe -3", "'-3' is no whole number from 1"),
    ("run cfm --dataset moons --nfe 1.5", "'1.5' is no whole number from 1"),
    ("run cfm --dataset moons --nfe 1,,2", "'' is no whole number from 1"),
    ("run cfm --dataset moons --nfe auto", "cannot sample with --nfe auto"),
    ("run cfm --dataset moons --seed x", "'x' is no whole number from 0"),
    ("run cfm --dataset moons --seed -1", "'-1' is no whole number from 0"),
    ("run cfm --dataset moons --sample-seed x", "'x' is no whole number from 0"),
    ("run cfm --dataset moons --steps 0", "0 is not in the range"),
    ("run cfm --dataset moons --steps x", "'x' is not a valid integer"),
    ("run cfm --dataset moons --batch 0", "0 is not in the range"),
    ("run cfm --dataset moons --steps 10 --images 100", "two ways to say one thing: give one"),
    ("run cfm --dataset moons --samples 1", "1 is not in the range"),
    ("run cfm --dataset moons --samples 99999999999", "is not in the range"),
    ("run cfm --dataset moons --reference-rows 1", "1 is not in the range"),
    ("run cfm --dataset moons --micro-batch 0", "0 is not in the range"),
    ("run cfm --dataset moons --checkpoint-every -1", "-1.0 is not in the range"),
    # options of a method
    ("run cfm --dataset moons -o nosuch=1", "no option of cfm called 'nosuch': there are"),
    ("run cfm --dataset moons -o solver=nosuch", "solver of cfm takes euler"),
    ("run cfm --dataset moons -o width", "-o takes name=value"),
    ("run cfm --dataset moons -o width=8 -o width=9", "width is given twice"),
    ("run cfm --dataset moons -o width=x", "width of cfm takes int or none"),
    ("run cfm --dataset moons -o width=0", "width of cfm takes numbers from 1, not 0"),
    ("run cfm --dataset moons -o ema=1", "ema of cfm takes numbers from 0 and below 1, not 1"),
    ("run cfm --dataset moons -o lr=-1", "lr of cfm takes numbers from 0, not -1"),
    ("run cfm --dataset moons -o lr=nan", "lr of cfm must be finite"),
    ("run lmm --dataset digits -o pairs=0", "pairs of lmm takes numbers from 1, not 0"),
    (3, "run exact --dataset moons", "moons has no closed form: take mog128"),
    ("pairs cfm --dataset moons", "learns from no pairs: train it with"),
    # words that do not go together
    ("run cfm --dataset moons --jobs 2", "--jobs and --token belong to --suite"),
    ("run cfm --dataset moons --dry-run --smoke", "leave out --smoke"),
    ("run cfm --suite rowless.toml", "instead of giving METHOD"),
    ("run --suite rowless.toml --nfe 1", "instead of giving --nfe"),
    ("compare --fail-on worse", "--fail-on needs something to compare with"),
    ("export", "Missing option '--bundle'"),
    # files that are not there, or are something else
    ("run cfm --dataset moons --plugin nowhere.py", "no folder or .py file nowhere.py"),
    ("run cfm --dataset moons --plugin words.txt", "no folder or .py file words.txt"),
    ("run broken --dataset moons --plugin broken.py", "broken.py: SyntaxError"),
    ("run cfm --dataset moons --runs words.txt", "Directory 'words.txt' is a file"),
    ("run cfm --dataset moons --weights words.txt", "is no checkpoint: give a"),
    ("run cfm --dataset moons --weights nowhere.pt", "'nowhere.pt' does not exist"),
    ("run cfm --dataset moons --weights half.safetensors", "half.safetensors"),
    ("run lmm --dataset digits --teacher words.txt", "is no checkpoint: give a"),
    ("run cfm --dataset cifar10", "put cifar10-32x32.zip .*--data-root DIR"),
    ("run cfm --dataset cifar10 --data-root nowhere", "'nowhere' does not exist"),
    ("run cfm --dataset cifar10 --data-root words.txt", "'words.txt' is a file"),
    ("check nowhere.py", "there is no file nowhere.py: give"),
    ("data check nowhere.zip", "nowhere.zip is none of"),
    ("data check words.txt", "words.txt cannot be read: File is not a zip file"),
    ("data check half.zip", "half.zip cannot be read"),
    ("ref show nowhere.npz", "there is no file nowhere.npz"),
    ("ref show words.txt", "words.txt cannot be read as reference statistics"),
    ("ref show half.npz", "half.npz cannot be read as reference statistics"),
    ("import nowhere.pkl", "'nowhere.pkl' does not exist"),
    ("import words.txt", "words.txt"),
    ("import half.pkl", "half.pkl"),
    # suites
    ("run --suite nowhere.toml", "nowhere.toml cannot be read: No such file"),
    ("run --suite words.txt", "words.txt is no TOML"),
    ("run --suite folder", "'folder' is a directory"),
    ("run --suite empty.toml", "suite is missing; method is missing"),
    ("run --suite not.toml", "not.toml is no TOML: .*line 1"),
    ("run --suite stranger.toml", "suite: nosuch is no key there"),
    ("run --suite rowless.toml", "method is missing"),
    ("run --suite unknown.toml", "no method 'nosuch'"),
    ("run --suite twins.toml", "two methods have the label 'a': rename one"),
    ("run --suite steps.toml", "suite: steps takes a whole number, not 'many'"),
    ("run --suite option.toml", "no option of cfm called 'nosuch'"),
    ("run --suite expect.toml", "no method has the label 'nosuch'"),
    ("compare --suite not.toml", "not.toml is no TOML"),
    # databases
    ("run cfm --dataset moons --db words.txt", "is not an SQLite database; choose another"),
    ("run cfm --dataset moons --db folder", "cannot be opened"),
    ("run cfm --dataset moons --db mysql://u:secret@h/d", "a mysql database cannot hold results"),
    ("run cfm --dataset moons --db ://", "is not a database URL"),
    ("compare --db nowhere.db", "no results yet in nowhere.db: run `flowbench run"),
    ("compare --db words.txt", "is not an SQLite database"),
    ("merge nowhere.zip", "'nowhere.zip' does not exist"),
    ("merge words.txt", "neither a database of flowbench nor a bundle"),
    ("merge half.zip", "half.zip"),
    ("export --bundle out.zip --dataset nosuch", "no data set 'nosuch': there are moons"),
    # what is shown
    ("compare nosuch", "no method 'nosuch': there are bot-cfm, cfm"),
    ("compare --dataset nosuch", "no data set 'nosuch': there are"),
    ("compare --nfe x", "'x' is no whole number from 1"),
    ("compare cfm --baseline edm", "no row edm to compare with: choose of cfm"),
    ("compare --metric nosuch", "no metric 'nosuch': there are"),
    ("compare --format nosuch", "'nosuch' is not one of"),
    ("compare --dataset moons --where nosuch=1", "nosuch"),
    ("compare --since yesterday", "yesterday"),
    ("report --dataset nosuch", "no data set 'nosuch'"),
    ("report -o out.xyz", "ends in none of"),
    ("chart quality", "Missing option '-o'"),
    ("chart quality --dataset moons --metric nosuch -o out.png", "no metric 'nosuch'"),
    ("chart quality --dataset moons --metric fd -o out.xyz", "is no chart: its name has to end"),
    ("show moons-cfm-s0 --samples out.xyz", "out.xyz"),
]


def cases():
    """The table with its default filled in."""
    return [case if isinstance(case[0], int) else (2, *case) for case in CASES]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with one small run, and files of many kinds."""
    from flowbench.cli import cli

    folder = tmp_path_factory.mktemp("filled")
    environment = {"FLOWBENCH_DB": str(folder / "results.db")}
    result = CliRunner().invoke(cli, [*TINY, "--quiet"], env=environment)
    assert result.exit_code == 0, result.output
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="latin-1")
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def here(filled, database, monkeypatch):
    shutil.copytree(filled, database.parent, dirs_exist_ok=True)
    monkeypatch.chdir(database.parent)
    return database.parent


def state(folder: Path):
    """What the folder's files hold, and the rows of its database."""
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("results.db") and "cache" not in path.parts
    }
    with closing(sqlite3.connect(folder / "results.db")) as connection:
        return files, list(connection.iterdump())


def said(output: str) -> str:
    """The message; raises AssertionError unless it is one printable line without a traceback."""
    assert "Traceback" not in output
    *before, line = [each for each in output.splitlines() if each.strip()]
    usage = re.compile(r"Usage: |Try |\s+\[")  # what click prints before the message
    assert all(usage.match(each) for each in before), output
    assert line.startswith("Error: ") and line.isprintable(), output
    return line


@pytest.mark.parametrize(("code", "words", "message"), cases(), ids=[c[1] for c in cases()])
def test_bad_input_is_one_line_and_changes_nothing(here, flowbench, code, words, message):
    before = state(here)
    found, output = flowbench(*words.split())
    if code == 3:  # the attempt is stored as a failure
        assert said(output) and found == 3 and re.search(message, output)
        return
    assert (found, bool(re.search(message, said(output)))) == (code, True), output
    assert "secret" not in output
    assert state(here) == before


def test_there_are_more_than_sixty_kinds_and_none_twice():
    words = [words for _, words, _ in cases()]
    assert len(set(words)) == len(words) >= 60


def test_a_command_that_changes_something_would_be_noticed(here, flowbench):
    before = state(here)
    assert flowbench(*TINY, "--seed", "1", "--quiet")[0] == 0
    files, rows = state(here)
    assert files != before[0] and rows != before[1]


def test_two_lines_or_a_traceback_would_be_noticed():
    for output in ("Error: a\nError: b", "Traceback (most recent call last)", "Error: \x1b[1m"):
        with pytest.raises(AssertionError):
            said(output)


def test_a_read_only_view_of_the_state(here):
    os.utime(here / "words.txt")
    assert state(here) == state(here)
