"""The way from a spool into its database: killed at any moment, nothing is lost or doubled."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from alembic import command
from conftest import ROOT
from damaged_files import fill, rows
from small_attempts import Start, put

from flowbench.records import FlowbenchError, RunFailed, Score
from flowbench.store import Store, schema, spool_files
from flowbench.store.engine import Database
from flowbench.store.spool_attempts import SpooledAttempt

pytestmark = pytest.mark.usefixtures("spooled")
LINK, WRITE = os.link, os.write


def scores(store):
    return [(row.score.nfe, row.score.value) for row in store.measured()]


def stored(path):
    """The scores in the file itself, without the spool."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select nfe, value from scores order by 1, 2").fetchall()


# Ends as by SIGKILL at the so-many-th call that changes the disk, before or after it.
KILLED = """
import os, sys
from flowbench.store import Store
kind, number, after, url = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "after", sys.argv[4]
usual, calls = getattr(os, kind), [0]
def dying(*words, **more):
    calls[0] += 1
    if calls[0] == number and not after:
        os._exit(9)
    found = usual(*words, **more)
    if calls[0] == number:
        os._exit(9)
    return found
setattr(os, kind, dying)
Store(url).ingest(wait=True)
"""


@pytest.mark.parametrize(
    ("kind", "number", "after"),
    [
        ("fsync", 1, "before"),
        ("replace", 1, "before"),
        ("replace", 1, "after"),
        ("replace", 2, "after"),
        ("replace", 3, "after"),
    ],
)
def test_an_ingester_killed_anywhere_loses_and_doubles_nothing(
    store, spec, tmp_path, url, kind, number, after
):
    put(store, spec, 1, 2)
    put(store, spec, 3)
    words = [sys.executable, "-c", KILLED, kind, str(number), after, url]
    killed = subprocess.run(words, env=os.environ | {"PYTHONPATH": ROOT}, capture_output=True)
    assert killed.returncode == 9, killed.stderr
    expected = [(1, 1.5), (2, 2.5), (3, 3.5)]
    assert scores(store) == expected
    assert [tried.number for tried in store.tried()] == [1, 2]
    put(store, spec, 4)
    store.ingest(wait=True)
    assert scores(store) == stored(tmp_path / "results.db") == [*expected, (4, 4.5)]
    assert [tried.number for tried in store.tried()] == [1, 2, 3]
    assert not list((tmp_path / "results.db.spool").glob("*.[jeb]*"))


READING = """
store, seen = Store(url), 0
while seen < 60:
    found = [row.score.nfe for row in store.measured()]
    assert found == list(range(1, len(found) + 1)) and len(found) >= seen, (seen, found)
    seen = len(found)
    if number:
        store.ingest()
"""


@pytest.mark.slow
def test_readers_see_each_score_once_while_others_write_and_ingest(start: Start, store, spec):
    others = start(READING, 2)
    for nfe in range(1, 61, 6):
        put(store, spec, *range(nfe, nfe + 6))
    for process in others:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors[-2000:]) == (0, "")


def test_much_is_ingested_without_being_asked(store, spec, folder, monkeypatch):
    monkeypatch.setattr("flowbench.store.spool_ingest.MANY", 2)
    for nfe in range(1, 4):
        put(store, spec, nfe)
    assert folder.places() == [] and len(folder.places(folder.done)) == 3


def test_what_a_database_has_lost_comes_back(store, spec, tmp_path, url):
    put(store, spec, 1, 2)
    shutil.copy(tmp_path / "results.db", tmp_path / "empty.db")
    store.ingest()
    os.replace(tmp_path / "empty.db", tmp_path / "results.db")
    again = Store(url)
    assert scores(again) == []
    assert again.ingest().new == 1
    assert scores(again) == [(1, 1.5), (2, 2.5)]


def test_a_spool_without_its_database_is_read(store, spec, tmp_path, url):
    put(store, spec, 1)
    os.unlink(tmp_path / "results.db")
    assert scores(Store.open_existing(url)) == [(1, 1.5)]
    assert not (tmp_path / "results.db").exists()


def test_a_database_from_a_local_disk_is_taken_in_with_its_log(tmp_path, spec, monkeypatch):
    monkeypatch.setenv("FLOWBENCH_SPOOL", "never")
    (tmp_path / "local").mkdir()
    path = tmp_path / "local" / "results.db"
    local = Store(f"sqlite:///{path}")  # stays open, so that the log stays
    fill(path, runs=1, scores=5)
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", tmp_path / f"results.db{end}")
    found = rows(path)
    local.close()
    monkeypatch.setenv("FLOWBENCH_SPOOL", "always")
    store = Store(f"sqlite:///{tmp_path / 'results.db'}")
    assert len(store.measured()) == 5
    put(store, spec, 1)
    assert store.ingest().new == 1
    assert not (tmp_path / "results.db-wal").exists()
    after = rows(tmp_path / "results.db")
    assert all(found[table].items() <= after[table].items() for table in found)
    assert len(after["scores"]) == 6


