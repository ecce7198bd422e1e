"""Check, backup and repair: what is damaged is told in a line, what is whole is kept."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from damaged_files import PAGE, fill, flipped, left, on_pages, outcome, rows
from stored_rows import MACHINE, score, spec

from flowbench.records import FlowbenchError, RunFailed
from flowbench.store import (
    Store,
    health,
    health_backup,
    health_repair,
    health_salvage,
    health_wal,
    schema,
)
from flowbench.store.tables import Base


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A database that nobody may change."""
    return fill(tmp_path_factory.mktemp("whole") / "results.db")


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copy(whole, tmp_path / "results.db"))


def saved(content, log=b""):
    """What a repair would keep, in the form of `rows`."""
    found = health_salvage.salvage(content, log).rows
    plain = {}
    for table, some in found.items():
        first = next(iter(Base.metadata.tables[table].columns)).name
        plain[table] = {row[first]: row for row in some}
    return plain


def decoded(found):
    """Rows with their JSON read, as the models have them."""
    names = {"json", "spec", "notes", "protocol"}
    return {
        table: {
            key: {n: json.loads(v) if n in names else v for n, v in row.items()}
            for key, row in some.items()
        }
        for table, some in found.items()
    }


def states(path):
    return {one.what: one.state for one in health.check(f"sqlite:///{path}", path.parent / "runs")}


def test_a_whole_database_has_no_problem_and_is_left_alone(copy):
    before = copy.read_bytes()
    assert set(states(copy).values()) == {"ok", "note"}
    assert states(copy)["files"] == "note"
    assert copy.read_bytes() == before
    assert [file.name for file in copy.parent.iterdir()] == ["results.db"]


def test_everything_is_read_from_the_bytes_alone(whole):
    assert saved(whole.read_bytes()) == decoded(rows(whole))


def test_what_is_only_in_the_log_is_read_too(tmp_path):
    path = tmp_path / "results.db"
    store = Store(f"sqlite:///{path}")  # stays open, so that nothing is moved out of the log
    fill(tmp_path / "other.db", runs=1)
    fill(path, runs=1)
    log = (tmp_path / "results.db-wal").read_bytes()
    assert len(path.read_bytes()) <= PAGE < len(log)
    assert saved(path.read_bytes(), log) == decoded(rows(path))
    store.close()


