"""Owns the connection: which database a URL means, its transactions, its errors in words."""

import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from flowbench.records import FlowbenchError, RunFailed
from flowbench.store import guard
from flowbench.store.complaints import (
    ADVICE,
    NO_ROOM,
    NOT_OPENED,
    READ_ONLY,
    SECRETS,
    complaint,
    shown,
    shown_text,
)

WAIT = 30  # seconds for a lock, unless the URL says otherwise: sqlite:///results.db?timeout=5


class ReadOnly(FlowbenchError):
    """A database that would have to be written and cannot be."""


class Database:
    """One results database, reached only through `transaction`."""

    def __init__(self, url: str):
        """Parse `url` without connecting yet.

        Raises FlowbenchError for a URL that names no SQLite or PostgreSQL database.
        """
        parsed = _parse(url)
        self.file = _file(parsed)
        self.place = str(self.file or shown(parsed))
        self._engine = _engine(parsed, in_memory=self.file is None)
        self._open: list[tuple[int, Connection]] = []  # with the thread that uses it
        # The last connection takes the journal away, also where nobody looks for garbage at exit.
        weakref.finalize(self, self._engine.dispose)

    @contextmanager
    def transaction(self, write: bool = False, foreign_keys: bool = True) -> Iterator[Connection]:
        """Open, then commit or roll back; `write` takes the write lock before the first read.

        Raises FlowbenchError for whatever the driver complains about.
        """
        begin = "immediate" if write else "deferred"
        keys = "on" if foreign_keys else "off"
        try:
            with self._engine.connect() as connection:
                connection.execution_options(sqlite_begin=begin, sqlite_foreign_keys=keys)
                own = (get_ident(), connection)
                self._open.append(own)
                try:
                    with connection.begin():
                        yield connection
                finally:
                    self._open.remove(own)
        except (SQLAlchemyError, sqlite3.Error, OverflowError, UnicodeError) as error:
            words = complaint(error)
            raise self._kind(words)(f"{self.place} {words}") from error

    def release(self) -> None:
        """Roll back what a signal has broken off in this thread before its block was entered.

        The error at hand keeps such a transaction alive, and the write lock with it.
        """
        for thread, connection in list(self._open):
            if thread == get_ident():
                connection.close()

    def _kind(self, words: str) -> type[FlowbenchError]:
        """The class that these words mean; a folder without rights lets no file in it be opened."""
        here = self.file is not None and os.access(self.file, os.R_OK)
        if words == READ_ONLY or (words == NOT_OPENED and here):
            return ReadOnly
        return RunFailed if words in NO_ROOM else FlowbenchError

    def in_memory(self) -> "Database":
        """A copy in memory of an SQLite file, for one that may not be changed."""
        assert self.file is not None
        copy = Database("sqlite://")
        copy.place = self.place
        with closing(sqlite3.connect(reading_uri(self.file), uri=True)) as source:
            target: Any = copy._engine.raw_connection()
            source.backup(target.driver_connection)
            target.close()
        return copy

    def freeze(self) -> None:
        """Refuse to write from now on."""
        connection: Any = self._engine.raw_connection()
        connection.driver_connection.execute("pragma query_only=on")
        connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()


def reading_uri(path: Path) -> str:
    """The URI under which SQLite reads a file and leaves nothing beside it."""
    # Nobody writes to a file without a journal beside it.
    journals = (path.with_name(path.name + end) for end in ("-wal", "-journal"))
    still = "" if any(journal.exists() for journal in journals) else "&immutable=1"
    return f"{path.resolve().as_uri()}?mode=ro{still}"


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        words = shown_text(text)
        raise FlowbenchError(f'"{words}" is not a database URL; {ADVICE}') from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise FlowbenchError(f"a {url.get_backend_name()} database cannot hold results; {ADVICE}")
    if url.drivername == "postgresql":  # the default driver differs between SQLAlchemy releases
        url = url.set(drivername="postgresql+psycopg")
    return url


def _file(url: URL) -> Path | None:
    """The SQLite file that `url` names; None in memory or on a server."""
    name = (url.database or "").removeprefix("file:")
    on_disk = name not in ("", ":memory:") and url.query.get("mode") != "memory"
    return Path(name) if on_disk and url.get_backend_name() == "sqlite" else None


def _engine(url: URL, in_memory: bool) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            # A connection may idle for hours of training, and be cut meanwhile.
            secrets = {name: url.query[name] for name in url.query if name.lower() in SECRETS}
            url = url.difference_update_query(secrets)  # for representations show the rest
            return create_engine(url, pool_pre_ping=True, connect_args=secrets)
        engine = _sqlite_engine(url, in_memory)
    except ImportError as error:
        advice = 'pip install "psycopg[binary]"'
        raise FlowbenchError(f"the driver for {url.drivername} is missing: {advice}") from error
    except (ArgumentError, ValueError, TypeError):
        raise FlowbenchError(f'"{shown(url)}" is not a usable database URL; {ADVICE}') from None
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _sqlite_engine(url: URL, in_memory: bool) -> Engine:
    unknown = sorted(set(url.query) - {"timeout"})
    if unknown and "uri" not in url.query:  # a file:... URI has many more
        raise ValueError(unknown)
    arguments: dict[str, Any] = {} if "timeout" in url.query else {"timeout": WAIT}
    if not in_memory:
        return create_engine(url, connect_args=arguments)
    # Every new connection to memory would be a new database, so there is only one.
    arguments["check_same_thread"] = False
    return create_engine(url, connect_args=arguments, poolclass=StaticPool)


def _on_connect(connection: Any, _record: object) -> None:
    guard.restrain(connection)
    # The driver would begin transactions late and never IMMEDIATE; `_on_begin` does it instead.
    connection.isolation_level = None
    # A read-only file that is in WAL mode already can still be read.
    if connection.execute("pragma journal_mode").fetchone() != ("wal",):
        _enter_wal(connection)
    connection.execute("pragma synchronous=normal")


def _enter_wal(connection: Any) -> None:
    """Let readers and a writer work at once; SQLite itself does not wait for a lock here."""
    (milliseconds,) = connection.execute("pragma busy_timeout").fetchone()
    give_up = time.monotonic() + milliseconds / 1000
    while True:
        try:
            connection.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _on_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    # Inside a transaction this pragma would do nothing, so it is set before each.
    connection.exec_driver_sql(f"pragma foreign_keys={options['sqlite_foreign_keys']}")
    connection.exec_driver_sql(f"begin {options['sqlite_begin']}")
