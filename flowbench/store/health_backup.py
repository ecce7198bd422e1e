"""Owns the copy of a database that others write to, and the upgrade behind such a copy."""

import os
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path

from flowbench import part_files
from flowbench.records import Absent, FlowbenchError, RunFailed
from flowbench.store import foreign, schema, spool
from flowbench.store.complaints import told
from flowbench.store.engine import Database
from flowbench.store.schema import VERSION_TABLE
from flowbench.store.spool import SharedDatabase
from flowbench.store.tables import Base

NAMES = (*Base.metadata.tables, VERSION_TABLE)


def backup(path: Path, target: Path | None = None, force: bool = False) -> tuple[Path, int]:
    """Copy one moment of the SQLite file at `path`; returns where to, and how many rows it has.

    Without a `target` it is the first free `.backup-N` beside it. Raises FlowbenchError where a
    file is there already, unless `force`; RunFailed where the copy is not as the original.
    """
    chosen = target or _free(path)
    if chosen.exists() and not force:
        raise FlowbenchError(f"{chosen} is there already: name another file, or add --force")
    if chosen.exists() and chosen.samefile(path):
        raise FlowbenchError(f"{chosen} is the database itself: name another file")
    part = part_files.beside(chosen)
    try:
        with told(path, RunFailed):
            rows = _copy(path, part)
        _place(part, chosen, force)
    except OSError as error:
        raise RunFailed(f"{chosen} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return chosen, rows


def _free(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.backup-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


def _copy(path: Path, part: Path) -> int:
    """Write a proved copy to `part`; returns its rows."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with closing(foreign.connect(path)) as source:
        source.execute("begin")  # the copy shows the same moment as the counts
        before = counts(source)
        with closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
    settled(part)
    with closing(foreign.connect(part)) as copy:
        state = [row[0] for row in copy.execute("pragma integrity_check(1)")]
        after = counts(copy)
    if state != ["ok"]:
        raise RunFailed(f"{path} is damaged, so there is no backup: see `flowbench db repair`")
    if after != before:
        raise RunFailed(f"the copy of {path} has other rows than it: try again")
    return sum(after.values())


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows each of flowbench's tables has."""
    query = "select name from sqlite_master where type = 'table' and rootpage > 0"
    names = {name for (name,) in connection.execute(query)} & set(NAMES)
    return {
        name: connection.execute(f'select count(*) from "{name}"').fetchone()[0]
        for name in sorted(names)
    }


def settled(path: Path) -> None:
    """Make an SQLite file whole without a log beside it, and wait until it is on the disk."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=delete")
    part_files.sync(path)


def _place(part: Path, target: Path, force: bool) -> None:
    """Give the copy its name; another file that has got it meanwhile stays."""
    if force:
        os.replace(part, target)
        return
    try:
        os.link(part, target)
    except FileExistsError:
        raise FlowbenchError(f"{target} is there already: name another file") from None
    except OSError:  # a file system without links
        os.rename(part, target)


def _revision(database: Database) -> str | None:
    """What is in the file itself, or on the server."""
    if isinstance(database, SharedDatabase):
        with foreign.snapshot(database.path) as connection:
            return schema.revision(connection)
    with database.transaction() as connection:
        return schema.revision(connection)


def upgrade(url: str) -> tuple[str, str, Path | None]:
    """Bring a database to today's schema: (from, to, backup), the last where one was made.

    Raises FlowbenchError for a database that is newer, or holds no results.
    """
    database = spool.choose(url)
    if database.file is not None and not database.file.exists():
        raise Absent(f"no results yet in {database.place}: there is nothing to upgrade")
    try:
        found = _revision(database)
        if found is None:
            raise FlowbenchError(f"{database.place} holds no results of flowbench")
        if found == schema.HEAD:
            return found, found, None
        if isinstance(database, SharedDatabase):
            with database.transaction(write=True):
                pass
        else:
            schema.prepare(database)
    finally:
        database.close()
    file = database.file
    return found, schema.HEAD, file and file.with_name(f"{file.name}.bak-{found}")
