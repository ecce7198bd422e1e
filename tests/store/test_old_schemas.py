"""Databases that older flowbenches made, as files: upgraded after a backup, read, gone on with."""

import hashlib
import json
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from old.make import NOBODY, SPEC, read

from flowbench.records import Budget, FlowbenchError, Score, Spec
from flowbench.store import Store, foreign, leases, schema, views
from flowbench.store.leases import Held
from flowbench.store.merging import Source

OLD = Path(__file__).parent / "old"
HOST = hashlib.sha256(b"a machine of old").hexdigest()[:12]
REVISIONS = sorted(path.stem.removeprefix("schema-") for path in OLD.glob("schema-*.db"))
KILLED = Spec(**{**vars(SPEC), "seed": 3})


@pytest.fixture(params=REVISIONS)
def revision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def path(revision: str, tmp_path: Path) -> Path:
    """A copy of the stored file."""
    return Path(shutil.copy(OLD / f"schema-{revision}.db", tmp_path / "results.db"))


@pytest.fixture
def words(revision: str) -> dict:
    """What the flowbench of that time read in it."""
    return json.loads((OLD / f"schema-{revision}.json").read_text(encoding="utf-8"))


def plain(found: dict) -> dict:
    """As JSON says it."""
    return json.loads(json.dumps(found))


def ask(path: Path, question: str) -> list:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


def dump(path: Path) -> list[str]:
    """All that is in a database, as statements."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_there_is_a_file_of_every_older_schema() -> None:
    older = [f"{number:04}" for number in range(1, int(schema.HEAD))]
    assert older == REVISIONS
    assert all((OLD / f"schema-{name}.db").stat().st_size < 100_000 for name in older)


def test_it_is_upgraded_after_a_backup_and_says_the_same(
    path: Path, revision: str, words: dict
) -> None:
    before = dump(path)
    store = Store(f"sqlite:///{path}")
    assert plain(read(store)) == words
    store.close()
    backup = path.with_name(f"{path.name}.bak-{revision}")
    version = "select version_num from flowbench_alembic_version"
    assert (ask(path, version), ask(backup, version)) == ([(schema.HEAD,)], [(revision,)])
    assert dump(backup) == before
    assert ask(path, "pragma integrity_check") == [("ok",)]
    assert ask(path, "pragma foreign_key_check") == []
    assert sorted(p.name for p in path.parent.glob("*.bak*")) == [backup.name]
    new = Store("sqlite://")
    with new._database.transaction() as connection:
        names = "select name, sql from sqlite_master where type = 'view' order by name"
        expected = [tuple(row) for row in connection.exec_driver_sql(names)]
    assert ask(path, names) == expected and len(expected) == len(views.texts("sqlite"))
    new.close()


def test_it_is_gone_on_with(path: Path, words: dict) -> None:
    store = Store(f"sqlite:///{path}")
    with store.attempt(SPEC, {"python": "3.12"}, force=True) as attempt:
        attempt.add(Score("fid", 9.0, 1, n=100, goal="min"))
        assert (attempt.id, attempt.number, attempt.generation) == (6, 3, 3)
        assert store.beat([attempt.id]) == set()
    values = [m.score.value for m in store.measured() if m.run == SPEC.name]
    assert values == [9.0]
    assert [t[3:5] for t in plain(read(store))["tried"]][:3] == [[1, "ok"], [2, "ok"], [3, "ok"]]
    board = ask(path, "select value from leaderboard where run = '" + SPEC.name + "'")
    assert board == [(9.0,)]
    assert ask(path, "select count(*) from scores") == [(12,)]
    store.close()


def test_its_dead_worker_is_lost_here_and_watched_elsewhere(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"sqlite:///{path}")
    holder = store.holders([KILLED.key])[KILLED.key]
    assert (holder.here, holder.alive, holder.pid, holder.beats) == (False, None, NOBODY, 0)
    with pytest.raises(Held, match=HOST), store.attempt(KILLED, {}):
        pass
    monkeypatch.setattr(leases, "host", lambda: HOST)
    with store.attempt(KILLED, {}) as attempt:
        assert set(store.done(KILLED, 0)) == {("model", "fid", 1, 100)}
        attempt.add(Score("fid", 5.0, 2, n=100, goal="min"))
    assert [t.outcome for t in store.tried() if t.spec == KILLED] == ["lost", "ok"]
    store.close()


def test_it_is_merged_as_it_is(path: Path, words: dict) -> None:
    before = path.read_bytes()
    rows, store = foreign.read(path), Store("sqlite://")
    assert rows.running == 1
    (told,) = store.merge([Source("old", "database", rows.digest, rows)], lambda told: None)
    assert (told.runs, told.attempts) == (3, 4)
    ended = [row[3:] for row in words["measured"] if row[0] != KILLED.name]
    assert [row[3:] for row in plain(read(store))["measured"]] == ended
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
    store.close()


def test_a_failed_upgrade_changes_nothing(
    path: Path, revision: str, words: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(path)
    monkeypatch.setattr(views, "create", lambda connection: connection.exec_driver_sql("nonsense"))
    with pytest.raises(FlowbenchError, match="syntax error"):
        Store(f"sqlite:///{path}")
    assert dump(path) == before
    monkeypatch.undo()
    store = Store(f"sqlite:///{path}")
    assert plain(read(store)) == words
    store.close()


def test_a_backup_that_cannot_be_made_stops_the_upgrade(
    path: Path, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(path)
    backup = path.with_name(f"{path.name}.bak-{revision}")
    backup.mkdir()
    with pytest.raises(FlowbenchError, match=r"bak-\d+ cannot be written: Is a directory"):
        Store(f"sqlite:///{path}")
    assert dump(path) == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["results.db", backup.name]


UPGRADE = """
store = Store(url)
spec = Spec("lmm", "digits", 10 + number, Budget(10, 2))
with store.attempt(spec, {}) as attempt:
    attempt.add(Score("fid", 1.0, 1))
"""


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_processes_that_upgrade_at_once(start, path: Path, revision: str, words: dict) -> None:
    for process in start(UPGRADE, 3):
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    store = Store(f"sqlite:///{path}")
    assert len(store.tried()) == len(words["tried"]) + 3
    assert ask(path, "pragma integrity_check") == [("ok",)]
    assert len(ask(path.with_name(f"results.db.bak-{revision}"), "select * from attempts")) == 5
    store.close()


def test_a_newer_schema_is_refused_in_one_line(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update flowbench_alembic_version set version_num = '0999'")
    before = dump(path)
    for opening in (Store, Store.open_existing):
        with pytest.raises(FlowbenchError, match=r"schema 0999, but .*`pip install -U") as raised:
            opening(f"sqlite:///{path}")
        assert "\n" not in str(raised.value)
    assert dump(path) == before
    assert not list(path.parent.glob("*.bak*"))


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    store = Store(f"sqlite:///{path}")
    with store.attempt(Spec("lmm", "digits", 0, Budget(1, 1)), {}):
        pass
    store.close()
    assert ask(path, "select version_num from flowbench_alembic_version") == [(schema.HEAD,)]
    assert not list(tmp_path.glob("*.bak*")) and os.path.getsize(path)
