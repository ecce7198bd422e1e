"""Owns the reading of SQLite's pages as bytes: whatever is damaged, all other rows are found.

Nothing in the file is run, neither its triggers nor its expressions; it is not even opened.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flowbench.store import health_wal

LEAF, INTERIOR = 13, 5  # kinds of pages that hold tables
USUAL = 4096  # bytes of a page, unless the header says otherwise
START = 100  # where the first page begins behind the header
LONGEST = 2**26  # bytes of one row
Fits = Callable[[list[Any]], bool]  # whether the values may be a row of a table
FIXED = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}  # bytes by serial type


class Unreadable(Exception):
    """Bytes that are no page, no row, or lead nowhere."""


@dataclass
class Found:
    """The rows of a table by rowid; `pages` that could not be read may have held more."""

    rows: dict[int, list[Any]] = field(default_factory=dict)
    pages: int = 0


class Pages:
    """The pages of a database file, those in its log first; numbers begin at 1."""

    def __init__(self, content: bytes, wal: bytes, size: int, reserved: int):
        self.content, self.size, self.usable = content, size, size - reserved
        self.log = health_wal.read(wal, size)
        self.count = max(self.log.count, -(-len(content) // size))

    def __getitem__(self, number: int) -> bytes:
        """A page; where the file ends early its rest is zero. Raises Unreadable for none."""
        if not 1 <= number <= self.count:
            raise Unreadable(number)
        start = (number - 1) * self.size
        page = self.log.pages.get(number) or self.content[start : start + self.size]
        return page.ljust(self.size, b"\0")

    def kind(self, number: int) -> int:
        """What a page says that it is."""
        return self[number][START if number == 1 else 0]

    def leaves(self, root: int) -> tuple[list[int], int]:
        """The leaves of the tree below `root`, and how many pages of it cannot be read."""
        waiting, seen, found, broken = [root], set[int](), [], 0
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            try:
                kind = self.kind(number)
                waiting += self._children(number) if kind == INTERIOR else []
            except (Unreadable, struct.error):
                kind = 0
            if kind == LEAF:
                found.append(number)
            broken += kind not in (LEAF, INTERIOR)
        return found, broken

    def _children(self, number: int) -> list[int]:
        page, start = self[number], START if number == 1 else 0
        (count,) = struct.unpack_from(">H", page, start + 3)
        (last,) = struct.unpack_from(">I", page, start + 8)
        places = struct.unpack_from(f">{count}H", page, start + 12)
        return [*(struct.unpack_from(">I", page, place)[0] for place in places), last]

    def rows(self, number: int) -> Iterator[tuple[int, list[Any]]]:
        """The rows of a leaf that can be read, with their rowids."""
        page, start = self[number], START if number == 1 else 0
        (count,) = struct.unpack_from(">H", page, start + 3)
        count = min(count, (self.size - start - 8) // 2)
        for place in struct.unpack_from(f">{count}H", page, start + 8):
            try:
                rowid, payload = self._cell(page, place)
                yield rowid, record(payload)
            except (Unreadable, struct.error, IndexError, UnicodeDecodeError):
                continue

    def _cell(self, page: bytes, place: int) -> tuple[int, bytes]:
        """The rowid and the payload of a cell, with what overflows to other pages."""
        length, place = varint(page, place)
        rowid, place = varint(page, place)
        if length > LONGEST:
            raise Unreadable(length)
        inside = self._inside(length)
        payload = page[place : place + inside]
        if inside < length:
            (first,) = struct.unpack_from(">I", page, place + inside)
            payload += self._overflow(first, length - inside)
        return signed(rowid), payload

    def _overflow(self, number: int, length: int) -> bytes:
        """The rest of a payload, page after page."""
        parts, seen = [], set[int]()
        while length > 0:
            if number in seen:
                raise Unreadable("a circle")
            seen.add(number)
            page = self[number]
            number = int.from_bytes(page[:4], "big")
            parts.append(page[4 : self.usable][:length])
            length -= len(parts[-1])
        return b"".join(parts)

    def _inside(self, length: int) -> int:
        """How many bytes of a payload stand on the leaf itself."""
        most = self.usable - 35
        if length <= most:
            return length
        least = (self.usable - 12) * 32 // 255 - 23
        some = least + (length - least) % (self.usable - 4)
        return some if some <= most else least


def varint(page: bytes, place: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, and where it ends."""
    value = 0
    for byte in page[place : place + 8]:
        value, place = (value << 7) | (byte & 127), place + 1
        if byte < 128:
            return value, place
    return (value << 8) | page[place], place + 1


