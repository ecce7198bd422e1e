"""TOML files from anywhere: of a size that people write, shallow, and with printable texts."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LARGEST = 2**20  # bytes of a file
DEEPEST = 12  # tables within tables
# A key of many parts, for which tomllib takes memory that grows with their square.
WORD = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
LONG_KEY = re.compile(rf"(?<![\w-]){WORD}(?:[ \t]*\.[ \t]*{WORD}){{40}}")


def read(path: Path) -> dict[str, Any]:
    """What a file says; raises OSError, or ValueError in one line for what is wrong with it."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    text = content.decode()
    if LONG_KEY.search(text):
        raise ValueError("it is nested too deeply")
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    for word in _texts(table):
        if not word.isprintable():
            raise ValueError(f"{_short(word)} holds characters that cannot be printed in a line")
    return table


def _texts(table: dict[str, Any]) -> Iterator[str]:
    """Every key and text; raises ValueError where tables lie too deep in each other."""
    waiting: list[tuple[Any, int]] = [(table, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]


def _short(text: str) -> str:
    """A text as Python writes it, of which the end may be left out."""
    return ascii(text[:40])
