"""The age of the schema: creation, upgrade with a backup, refusal."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from flowbench.records import FlowbenchError, Score, Spec
from flowbench.store import Store, schema
from flowbench.store.engine import Database
from flowbench.store.tables import Base

NEXT = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "0004", "0003"

def upgrade():
    with op.batch_alter_table("runs", recreate="always") as batch:
        batch.add_column(sa.Column("extra", sa.Text(), server_default="new", nullable=False))
    op.execute("{statement}")
"""


def write_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Play a later version of flowbench, which has one revision more."""
    scripts = tmp_path / "scripts"
    shutil.copytree(Path(schema.__file__).parent / "migrations", scripts)
    (scripts / "versions" / "r0004_next.py").write_text(NEXT.format(statement=statement))
    monkeypatch.setattr(schema, "SCRIPTS", str(scripts))
    monkeypatch.setattr(schema, "HEAD", "0004")


def fill(url: str, spec: Spec) -> None:
    store = Store(url)
    with store.attempt(spec, {"python": "3.11"}) as attempt:
        attempt.add(Score("fid", 1.0))
    store.close()


def ask(path: Path, question: str) -> list:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


def migrated(connection: Connection) -> Connection:
    command.upgrade(schema.configure(connection), "head")
    return connection


def test_head_is_the_head_of_the_migrations() -> None:
    with Database("sqlite://").transaction() as connection:
        scripts = ScriptDirectory.from_config(schema.configure(connection))
    assert scripts.get_heads() == [schema.HEAD]


def test_migrations_lead_to_the_models() -> None:
    with Database("sqlite://").transaction(write=True) as connection:
        context = MigrationContext.configure(
            migrated(connection), opts={"version_table": schema.VERSION_TABLE}
        )
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize("what", ["check_constraints", "foreign_keys", "pk_constraint", "indexes"])
def test_migrations_and_models_name_the_same_constraints(what: str) -> None:
    found = []
    for build in (migrated, Base.metadata.create_all):
        with Database("sqlite://").transaction(write=True) as connection:
            build(connection)
            look = getattr(inspect(connection), f"get_{what}")
            found.append({table: look(table) for table in Base.metadata.tables})
    assert found[0] == found[1]
    assert any(found[0].values())


def test_a_new_file_is_stamped(store: Store, tmp_path: Path) -> None:
    stamped = ask(tmp_path / "results.db", "select version_num from flowbench_alembic_version")
    assert stamped == [(schema.HEAD,)]


def test_alembic_is_not_imported_to_create_or_open(url: str) -> None:
    code = f"""
import sys
from flowbench.store import Store
Store({url!r}).close()
Store({url!r}).close()
print("alembic" in sys.modules)
"""
    root = str(Path(schema.__file__).parents[2])
    answer = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert (answer.stdout, answer.stderr) == ("False\n", "")


def test_a_newer_schema_is_refused(url: str, tmp_path: Path, spec: Spec) -> None:
    fill(url, spec)
    with closing(sqlite3.connect(tmp_path / "results.db")) as connection, connection:
        connection.execute("update flowbench_alembic_version set version_num = '0999'")
    for opening in (Store, Store.open_existing):
        with pytest.raises(FlowbenchError) as raised:
            opening(url)
        for words in ("schema 0999", f"up to {schema.HEAD}", "pip install -U flowbench"):
            assert words in str(raised.value)
    assert ask(tmp_path / "results.db", "select count(*) from scores") == [(1,)]
    assert not list(tmp_path.glob("*.bak*"))


def test_an_upgrade_keeps_everything_and_a_backup(
    url: str, tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(url, spec)
    write_next(tmp_path, monkeypatch, "select 1")
    store = Store(url)
    assert [found.score for found in store.measured()] == [Score("fid", 1.0)]
    with store.attempt(spec, {}) as attempt:
        attempt.add(Score("kid", 1.0))
    assert len(store.measured()) == 2
    store.close()

    new, old = tmp_path / "results.db", tmp_path / "results.db.bak-0003"
    version = "select version_num from flowbench_alembic_version"
    assert (ask(new, version), ask(old, version)) == ([("0004",)], [("0003",)])
    assert ask(new, "select extra from runs") == [("new",)]
    assert ask(old, "select count(*) from scores") == [(1,)]
    assert "extra" not in ask(old, "select sql from sqlite_master where name = 'runs'")[0][0]
    assert ask(new, "pragma foreign_key_check") == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [("insert into nowhere values (1)", "nowhere"), ("delete from runs", "1 rows lost")],
)
def test_a_failed_upgrade_changes_nothing(
    url: str,
    tmp_path: Path,
    spec: Spec,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    words: str,
) -> None:
    fill(url, spec)
    before = ask(tmp_path / "results.db", "select sql from sqlite_master")
    write_next(tmp_path, monkeypatch, statement)
    with pytest.raises(FlowbenchError, match=words):
        Store(url)
    monkeypatch.undo()
    assert ask(tmp_path / "results.db", "select sql from sqlite_master") == before
    store = Store(url)
    assert len(store.measured()) == 1
    store.close()
