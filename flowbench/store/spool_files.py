"""Owns the folder beside a database: a file for each attempt, claimed, ended and put away.

`<key>.<number>.jsonl` is an attempt, `.end` closes it and says how many of its bytes count, and
`.beats` is as long as its worker has beaten. Each is made once, with its content, by one process.
"""

import contextlib
import functools
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowbench import part_files
from flowbench.records import FlowbenchError, RunFailed
from flowbench.store import spool_lines
from flowbench.store.claims import now
from flowbench.store.engine import WAIT
from flowbench.store.spool_lines import Entry, Unusable

LAST = 20  # bits of an id that hold the number of the attempt
HEX = 9  # digits of a key that hold the rest
ATTEMPT, END, BEATS = ".jsonl", ".end", ".beats"
PATIENCE = 5.0  # seconds for a process between making a file and writing its first line
Place = tuple[str, int]  # key of the run, number of the attempt


@dataclass(frozen=True)
class Spooled:
    """An attempt as its files tell it; `size` are the bytes that count."""

    key: str
    number: int
    entry: Entry
    size: int

    @property
    def id(self) -> int:
        return number(self.key, self.number)


def number(key: str, attempt: int) -> int:
    """The id of an attempt in a spool, the same in every process."""
    return (int(key[:HEX], 16) << LAST) | attempt


