"""Connections: settings, what may be wrong with a database, and how that is said."""

import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from flowbench.records import FlowbenchError, Score, Spec
from flowbench.store import Store
from flowbench.store.engine import Database


def message(url: str) -> str:
    with pytest.raises(FlowbenchError) as raised:
        Store(url)
    text = str(raised.value)
    assert "\n" not in text
    return text


def fill(url: str, spec: Spec) -> None:
    store = Store(url)
    with store.attempt(spec, {}) as attempt:
        attempt.add(Score("fid", 1.0))
    store.close()


def test_the_recipe_of_a_connection(url: str) -> None:
    names = ("busy_timeout", "journal_mode", "synchronous", "foreign_keys")
    with Database(url).transaction() as connection:
        found = [connection.exec_driver_sql(f"pragma {name}").scalar_one() for name in names]
    assert found == [30_000, "wal", 1, 1]


def test_a_url_sets_the_timeout(url: str) -> None:
    with Database(f"{url}?timeout=2").transaction() as connection:
        assert connection.exec_driver_sql("pragma busy_timeout").scalar_one() == 2000


def test_a_writer_has_the_lock_before_it_reads(store: Store, url: str) -> None:
    impatient = Database(f"{url}?timeout=0.05")
    with store._database.transaction(write=True):
        with pytest.raises(FlowbenchError, match="locked"), impatient.transaction(write=True):
            pass
        with impatient.transaction() as connection:
            assert connection.exec_driver_sql("select count(*) from runs").scalar_one() == 0


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with (
        pytest.raises(FlowbenchError, match="NOT NULL"),
        store._database.transaction(write=True) as connection,
    ):
        for digest in ("'x'", "null"):
            row = f"insert into environments values ({digest}, '{{}}', '', '', '', '')"
            connection.exec_driver_sql(row)
    with pytest.raises(FlowbenchError, match="no environment"):
        store.environment("x")


@pytest.mark.parametrize(
    "row",
    [
        "(1, 1, 'model', 'fid', 1, 0, 0, 1.0, 'finite', '', null, '', '')",
        "(1, 99, 'model', 'fid', 1, 0, 0, 1.0, 'finite', '', '{}', '', '')",
        "(1, 1, 'model', 'fid', 1, 0, 0, null, 'finite', '', '{}', '', '')",
        "(1, 1, 'model', 'fid', 1, 0, 0, 1.0, 'nan', '', '{}', '', '')",
        "(1, 1, 'model', 'fid', 1, 0, 0, null, 'odd', '', '{}', '', '')",
        "(1, 1, 'model', 'fid', 1, 0, 0, 1.0, 'finite', 'most', '{}', '', '')",
        "(1, 1, 'model', 'fid', null, 0, 0, 1.0, 'finite', '', '{}', '', '')",
    ],
)
def test_the_database_itself_refuses_nonsense(store: Store, spec: Spec, row: str) -> None:
    with store.attempt(spec, {}):
        pass
    with (
        pytest.raises(FlowbenchError, match="constraint"),
        store._database.transaction(write=True) as connection,
    ):
        connection.exec_driver_sql(f"insert into scores values {row}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("results.db", '"results.db" is not a database URL'),
        ("", "not a database URL"),
        ("postgresql//user:secret@host/name", '"host/name" is not a database URL'),
        ("mysql://host/name", "a mysql database cannot hold results"),
        ("sqlite://results.db", "not a usable database URL"),
        ("sqlite:///results.db?timeout=soon", "not a usable database URL"),
        ("sqlite:///results.db?tiemout=3", "not a usable database URL"),
        ("postgresql+nothing://host/name", "not a usable database URL"),
    ],
)
def test_wrong_urls(url: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = message(url)
    assert words in text
    assert "sqlite:///results.db or postgresql://" in text
    assert "secret" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    text = message("postgresql://user:secret@host/name")
    assert 'pip install "psycopg[binary]"' in text
    assert "secret" not in text


def test_a_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "results.db"
    assert f"{path} cannot be opened: does its folder exist" in message(f"sqlite:///{path}")
    assert not path.parent.exists()


@pytest.mark.parametrize("content", [b"method,fid\nlmm,1.0\n" * 100, b"SQLite format"])
def test_another_kind_of_file(tmp_path: Path, url: str, content: bytes) -> None:
    path = tmp_path / "results.db"
    path.write_bytes(content)
    assert f"{path} is not an SQLite database" in message(url)
    assert path.read_bytes() == content


def test_a_truncated_file(tmp_path: Path, url: str, spec: Spec) -> None:
    fill(url, spec)
    path = tmp_path / "results.db"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FlowbenchError, match="is damaged"):
        Store(url).measured()


def test_a_database_of_another_program(tmp_path: Path, url: str) -> None:
    with closing(sqlite3.connect(tmp_path / "results.db")) as connection:
        connection.execute("create table runs (id)")
    assert "table runs already exists" in message(url)
    with closing(sqlite3.connect(tmp_path / "results.db")) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("runs",)]


def test_a_locked_database(url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "results.db")) as holder:
        holder.execute("begin exclusive")
        text = message(f"{url}?timeout=0.1")
    assert "kept locked by another process" in text


def test_the_first_contact_waits_for_a_lock(url: str, tmp_path: Path) -> None:
    # Another process writes in the old journal mode, and SQLite does not wait for it.
    with closing(sqlite3.connect(tmp_path / "results.db", check_same_thread=False)) as holder:
        holder.execute("begin immediate")
        release = threading.Timer(0.3, holder.rollback)
        release.start()
        start = time.monotonic()
        Store(url).close()
        release.join()
    assert 0.2 < time.monotonic() - start < 10


def test_a_read_only_database_can_be_read(url: str, tmp_path: Path, spec: Spec) -> None:
    fill(url, spec)
    store = Store.open_existing(f"sqlite:///file:{tmp_path / 'results.db'}?mode=ro&uri=true")
    assert len(store.measured()) == 1
    with pytest.raises(FlowbenchError, match="is read-only"), store.attempt(spec, {}):
        pass
    store.close()


def test_a_read_only_database_without_tables(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    assert "is read-only" in message(f"sqlite:///file:{path}?mode=ro&uri=true")


def test_an_existing_database_is_opened(url: str, spec: Spec) -> None:
    fill(url, spec)
    store = Store.open_existing(url)
    assert len(store.measured()) == 1
    store.close()


@pytest.mark.parametrize("pattern", ["sqlite:///{}", "sqlite:///file:{}?mode=rwc&uri=true"])
def test_a_reader_creates_no_file(tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "results.db"
    with pytest.raises(
        FlowbenchError, match=r"no results yet in .*results\.db: run `flowbench run"
    ):
        Store.open_existing(pattern.format(path))
    assert list(tmp_path.iterdir()) == []


def test_memory_always_exists() -> None:
    store = Store.open_existing("sqlite://")
    assert store.measured() == []
    store.close()


def test_an_attempt_has_one_of_the_known_outcomes(store: Store, spec: Spec) -> None:
    with store.attempt(spec, {}):
        pass
    with (
        pytest.raises(FlowbenchError, match="ck_attempts_outcome"),
        store._database.transaction(write=True) as connection,
    ):
        connection.exec_driver_sql("update attempts set outcome = 'odd'")
