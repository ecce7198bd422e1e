"""Owns the age of the schema: creates it, upgrades an older one, refuses an unknown one."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    String,
    Table,
    func,
    insert,
    inspect,
    select,
    update,
)

from flowbench.records import FlowbenchError
from flowbench.store import views
from flowbench.store.engine import Database
from flowbench.store.tables import Base

if TYPE_CHECKING:
    from alembic.config import Config

# The newest revision, written here so that opening a current database never imports Alembic.
HEAD = "0003"
FIRST = "0001"  # which had no views, so those in it are the user's
SCRIPTS = "flowbench.store:migrations"
# Not "alembic_version", which another tool may keep in the same database.
VERSION_TABLE = "flowbench_alembic_version"
LOCK = 7309876  # any number, as long as every process takes the same advisory lock

# Apart from `Base.metadata`, because Alembic regards this table as its own.
_versions = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), primary_key=True),
)


def prepare(database: Database) -> None:
    """Bring the schema to `HEAD`, whoever else is trying the same at this moment.

    Raises FlowbenchError for a schema that this version does not know.
    """
    with database.transaction() as connection:
        if revision(connection) == HEAD:
            return
    # Foreign keys stay off, because a migration may have to rebuild a table others refer to.
    with database.transaction(write=True, foreign_keys=False) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        found = revision(connection)
        if found is None:
            _create(connection)
        elif found != HEAD:
            _upgrade(connection, found, database)


def revision(connection: Connection) -> str | None:
    """Read the stored revision; None in a database without one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(_versions.c.version_num))


def _create(connection: Connection) -> None:
    Base.metadata.create_all(connection, checkfirst=False)
    _versions.create(connection)
    connection.execute(insert(_versions).values(version_num=HEAD))
    views.create(connection)


def configure(connection: Connection) -> "Config":
    """Prepare Alembic to run the migrations of this package inside the open transaction."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", SCRIPTS)
    return config


def _upgrade(connection: Connection, found: str, database: Database) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = configure(connection)
    scripts = ScriptDirectory.from_config(config)
    if found not in {script.revision for script in scripts.walk_revisions()}:
        raise FlowbenchError(
            f"{database.place} has schema {found}, but this flowbench knows only up to {HEAD}: "
            "run `pip install -U flowbench`, or choose another database"
        )
    if database.file is not None:
        # A read-only file refuses this, before there is a backup that nobody needs.
        connection.execute(update(_versions).values(version_num=found))
        _back_up(database.file, found)
    if found != FIRST:
        views.drop(connection)
    command.upgrade(config, HEAD)
    views.create(connection)
    _check_references(connection, database)


def _back_up(file: Path, found: str) -> None:
    """Copy the state before the upgrade, which a second connection still sees."""
    backup = file.with_name(f"{file.name}.bak-{found}")
    part = backup.with_name(f"{backup.name}.part")
    try:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        part.replace(backup)  # a backup of that name is whole
    except OSError as error:
        raise FlowbenchError(f"{backup} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _check_references(connection: Connection, database: Database) -> None:
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("pragma foreign_key_check").all()
    if broken:
        raise FlowbenchError(
            f"{database.place} was not upgraded: {len(broken)} rows lost their owner"
        )