def test_a_page_of_zeros_costs_the_rows_on_it_and_no_other(whole):
    content, there = whole.read_bytes(), on_pages(whole)
    if there is None:
        pytest.skip("this SQLite does not tell which page holds what")
    assert len(there) > 10
    for page in range(1, len(content) // PAGE + 1):
        start = (page - 1) * PAGE
        damaged = content[:start] + bytes(PAGE) + content[start + PAGE :]
        hit = set(there.get(page, []))
        assert saved(damaged) == decoded(left(rows(whole), hit)), page


def test_a_file_cut_anywhere_keeps_what_came_before(whole):
    content, there = whole.read_bytes(), on_pages(whole)
    if there is None:
        pytest.skip("this SQLite does not tell which page holds what")
    random, original = Random(1), decoded(rows(whole))
    for length in sorted(random.sample(range(1, len(content)), 12)):
        hit = {row for page, some in there.items() if page * PAGE > length for row in some}
        found, expected = saved(content[:length]), decoded(left(rows(whole), hit))
        for table, kept in expected.items():
            assert expected[table].items() <= found[table].items() or table == "attempts"
            assert kept.keys() <= found[table].keys() <= original[table].keys()


def test_flipped_bits_cost_at_most_the_rows_of_their_page(whole):
    content, there = whole.read_bytes(), on_pages(whole)
    if there is None:
        pytest.skip("this SQLite does not tell which page holds what")
    for seed in range(25):
        damaged = flipped(content, seed)
        place = next(i for i, byte in enumerate(content) if damaged[i] != byte)
        hit = set(there.get(place // PAGE + 1, []))
        expected, found = decoded(left(rows(whole), hit)), saved(damaged)
        for table, kept in expected.items():
            for key, row in kept.items():
                # An attempt keeps its environment where that row was spared by the damage.
                spared = {n: found[table][key][n] for n in ("environment",) if n in row}
                assert found[table][key] == row | spared


@pytest.mark.parametrize("seed", range(8))
def test_a_repair_ends_whole_or_in_one_line_and_changes_nothing_damaged(copy, seed):
    random, content = Random(seed), copy.read_bytes()
    kinds = [
        lambda: flipped(content, seed, bits=300),
        lambda: content[: random.randrange(len(content))],
        lambda: random.randbytes(5000),
        lambda: content[: 2 * PAGE] + random.randbytes(PAGE) + content[3 * PAGE :],
    ]
    damaged = kinds[seed % 4]()
    copy.write_bytes(damaged)
    done = outcome(lambda: health_repair.repair(copy))
    if isinstance(done, FlowbenchError):
        assert copy.read_bytes() == damaged
        assert [file.name for file in copy.parent.iterdir()] == ["results.db"]
        return
    assert done.damaged.read_bytes() == damaged
    assert "problem" not in states(copy).values()
    assert {file.name for file in copy.parent.iterdir()} == {"results.db", "results.db.damaged-1"}
    store = Store(f"sqlite:///{copy}")
    assert len(store.tried()) == len(done.saved.rows["attempts"])
    store.close()


def test_a_link_stays_a_link(copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "mine.db"
    copy.rename(real)
    copy.symlink_to(real)
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("drop view costs")
    assert health_repair.repair(copy).damaged == real.with_name("mine.db.damaged-1").resolve()
    assert copy.is_symlink() and "problem" not in states(copy).values()


def test_random_bytes_are_refused_in_one_line(copy):
    copy.write_bytes(Random(0).randbytes(9000))
    with pytest.raises(RunFailed, match="holds no row of flowbench that can be read"):
        health_repair.repair(copy)


def test_a_log_torn_in_its_last_commit_keeps_all_before(tmp_path):
    path = tmp_path / "results.db"
    store = Store(f"sqlite:///{path}")
    fill(path, runs=1, scores=4)
    before, early = rows(path), (tmp_path / "results.db-wal").read_bytes()
    fill(tmp_path / "other.db", runs=1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update scores set value = 7.5")
    log = (tmp_path / "results.db-wal").read_bytes()
    store.close()
    assert log.startswith(early) and len(log) > len(early)
    for length in (len(early), len(early) + 10, len(log) - PAGE, len(log) - 1):
        assert saved(b"", log[:length])["scores"] == decoded(before)["scores"]
    assert {row["value"] for row in saved(b"", log)["scores"].values()} == {7.5}


def test_a_log_damaged_in_the_middle_is_noticed_and_read_on(tmp_path):
    path, log = tmp_path / "results.db", tmp_path / "results.db-wal"
    store = Store(f"sqlite:///{path}")
    fill(path, runs=2)
    whole, content = path.read_bytes(), bytearray(log.read_bytes())
    all_rows = decoded(rows(path))
    store.close()
    frame = PAGE + health_wal.FRAME
    # A page of the first run's scores, written again by later commits.
    content[health_wal.HEADER + 60 * frame + 2000] ^= 1
    assert health_wal.read(bytes(content), PAGE).damaged
    assert saved(whole, bytes(content)) == all_rows
    path.write_bytes(whole)
    log.write_bytes(content)
    assert states(path)["log"] == "problem"
    damaged = health_repair.repair(path).damaged
    assert decoded(rows(path)) == all_rows
    assert damaged.with_name(f"{damaged.name}-wal").read_bytes() == bytes(content)
    assert "problem" not in states(path).values()


def test_a_repair_that_was_killed_before_the_end_finds_the_log_again(tmp_path, monkeypatch):
    path = tmp_path / "results.db"
    store = Store(f"sqlite:///{path}")
    fill(path, runs=1)
    whole, log = path.read_bytes(), (tmp_path / "results.db-wal").read_bytes()
    all_rows = decoded(rows(path))
    store.close()
    path.write_bytes(whole)
    (tmp_path / "results.db-wal").write_bytes(log)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(health_repair.os, "replace", killed)
        health_repair.repair(path)
    assert path.read_bytes() == whole and not (tmp_path / "results.db-wal").exists()
    assert health_repair.repair(path).damaged.name == "results.db.damaged-1"
    assert decoded(rows(path)) == all_rows


def test_a_file_that_a_run_writes_to_is_not_repaired(copy, tmp_path):
    spec = next(iter(Store.open_existing(f"sqlite:///{copy}").specs().values()))
    store = Store(f"sqlite:///{copy}")
    with store.attempt(spec, {}), pytest.raises(RunFailed, match="written to by process"):
        health_repair.repair(copy)
    store.close()


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("update scores set fingerprint = 'aaaaaaaaaaaaaaaa' where id = 5", "rows"),
        ("delete from runs where id = 2", "references"),
        ("drop view costs", "views"),
        ("create trigger t after insert on scores begin select 1; end", "triggers"),
        ("drop table artifacts", "schema"),
        ("update runs set name = 'other' where id = 2", "rows"),
        ("update runs set key = replace(key, 'a', 'b') where id = 2", "rows"),
    ],
)
def test_a_check_names_what_is_wrong_and_a_repair_mends_it(copy, statement, what):
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("pragma foreign_keys=off")
        if statement == "drop table artifacts":
            for view in ("costs", "method_by_nfe", "leaderboard", "failures"):
                connection.execute(f"drop view {view}")
        connection.execute(statement)
    assert states(copy)[what] == "problem"
    before = rows(copy) if what != "schema" else None
    health_repair.repair(copy)
    assert "problem" not in states(copy).values()
    if what in ("views", "triggers"):
        assert rows(copy) == before
    if what == "references":
        assert len(rows(copy)["attempts"]) == 5 and len(rows(copy)["scores"]) == 150


def test_a_backup_while_others_write_is_one_moment(copy):
    store = Store(f"sqlite:///{copy}")
    spec = next(iter(store.specs().values()))
    with store.attempt(spec, {}) as attempt:
        attempt.note("first")
        target, count = health_backup.backup(copy)
        attempt.note("second")
    store.close()
    assert target.name == "results.db.backup-1"
    found = rows(target)
    assert json.loads(list(found["attempts"].values())[-1]["notes"]) == ["first"]
    assert count == sum(map(len, found.values())) + 1  # the revision
    assert health_backup.backup(copy)[0].name == "results.db.backup-2"


def test_a_backup_replaces_nothing_and_copies_no_damage(copy, tmp_path):
    target = tmp_path / "mine.db"
    target.write_text("mine")
    with pytest.raises(FlowbenchError, match="is there already"):
        health_backup.backup(copy, target)
    assert target.read_text() == "mine"
    content = copy.read_bytes()
    copy.write_bytes(content[: 5 * PAGE] + bytes(PAGE) + content[6 * PAGE :])
    with pytest.raises(RunFailed):
        health_backup.backup(copy, target, force=True)
    assert target.read_text() == "mine"
    copy.write_bytes(content)
    health_backup.backup(copy, target, force=True)
    assert rows(target) == rows(copy)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.db", "results.db"]


def test_a_server_is_looked_at_as_far_as_that_goes(server, tmp_path):
    place = server.new()
    store = Store(place)
    with store.attempt(spec("cfm"), MACHINE) as attempt:
        attempt.add(score(1.5))
    store.close()
    found = {one.what: one for one in health.check(place, tmp_path)}
    assert {one.state for one in found.values()} == {"ok"}
    assert "left to the server" in found["pages"].text and "1 runs" in found["rows"].text
    assert health_backup.upgrade(place) == (schema.HEAD, schema.HEAD, None)