def test_an_older_database_is_upgraded_with_a_copy_before(tmp_path, spec, url, flowbench):
    old = Database(url)
    with old.transaction(write=True) as connection:
        command.upgrade(schema.configure(connection), "0001")
    old.close()
    with closing(sqlite3.connect(tmp_path / "results.db")) as connection:
        connection.execute("pragma journal_mode=delete")
    before = (tmp_path / "results.db").read_bytes()
    store = Store(url)
    put(store, spec, 1)
    assert (tmp_path / "results.db").read_bytes() == before
    assert "from schema 0001 to" in flowbench("db", "upgrade")[1]
    assert (tmp_path / "results.db.bak-0001").read_bytes() == before
    assert "nothing to upgrade" in flowbench("db", "upgrade")[1]
    store.ingest()
    assert scores(store) == [(1, 1.5)]
    assert (tmp_path / "results.db.bak-0001").read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_no_half_line(store, spec, folder, monkeypatch):
    with store.attempt(spec, {}) as attempt:
        assert isinstance(attempt, SpooledAttempt)
        attempt.add(Score("fid", 1.5, 1))
        file = folder.file((spec.key, 1))
        before = file.read_bytes()

        def full(number, content):
            if len(content) < 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return WRITE(number, content[:10])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(RunFailed, match="cannot be written: No space left") as raised:
                attempt.add(Score("fid", 2.5, 2))
        assert "\n" not in str(raised.value) and file.read_bytes() == before
        attempt.add(Score("fid", 3.5, 3))
    assert scores(store) == [(1, 1.5), (3, 3.5)]


def test_a_file_system_without_second_names_will_do(store, spec, folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    put(store, spec, 1)
    put(store, spec, 2)
    assert not folder.claim((spec.key, 2), {})
    store.ingest()
    assert scores(store) == [(1, 1.5), (2, 2.5)]


def test_a_worker_that_died_before_its_first_line_holds_nothing(store, spec, folder, monkeypatch):
    monkeypatch.setattr(spool_files, "PATIENCE", 0.1)
    folder.make()
    folder.file((spec.key, 1)).touch()
    attempt = put(store, spec, 1)
    assert attempt.number == 2
    store.ingest()
    assert scores(store) == [(1, 1.5)]


@pytest.mark.parametrize(
    "content",
    [b"\n", b"rubbish\n", b'{"sum":"00000000","row":["begin",{}]}\n', b"\xff\xfe\n", b"[]\n"],
)
def test_what_is_no_attempt_is_named_and_harms_nothing(store, spec, folder, flowbench, content):
    put(store, spec, 1)
    folder.file(("a" * 64, 1)).write_bytes(content)
    folder.file((spec.key, 7)).write_bytes(folder.file((spec.key, 1)).read_bytes())
    assert scores(store) == [(1, 1.5)]
    code, output = flowbench("db", "check")
    assert code == 3 and "holds what no flowbench has written" in output
    code, output = flowbench("db", "ingest")
    assert code == 3 and "ingested 1 attempt" in output and f"{'a' * 64}.1.jsonl" in output
    assert put(store, spec, 2).number == 8
    assert scores(store) == [(1, 1.5), (2, 2.5)]


def test_db_ingest_says_what_it_did(store, spec, flowbench, monkeypatch, elsewhere):
    put(store, spec, 1)
    with elsewhere.at_work(store, spec):
        assert "1 attempts wait, 1 run" in flowbench("db", "check")[1]
        code, output = flowbench("db", "ingest")
        assert code == 0 and "ingested 1 attempt into" in output and "1 still run" in output
    monkeypatch.setenv("FLOWBENCH_SPOOL", "auto")
    assert "ingested 1 attempt" in flowbench("db", "ingest")[1]  # its folder is there


def test_without_a_spool_there_is_nothing_to_ingest(flowbench, database, monkeypatch):
    monkeypatch.setenv("FLOWBENCH_SPOOL", "never")
    code, output = flowbench("db", "ingest")
    assert code == 2 and "no results yet" in output and not database.exists()
    fill(database, runs=1)
    assert flowbench("db", "ingest") == (0, f"{database} has no spool: nothing to ingest\n")


def test_another_word_for_the_spool_is_one_line(flowbench, database, monkeypatch):
    fill(database, runs=1)
    monkeypatch.setenv("FLOWBENCH_SPOOL", "sometimes")
    before = database.read_bytes()
    code, output = flowbench("db", "ingest")
    assert code == 2 and "is none of auto, always, never" in output
    assert len(output.splitlines()) == 1 and database.read_bytes() == before


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(FlowbenchError, match="does its folder exist"):
        Store(f"sqlite:///{tmp_path / 'nowhere' / 'results.db'}")
    assert list(tmp_path.iterdir()) == []
