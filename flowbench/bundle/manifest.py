"""Owns what a bundle says about itself: its version, and the hash and size of every member."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flowbench.records import FlowbenchError

NAME = "manifest.json"
FORMAT = 1
TABLES = ("artifacts", "attempts", "environments", "origins", "runs", "scores")
FILES = "artifacts/"  # the folder of artifact files, under their paths in the folder of runs
LONGEST = 2**26  # bytes of a manifest
ROWS = 2**28  # bytes of all rows: half a million scores


def rows_name(table: str) -> str:
    """The member that holds the rows of a table."""
    return f"rows/{table}.jsonl"


@dataclass(frozen=True)
class Member:
    """One file of a bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """All members by name, and the paths of artifacts whose files were `missing`."""

    flowbench: str  # version
    files: Mapping[str, Member]
    missing: tuple[str, ...] = ()
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The same bytes for the same manifest."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def parse(content: bytes, place: str) -> Manifest:
    """The manifest; raises FlowbenchError that begins with `place` for anything else."""
    try:
        parts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FlowbenchError(f"{place} is malformed JSON") from error
    if isinstance(parts, dict) and type(parts.get("format")) is int and parts["format"] > FORMAT:
        raise FlowbenchError(
            f"{place} has format {parts['format']}, but this flowbench knows only up to {FORMAT}:"
            " run `pip install -U flowbench`"
        )
    if not _is_manifest(parts):
        raise FlowbenchError(f"{place} is no manifest of a bundle of format {FORMAT}")
    files = {name: Member(**member) for name, member in parts["files"].items()}
    absent = sorted({rows_name(table) for table in TABLES} - files.keys())
    if absent:
        raise FlowbenchError(f"{place} has no {absent[0]}")
    return Manifest(parts["flowbench"], files, tuple(parts["missing"]))


def _is_manifest(parts: Any) -> bool:
    """Whether every field has its type, and every member a name that belongs in a bundle."""
    if not isinstance(parts, dict) or parts.keys() != {"format", "flowbench", "files", "missing"}:
        return False
    files, missing = parts["files"], parts["missing"]
    return (
        type(parts["format"]) is int
        and parts["format"] == FORMAT
        and isinstance(parts["flowbench"], str)
        and isinstance(files, dict)
        and all(_is_member(name, member) for name, member in files.items())
        and isinstance(missing, list)
        and all(isinstance(path, str) for path in missing)
    )


def _is_member(name: str, member: Any) -> bool:
    known = name in map(rows_name, TABLES) or name.startswith(FILES)
    if not known or not isinstance(member, dict) or member.keys() != {"sha256", "bytes"}:
        return False
    return isinstance(member["sha256"], str) and type(member["bytes"]) is int
