"""Owns results on a network file system: an SQLite file that is only ever replaced as a whole.

Readers see a copy in memory of that file with the spool beside it; one writer at a time puts a
new file in its place. SQLite's own locks and shared memory are never used there.
"""

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from flowbench import part_files
from flowbench.records import FlowbenchError
from flowbench.store import filesystem, foreign, schema, spool_rows
from flowbench.store.complaints import NOT_OPENED, told
from flowbench.store.engine import Database, ReadOnly
from flowbench.store.spool_files import Folder, Spooled
from flowbench.store.spool_lines import Unusable

ADVICE = (
    "is on a network file system, so attempts are written to {folder} and joined by one process"
    " at a time: a local disk or PostgreSQL is faster"
)


def choose(url: str) -> Database:
    """The database behind a URL, in the way that its file system bears."""
    plain = Database(url)
    if plain.file is None:
        return plain
    folder = Folder(plain.file).path
    word = os.environ.get(filesystem.SETTING) or "auto"
    if filesystem.is_shared(plain.file) or (word == "auto" and folder.is_dir()):
        plain.close()
        return SharedDatabase(url)
    return plain


class SharedDatabase(Database):
    """A database on a network file system."""

    def __init__(self, url: str):
        super().__init__(url)
        assert self.file is not None
        self.path = self.file.resolve()  # a link stays one
        self.folder = Folder(self.path)
        self._copy: Database | None = None
        self._stamp: Any = None
        self._turn, self._looks = threading.RLock(), 0

    @property
    def advice(self) -> str:
        """One line about what would be better."""
        return f"{self.place} {ADVICE.format(folder=self.folder.path)}"

    def create(self) -> None:
        """Make an empty database where none is."""
        if not self.path.exists():
            with self.transaction(write=True):
                pass

    @contextmanager
    def transaction(self, write: bool = False, foreign_keys: bool = True) -> Iterator[Connection]:
        """As of a Database; what is written becomes visible as a new file, or not at all."""
        if not write:
            with self._looking() as copy, copy.transaction(foreign_keys=foreign_keys) as connection:
                yield connection
            return
        with self._writable(), self.folder.lock():
            draft, older = self._load(settle=True)
            try:
                with draft.transaction(True, foreign_keys) as connection:
                    yield connection
                self._publish(draft, older)
            finally:
                draft.close()

    @contextmanager
    def _looking(self) -> Iterator[Database]:
        """The copy for one thread at a time; while it is looked at it stays as it is."""
        with self._turn:
            if not self._looks:
                self._refresh()
            assert self._copy is not None
            self._looks += 1
            try:
                yield self._copy
            finally:
                self._looks -= 1

    def pending(self) -> list[Spooled]:
        """The attempts in the spool, in the order of their numbers; unusable files are left out."""
        found = []
        for place in self.folder.places():
            try:
                one = self.folder.read(place)
            except Unusable:
                continue
            found += [one] if one is not None else []
        return found

    def _refresh(self) -> None:
        """Read anew what has changed: first the spool, because things move from there to here."""
        pending = self.pending()
        seen = [(one.key, one.number, one.size, one.entry.end is not None) for one in pending]
        stamp = (seen, _state(self.path))
        if stamp == self._stamp and self._copy is not None:
            return
        self.close()
        copy, _ = self._load()
        with copy.transaction(write=True) as connection:
            for one in pending:
                spool_rows.insert(connection, one.entry, one.id)
        self._copy, self._stamp = copy, stamp

    def _load(self, settle: bool = False) -> tuple[Database, str]:
        """The file in memory at today's schema, and the older schema that it has, if it has."""
        draft, older = Database("sqlite://"), ""
        draft.place = self.place
        if self.path.exists():
            with told(self.place):
                if settle:
                    _settle(self.path)
                _read(self.path, draft)
            with draft.transaction() as connection:
                found = schema.revision(connection)
            older = found if found is not None and found != schema.HEAD else ""
        schema.prepare(draft)
        return draft, older

    def _publish(self, draft: Database, older: str) -> None:
        """Put a new file in the place of the old, which is kept where it had another schema."""
        raw: Any = draft._engine.raw_connection()
        content = bytearray(raw.driver_connection.serialize())
        raw.close()
        content[18:20] = b"\1\1"  # no log beside it, whatever the file had before
        if older:
            shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.bak-{older}"))
        part_files.replace(self.path, content)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        if not self.path.parent.is_dir():
            raise FlowbenchError(f"{self.place} {NOT_OPENED}")
        try:
            yield
        except OSError as error:
            raise ReadOnly(f"{self.place} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Forget the copy; the next question makes a new one."""
        super().close()
        if self._copy is not None:
            self._copy.close()
            self._copy = None


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells one file at that place from the next."""
    try:
        os.listdir(path.parent)  # so that a client of a server looks anew
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path, draft: Database) -> None:
    """Copy a file into memory; it is not locked, because nobody changes it."""
    raw: Any = draft._engine.raw_connection()
    with closing(foreign.connect(path)) as source:
        source.backup(raw.driver_connection)
    raw.close()


def _settle(path: Path) -> None:
    """Take in the log of a time when the file was on a local disk; without shared memory."""
    if not path.with_name(f"{path.name}-wal").exists():
        return
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma locking_mode=exclusive")
        connection.execute("pragma journal_mode=delete")