class Folder:
    """The spool of the database at `file`; nothing is made before something is written."""

    def __init__(self, file: Path):
        file = file.resolve()  # one folder, whatever links lead to the database
        self.path = file.with_name(f"{file.name}.spool")
        self.done = self.path / "ingested"
        self._known: dict[tuple[Place, int, bool], Spooled] = {}

    def make(self) -> None:
        """Make the folders; raises FlowbenchError where that is not possible."""
        try:
            self.done.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlowbenchError(f"{self.path} cannot be written: {error.strerror}") from error

    @contextmanager
    def lock(self, wait: float = WAIT) -> Iterator[None]:
        """Be the only one who changes the database; raises RunFailed after so many seconds."""
        from filelock import Timeout

        self.make()
        try:
            self._lock.acquire(timeout=wait)
        except Timeout:
            raise RunFailed(f"another process is ingesting {self.path}: try again") from None
        except (OSError, NotImplementedError) as error:
            raise RunFailed(f"{self.path} cannot be locked: {error}") from error
        try:
            yield
        finally:
            self._lock.release()

    @functools.cached_property
    def _lock(self) -> Any:
        """The lock, which its holder may take again."""
        from filelock import FileLock  # which readers need not wait for

        return FileLock(self.path / "ingest.lock")

    def file(self, place: Place, end: str = ATTEMPT) -> Path:
        """Where a file of an attempt lies while it is not ingested."""
        return self.path / f"{place[0]}.{place[1]}{end}"

    def places(self, folder: Path | None = None) -> list[Place]:
        """The attempts that have a file there, by default those not ingested, in their order."""
        try:
            names = os.listdir(folder or self.path)
        except FileNotFoundError:
            return []
        found = (name.removesuffix(ATTEMPT).split(".") for name in names if name.endswith(ATTEMPT))
        return sorted(
            (words[0], int(words[1]))
            for words in found
            if len(words) == 2 and len(words[0]) == 64 and words[1].isdecimal()
        )

    def highest(self, key: str) -> int:
        """The last number that an attempt at a run has got, 0 for none."""
        # In this order: what is put away meanwhile is seen in its new place.
        places = [*self.places(), *self.places(self.done)]
        return max((place[1] for place in places if place[0] == key), default=0)

    def find(self, id: int) -> Place | None:
        """The attempt of an id, while it is not ingested."""
        return next((place for place in self.places() if number(*place) == id), None)

    def read(self, place: Place, folder: Path | None = None) -> Spooled | None:
        """An attempt; None where it is not (any more), or not yet, or is unusable."""
        folder = folder or self.path
        end = self._end(folder / f"{place[0]}.{place[1]}{END}")
        try:
            content = (folder / f"{place[0]}.{place[1]}{ATTEMPT}").read_bytes()
        except FileNotFoundError:
            return None
        known = (place, len(content), end is not None)
        if known not in self._known:
            parsed = spool_lines.parsed(content[: (end or {}).get("bytes", len(content))])
            if not parsed.lines and not parsed.broken:
                return None
            row = end and {name: end[name] for name in spool_lines.ENDED}
            entry = spool_lines.entry(parsed, row, f"{place[0]}.{place[1]}{ATTEMPT}")
            if (entry.run["key"], entry.attempt["number"]) != place:
                raise Unusable(f"{place[0]}.{place[1]}{ATTEMPT} has another name")
            self._known[known] = Spooled(*place, entry, parsed.size)
        return self._known[known]

    def _end(self, file: Path) -> dict[str, Any] | None:
        """What closed an attempt; one that a killed process made without content is `lost`."""
        try:
            lines = spool_lines.parsed(file.read_bytes()).lines
        except FileNotFoundError:
            return None
        lost = {"outcome": "lost", "error_type": None, "error_text": None, "ended": now()}
        return lines[0][1] if lines and lines[0][0] == "end" else lost

    def over(self, place: Place) -> str:
        """How an attempt ended, or nothing while it may be written to."""
        end = self._end(self.file(place, END))
        if end is not None:
            return str(end["outcome"])
        return "" if self.file(place).exists() else "ingested"

    def claim(self, place: Place, begun: Any) -> bool:
        """Make the file of an attempt; False where another process has made it."""
        if not self._create(self.file(place), spool_lines.line("begin", begun)):
            return False
        if (self.done / self.file(place).name).exists():
            # One of that number was made, ended and put away since we looked.
            self.file(place).unlink()
            return False
        return True

    def end(self, place: Place, row: dict[str, Any], size: int | None = None) -> bool:
        """Close an attempt, `size` of its bytes or all that are whole; False if it was closed."""
        if self.over(place):
            return False
        if size is None:
            size = spool_lines.parsed(self.file(place).read_bytes()).size
        row = {"error_type": None, "error_text": None, "ended": now()} | row | {"bytes": size}
        return self._create(self.file(place, END), spool_lines.line("end", row))

    def _create(self, target: Path, content: bytes) -> bool:
        """Make a file with its content at once, by a second name for a hidden one."""
        part = self.path / f".{uuid.uuid4().hex}.part"
        try:
            _write(part, content, os.O_EXCL)
            try:
                os.link(part, target)
            except FileExistsError:
                # A server that answers late may have made it at the first asking.
                return part.stat().st_nlink == 2 and part.samefile(target)
            except OSError:
                return self._create_slowly(target, content)
            finally:
                part.unlink()
            part_files.sync(self.path)
        except OSError as error:
            raise RunFailed(f"{target} cannot be written: {error.strerror}") from error
        return True

    def _create_slowly(self, target: Path, content: bytes) -> bool:
        """The same on a file system without second names."""
        try:
            _write(target, content, os.O_EXCL)
        except FileExistsError:
            return False
        return True

    def settle(self, place: Place) -> None:
        """Wait for the first line of an attempt; close one whose process died before it."""
        give_up = time.monotonic() + PATIENCE
        with contextlib.suppress(Unusable):  # which nobody works on
            while not self.over(place) and self.read(place) is None:
                if time.monotonic() > give_up:
                    self.end(place, {"outcome": "lost"}, 0)
                time.sleep(0.05)

    def beat(self, place: Place) -> None:
        """One byte more, so that nobody has to read and write a number at once."""
        try:
            _write(self.file(place, BEATS), b".", os.O_APPEND)
        except OSError as error:
            raise RunFailed(f"{self.path} cannot be written: {error.strerror}") from error

    def beats(self, place: Place) -> int:
        """How often the worker of an attempt has beaten."""
        try:
            with self.file(place, BEATS).open("rb") as file:  # a look alone may be an old one
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return 0

    def put_away(self, place: Place) -> None:
        """Move what is in the database, the attempt before its end; nothing happens twice."""
        for end in (ATTEMPT, END):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.file(place, end), self.done / self.file(place, end).name)
        self.file(place, BEATS).unlink(missing_ok=True)


def _write(path: Path, content: bytes, flag: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o666)
    try:
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
    finally:
        os.close(file)
