"""`flowbench db`: what it prints, its exit codes, and that nothing is lost on the way."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command

sys.path.insert(0, str(Path(__file__).parent / "store"))

from damaged_files import PAGE, fill, rows

from flowbench.store import Store, schema
from flowbench.store.engine import Database


@pytest.fixture
def older(database):
    """A database as the first flowbench made it, with one run."""
    old = Database(f"sqlite:///{database}")
    with old.transaction(write=True) as connection:
        command.upgrade(schema.configure(connection), "0001")
        connection.exec_driver_sql(
            "insert into runs values (1, 'k', 'n', 'm', 'd', 0, '{}', '2026-01-01')"
        )
    old.close()
    return database


def test_check_of_a_whole_database_says_ok(flowbench, database):
    fill(database, runs=1)
    code, output = flowbench("db", "check")
    assert code == 0 and "every page and index is whole" in output
    code, output = flowbench("db", "check", str(database), "--json")
    found = json.loads(output)
    assert code == 0 and found["ok"] and found["database"] == str(database)
    assert {"pages", "rows", "schema", "views"} <= {row["what"] for row in found["checks"]}


def test_check_with_files_finds_one_that_was_changed(flowbench, database):
    fill(database, runs=1)
    (run,) = rows(database)["runs"].values()
    file = database.parent / "runs" / run["name"] / "network.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"0123456789")  # the size is right, the hash is not
    (file.parent / "train.pt.12.part").write_bytes(b"half")
    code, output = flowbench("db", "check")
    assert code == 0 and "1: " in output and "train.pt.12.part" in output
    code, output = flowbench("db", "check", "--files")
    assert code == 3 and "1 with other content" in output


def test_a_damaged_database_is_told_and_repaired(flowbench, database):
    content = fill(database).read_bytes()
    before = rows(database)
    damaged = content[: 9 * PAGE] + bytes(PAGE) + content[10 * PAGE :]
    database.write_bytes(damaged)
    code, output = flowbench("db", "check")
    assert code == 3 and "problem" in output and "flowbench db repair" in output
    assert database.read_bytes() == damaged
    code, output = flowbench("db", "repair")
    assert code == 0 and "saved" in output and "results.db.damaged-1" in output
    assert (database.parent / "results.db.damaged-1").read_bytes() == damaged
    assert flowbench("db", "check")[0] == 0
    assert all(rows(database)[name].keys() <= before[name].keys() for name in before)
    code, output = flowbench("db", "repair")
    assert (code, output) == (0, f"{database} is whole: nothing to repair\n")


def test_a_file_that_is_no_database_is_left_alone(flowbench, database):
    database.write_text("these are my notes")
    for word in ("check", "repair", "backup"):
        code, output = flowbench("db", word)
        assert code == 3 and "Traceback" not in output
        assert database.read_text() == "these are my notes"
    assert [file.name for file in database.parent.iterdir()] == ["results.db"]


def test_backup_and_its_refusal_to_replace(flowbench, database, tmp_path):
    fill(database, runs=1)
    copy = tmp_path / "copy.db"
    code, output = flowbench("db", "backup", str(database), str(copy))
    assert code == 0 and f"wrote {copy}" in output
    assert rows(copy) == rows(database)
    code, output = flowbench("db", "backup", str(database), str(copy))
    assert code == 2 and "add --force" in output
    assert flowbench("db", "backup", str(database), str(copy), "--force")[0] == 0
    code, output = flowbench("db", "backup", str(database), str(database), "--force")
    assert code == 2 and "is the database itself" in output


def test_an_upgrade_says_from_where_to_where_and_keeps_a_copy(flowbench, older):
    code, output = flowbench("db", "check")
    assert "older than" in output and "flowbench db upgrade" in output
    code, output = flowbench("db", "upgrade")
    kept = f"{older}.bak-0001"
    assert (code, output) == (
        0,
        f"upgraded {older} from schema 0001 to {schema.HEAD}; the one before is {kept}\n",
    )
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("select name from runs").fetchall() == [("n",)]
    code, output = flowbench("db", "upgrade")
    assert code == 0 and "nothing to upgrade" in output


def test_a_newer_schema_is_one_line(flowbench, database):
    fill(database, runs=1)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update flowbench_alembic_version set version_num = '0999'")
    before = database.read_bytes()
    for word, code in (("check", 3), ("repair", 2), ("upgrade", 2)):
        found, output = flowbench("db", word)
        assert found == code and "pip install -U flowbench" in output
        assert database.read_bytes() == before


def test_words_that_name_nothing(flowbench, database):
    for word in ("check", "repair", "backup", "upgrade"):
        code, output = flowbench("db", word)
        assert code == 2 and len(output.splitlines()) == 1, output
        assert not database.exists()
    for word, tool in (("repair", "pg_dump"), ("backup", "pg_dump")):
        code, output = flowbench("db", word, "postgresql://me:secret@nowhere/results")
        assert code == 2 and tool in output and "secret" not in output


def test_a_run_under_way_is_checked_without_harm(flowbench, database):
    fill(database, runs=1)
    store = Store(f"sqlite:///{database}")
    (spec,) = store.specs().values()
    with store.attempt(spec, {}) as attempt:
        assert flowbench("db", "check")[0] == 0
        attempt.note("goes on")
    store.close()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update attempts set outcome = 'running', pid = 999999999 where id = 2")
    code, output = flowbench("db", "check")
    assert code == 0 and "1 of 1 attempts have no process" in output
