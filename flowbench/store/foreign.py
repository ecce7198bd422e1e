"""Owns the look into a database of somebody else: read-only, and nothing in it is believed."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine

from flowbench.records import FlowbenchError
from flowbench.store import guard, portable
from flowbench.store.complaints import told
from flowbench.store.engine import WAIT, reading_uri
from flowbench.store.portable import Rows
from flowbench.store.schema import HEAD, VERSION_TABLE
from flowbench.store.verification import verify

MAGIC = b"SQLite format 3\0"
OLDER = ("0001",)  # revisions without origins
KNOWN = (*OLDER, "0002", HEAD)
TABLES = ("environments", "runs", "attempts", "scores", "artifacts")


def read(path: Path) -> Rows:
    """Every row of the SQLite database at `path`, proved; the file stays as it is.

    Raises FlowbenchError in one line for whatever is wrong with it.
    """
    with snapshot(path) as connection:
        found = _revision(connection, path)
        rows = portable.read(connection, str(path), origins=found not in OLDER)
    verify(rows, str(path))
    return rows


@contextmanager
def snapshot(path: Path) -> Iterator[Connection]:
    """One snapshot of the database."""
    engine = create_engine("sqlite://", creator=lambda: connect(path), poolclass=NullPool)
    with told(path), engine.connect() as connection:
        connection.exec_driver_sql("begin")
        yield connection


def connect(path: Path) -> sqlite3.Connection:
    """A connection that can only read, and that nothing in the file gets to do anything with."""
    connection = sqlite3.connect(reading_uri(path), uri=True, timeout=WAIT, isolation_level=None)
    guard.restrain(connection)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for pragma in ("mmap_size=0", "query_only=on"):
        connection.execute(f"pragma {pragma}")
    # Text that is none is refused later.
    connection.text_factory = lambda content: content.decode(errors="surrogateescape")
    return connection


def _revision(connection: Connection, path: Path) -> str:
    """The age of its schema, if it is whole and has our tables, not views of these names."""
    (state,) = connection.exec_driver_sql("pragma quick_check(1)").one()
    if state != "ok":
        raise FlowbenchError(f"{path} is damaged; restore it from a backup or choose another file")
    _require(connection, path, *TABLES, VERSION_TABLE)
    found = connection.exec_driver_sql(f"select version_num from {VERSION_TABLE}").scalar()
    if found not in KNOWN:
        raise FlowbenchError(
            f"{path} has schema {found!r}, but this flowbench knows only up to {HEAD}: "
            "run `pip install -U flowbench`, or choose another database"
        )
    if found not in OLDER:
        _require(connection, path, "origins")
    return found


def _require(connection: Connection, path: Path, *names: str) -> None:
    """Refuse a database without these tables; views and virtual tables are none."""
    master = "select lower(name) from sqlite_master where type = 'table' and rootpage > 0"
    missing = sorted({*names} - set(connection.exec_driver_sql(master).scalars()))
    if missing:
        raise FlowbenchError(f"{path} is no database of flowbench: it has no table {missing[0]}")
