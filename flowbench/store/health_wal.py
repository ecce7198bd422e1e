"""Owns the reading of SQLite's write-ahead log as bytes: which pages its commits brought."""

import struct
from dataclasses import dataclass, field

MAGIC = (0x377F0682, 0x377F0683)  # the second has checksums over big-endian words
HEADER, FRAME = 32, 24  # bytes
MODULUS = 2**32


@dataclass
class Log:
    """The newest committed content of each page; `count` is how many pages the database has.

    `damaged` tells that a frame is broken although whole ones of the same log come after it, so
    SQLite would forget those.
    """

    pages: dict[int, bytes] = field(default_factory=dict)
    count: int = 0
    damaged: bool = False


def read(content: bytes, size: int) -> Log:
    """The log for pages of `size` bytes; what was torn off at its end was never committed."""
    if len(content) < HEADER:
        return Log(damaged=False)
    magic, _, found, _, *salts = struct.unpack(">6I", content[:24])
    if magic not in MAGIC or found != size:
        return Log(damaged=any(content[:HEADER]))
    order = ">" if magic == MAGIC[1] else "<"
    return _committed(content, size, struct.pack(">2I", *salts), order)


def _committed(content: bytes, size: int, salts: bytes, order: str) -> Log:
    log, waiting, broken = Log(), dict[int, bytes](), False
    before = struct.unpack(">2I", content[24:HEADER])
    for start in range(HEADER, len(content) - FRAME - size + 1, FRAME + size):
        head, page = content[start : start + FRAME], content[start + FRAME : start + FRAME + size]
        number, count, *_, first, second = struct.unpack(">6I", head)
        # Each frame stores the sums up to itself, so one behind a broken one can be proved too.
        whole = head[8:16] == salts and checksum(head[:8] + page, before, order) == (first, second)
        before = (first, second)
        if not whole:
            broken = True
            continue
        waiting[number] = page
        if count:
            log.pages |= waiting
            log.count, log.damaged, waiting = count, log.damaged or broken, {}
    return log


def checksum(content: bytes, before: tuple[int, ...], order: str) -> tuple[int, int]:
    """The sums of SQLite over 32-bit words, going on from `before`."""
    first, second = before
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) % MODULUS
        second = (second + odd + first) % MODULUS
    return first, second