def signed(value: int) -> int:
    """The 64 bits as a number with a sign."""
    return value - 2**64 if value >= 2**63 else value


def record(payload: bytes) -> list[Any]:
    """The values of a row; raises Unreadable where the lengths do not fit."""
    end, place = varint(payload, 0)
    kinds = []
    while place < end:
        kind, place = varint(payload, place)
        kinds.append(kind)
    if place != end:
        raise Unreadable("header")
    values = []
    for kind in kinds:
        length = FIXED.get(kind, (kind - 12) // 2)
        part = payload[place : place + length]
        if kind in (10, 11) or len(part) != length:
            raise Unreadable(kind)
        values.append(_value(kind, part))
        place += length
    if place != len(payload):
        raise Unreadable("length")
    return values


def _value(kind: int, part: bytes) -> Any:
    if kind == 0:
        return None
    if kind == 7:
        return struct.unpack(">d", part)[0]
    if kind < 7:
        return int.from_bytes(part, "big", signed=True)
    if kind < 10:
        return kind - 8
    return part.decode() if kind % 2 else part


def opened(content: bytes, wal: bytes) -> list[Pages]:
    """The file as it may be meant: as its header says, and as it usually is.

    With a damaged header the usual one is right; the caller takes that which holds more.
    """
    size, reserved = USUAL, 0
    if len(content) >= START:
        size = int.from_bytes(content[16:18], "big")
        size, reserved = (65536 if size == 1 else size), content[20]
    good = size >= 512 and size & (size - 1) == 0 and size - reserved >= 480
    forms = {(size, reserved) if good else (USUAL, 0): 0, (USUAL, 0): 0}
    return [Pages(content, wal, *form) for form in forms]


def tables(pages: Pages, fits: dict[str, Fits]) -> dict[str, Found]:
    """The rows of each table of `fits`, which tells by a row's values whether it may be of it.

    Rows of leaves that no tree leads to count where a tree is broken; what a tree leads to wins.
    """
    roots, found = _roots(pages), {}
    leaves = dict[str, list[int]]()
    for name, fit in fits.items():
        leaves[name], missing = pages.leaves(roots.get(name, 0))
        found[name] = Found(pages=missing if name in roots else 0)
        for leaf in leaves[name]:
            found[name].rows |= {rowid: row for rowid, row in pages.rows(leaf) if fit(row)}
    every = [leaf for some in leaves.values() for leaf in some]
    crossed = len(set(every)) < len(every)
    broken = [name for name in fits if crossed or found[name].pages or name not in roots]
    if broken:
        _adopt(pages, {name: found[name] for name in broken}, fits, set(every))
    return found


def _roots(pages: Pages) -> dict[str, int]:
    """By table where its tree begins, as far as that can be read."""
    leaves, _ = pages.leaves(1)
    rows = [row for leaf in leaves for _, row in pages.rows(leaf)]
    return {
        row[1]: row[3]
        for row in rows
        if len(row) == 5 and row[0] == "table" and type(row[3]) is int
    }


def _adopt(pages: Pages, found: dict[str, Found], fits: dict[str, Fits], claimed: set[int]) -> None:
    """Give rows of leaves that belong to nobody to the broken tables that they fit."""
    for number in range(2, pages.count + 1):
        if number in claimed or pages.kind(number) != LEAF:
            continue
        for rowid, row in pages.rows(number):
            for name, mine in found.items():
                if rowid not in mine.rows and fits[name](row):
                    mine.rows[rowid] = row
