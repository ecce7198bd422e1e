"""Owns the repair of an SQLite file: what can be saved becomes a new one, the old one stays."""

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sqlalchemy import insert

from flowbench import part_files
from flowbench.records import FlowbenchError, RunFailed
from flowbench.store import foreign, guard, health, health_salvage
from flowbench.store.engine import Database
from flowbench.store.health_backup import settled
from flowbench.store.health_files import PROBLEM
from flowbench.store.health_salvage import Saved
from flowbench.store.leases import look
from flowbench.store.schema import prepare
from flowbench.store.spool_files import Folder
from flowbench.store.tables import Base

MANY = 1000  # rows in one statement


@dataclass(frozen=True)
class Repaired:
    """What was saved, and where the damaged file is now."""

    saved: Saved
    damaged: Path


def repair(path: Path) -> Repaired:
    """Put a whole database in the place of a damaged one, which stays beside it as it is.

    Raises RunFailed, with nothing changed, where nothing can be saved or a run is under way.
    """
    path = path.resolve()  # a link stays one
    folder = Folder(path)
    with folder.lock() if folder.path.is_dir() else contextlib.nullcontext():
        return _repair(path)


def _repair(path: Path) -> Repaired:
    source = _source(path)
    try:
        content, log = source.read_bytes(), _log(source)
    except OSError as error:
        raise RunFailed(f"{path} cannot be read: {error.strerror}") from error
    saved = health_salvage.salvage(content, log.read_bytes() if log.exists() else b"")
    if not saved.rows["runs"]:
        raise RunFailed(
            f"{path} holds no row of flowbench that can be read: restore it from a backup"
        )
    _refuse_busy(path, saved)
    try:
        with _built(path, saved) as new:
            return Repaired(saved, _replace(path, source, new))
    except OSError as error:
        raise RunFailed(f"{path} was not repaired, and is as it was: {error}") from error


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _source(path: Path) -> Path:
    """The file with its log: a repair that was killed may have put the log aside already."""
    for aside in sorted(path.parent.glob(f"{glob.escape(path.name)}.damaged-*")):
        with contextlib.suppress(OSError):
            if aside.samefile(path):
                return aside
    return path


def _refuse_busy(path: Path, saved: Saved) -> None:
    """Raise RunFailed where a process here still writes to the file."""
    for row in saved.rows["attempts"]:
        if row["outcome"] == "running" and look(row["host"], row["pid"], row["birth"])[1]:
            raise RunFailed(f"{path} is written to by process {row['pid']}: end that first")


@contextmanager
def _built(path: Path, saved: Saved) -> Iterator[Path]:
    """A new database of these rows, proved; it goes away again unless it is moved."""
    part = part_files.beside(path)
    _remove(part)
    try:
        database = Database(f"sqlite:///{part}")
        try:
            prepare(database)
            _fill(database, saved)
        finally:
            database.close()
        settled(part)
        _prove(part)
        yield part
    except FlowbenchError as error:
        raise RunFailed(f"{path} was not repaired, and is as it was: {error}") from error
    finally:
        _remove(part)


def _remove(part: Path) -> None:
    for end in ("", "-wal", "-shm"):
        part.with_name(part.name + end).unlink(missing_ok=True)


def _fill(database: Database, saved: Saved) -> None:
    with database.transaction(write=True) as connection:
        for name in health_salvage.TABLES:
            rows = saved.rows[name]
            for start in range(0, len(rows), MANY):
                table = Base.metadata.tables[name]
                connection.execute(insert(table), rows[start : start + MANY])


def _prove(part: Path) -> None:
    """Raise FlowbenchError unless the new file passes every check."""
    foreign.read(part)
    with foreign.snapshot(part) as connection:
        guard.prove(connection, str(part))
        wrong = [one for one in health.look(connection, part.name) if one.state == PROBLEM]
    if wrong:
        raise FlowbenchError(wrong[0].text)


def _replace(path: Path, source: Path, new: Path) -> Path:
    """Put the damaged file aside with its log, then the new one in its place."""
    damaged = source if source != path else _aside(path)
    log = _log(path)
    if log.exists() and source == path:
        # Copied before it goes: without it the damaged file would be another.
        shutil.copyfile(log, _log(damaged))
        part_files.sync(_log(damaged))
    # SQLite would play an old log into the new file.
    log.unlink(missing_ok=True)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    os.replace(new, path)
    part_files.sync(path.parent)
    return damaged


def _aside(path: Path) -> Path:
    """A second name of the damaged file, or a copy of it where there are no such names."""
    for number in count(1):
        damaged = path.with_name(f"{path.name}.damaged-{number}")
        try:
            os.link(path, damaged)
        except FileExistsError:
            continue
        except OSError:
            if damaged.exists():
                continue
            shutil.copy2(path, damaged)
            part_files.sync(damaged)
        return damaged
    raise AssertionError
