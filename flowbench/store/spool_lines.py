"""Owns the form of a spool's files: one JSON object in each line, with a checksum."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowbench.records import FlowbenchError, Spec, digest
from flowbench.store.forms import Row
from flowbench.store.tables import KINDS, OUTCOMES, Base
from flowbench.store.verification import proved

TYPES: dict[str, tuple[type, ...]] = {"TEXT": (str,), "JSON": (dict, list), "DOUBLE": (float,)}
# What a line says of a run, an environment and an attempt; the rest follows from it.
BEGUN = {
    "runs": ("key", "spec", "created"),
    "environments": ("digest", "json", "created"),
    "attempts": ("number", "generation", "host", "pid", "birth", "started"),
}
ENDED = ("outcome", "error_type", "error_text", "ended")


class Unusable(FlowbenchError):
    """A file of a spool that holds what no flowbench has written."""


def line(kind: str, content: Any) -> bytes:
    """One line; the checksum tells whether all of it is there."""
    text = json.dumps([kind, content], separators=(",", ":"), allow_nan=False)
    return f'{{"sum":"{zlib.crc32(text.encode()):08x}","row":{text}}}\n'.encode()


@dataclass(frozen=True)
class Parsed:
    """The whole lines of a file, where the last of them ends, and how many others are broken.

    A last line without its end was torn off while it was written, and is not counted.
    """

    lines: list[tuple[str, Any]]
    size: int
    broken: int = 0


def parsed(content: bytes) -> Parsed:
    """What a file holds; each line proves itself, so a broken one costs no other."""
    found, size, end, broken = [], 0, 0, 0
    for part in content.split(b"\n")[:-1]:
        end += len(part) + 1
        row = _row(part + b"\n")
        if row is None:
            broken += 1
            continue
        found.append(row)
        size = end
    return Parsed(found, size, broken)


def _row(part: bytes) -> tuple[str, Any] | None:
    try:
        said = json.loads(part)
        kind, content = said["row"]
        return (kind, content) if line(kind, content) == part else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(frozen=True)
class Entry:
    """One attempt in a spool: rows as in the tables, `end` None while it runs."""

    spec: Spec
    run: Row
    environment: Row | None
    attempt: Row
    scores: list[Row] = field(default_factory=list)
    artifacts: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    end: Row | None = None


def entry(content: Parsed, end: Row | None, place: str) -> Entry:
    """The attempt that some lines tell of; raises Unusable for what no flowbench has written."""
    lines = content.lines
    if content.broken:
        lines = [*lines, ("notes", f"{content.broken} damaged lines of its spool are left out")]
    try:
        return _entry(lines, end)
    except (FlowbenchError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unusable(f"{place} holds what no flowbench has written") from error


def _entry(lines: list[tuple[str, Any]], end: Row | None) -> Entry:
    kind, begun = lines[0] if lines else ("", {})
    if kind != "begin":
        raise ValueError(kind)
    rows = {name: begun[name] for name in BEGUN}
    for name, row in rows.items():
        if row is not None or name != "environments":
            _check(name, row, BEGUN[name])
    environment = rows["environments"]
    if environment and digest(environment["json"]) != environment["digest"]:
        raise ValueError("digest")
    parts: dict[str, list[Any]] = {"scores": [], "artifacts": [], "notes": []}
    for table, row in _parts(lines[1:]):
        parts[table].append(row)
    if end is not None:
        _check("attempts", end, ENDED)
        if end["outcome"] not in OUTCOMES or end["outcome"] == "running":
            raise ValueError("outcome")
    spec = proved(rows["runs"], "")
    return Entry(spec, rows["runs"], environment, rows["attempts"], **parts, end=end)


def _parts(lines: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for kind, row in lines:
        if kind == "notes":
            if not isinstance(row, str):
                raise TypeError(kind)
        elif kind in ("scores", "artifacts"):
            columns = {column.name for column in Base.metadata.tables[kind].columns}
            _check(kind, row, tuple(columns - {"id", "attempt_id"}))
            if kind == "scores" and row["kind"] not in KINDS:
                raise ValueError(row["kind"])
        else:
            raise ValueError(kind)
        yield kind, row


def _check(table: str, row: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError unless the row has these columns, each of the type of its table."""
    if not isinstance(row, dict) or row.keys() != set(names):
        raise ValueError(table)
    for name in names:
        column, value = Base.metadata.tables[table].columns[name], row[name]
        types = TYPES.get(str(column.type), (int,))
        fits = column.nullable if value is None else type(value) in types
        if not fits or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            raise ValueError(name)
