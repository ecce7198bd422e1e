"""Owns what a check says, and its look at the files beside a database."""

import glob
import hashlib
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from flowbench.records import visible
from flowbench.store.tables import ArtifactRow, AttemptRow

OK, NOTE, PROBLEM = "ok", "note", "problem"
SHOWN = 3  # names in a line


@dataclass(frozen=True)
class Finding:
    """What was looked at, its state (ok, note or problem), and what to do about it."""

    what: str
    state: str
    text: str
    advice: str = ""


def artifacts(connection: Connection, folder: Path, hashed: bool) -> Finding:
    """Whether the files that the shown attempts left are there, and with `hashed` the same."""
    query = select(ArtifactRow.path, ArtifactRow.sha256, ArtifactRow.bytes).join(AttemptRow)
    newest = {row.path: row for row in connection.execute(query.order_by(ArtifactRow.id))}
    missing, other = [], []
    for path, row in sorted(newest.items()):
        file = folder / path
        if not file.is_file():
            missing.append(path)
        elif file.stat().st_size != row.bytes or (hashed and _hash(file) != row.sha256):
            other.append(path)
    if not missing and not other:
        how = "with their hashes" if hashed else "with their sizes; --files compares hashes too"
        return Finding("files", OK, f"{len(newest)} in {folder}, {how}")
    wrong = [
        f"{len(paths)} {word}: {some(paths)}"
        for paths, word in ((missing, "missing"), (other, "with other content"))
        if paths
    ]
    advice = "numbers are not touched by that; `flowbench run ... --force` makes them anew"
    return Finding("files", PROBLEM if hashed else NOTE, "; ".join(wrong), advice)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parts(folder: Path, path: Path | None = None) -> Finding:
    """Files that a killed process left half-written."""
    found = sorted(folder.rglob("*.part")) if folder.is_dir() else []
    if path is not None:
        name = glob.escape(path.name)
        found += sorted(path.parent.glob(f"{name}*.part"))
        found += sorted(path.parent.glob(f"{name}.spool/.*.part"))
    if not found:
        return Finding("left-overs", OK, "none")
    advice = "delete them when nothing runs"
    return Finding("left-overs", NOTE, f"{len(found)}: {some(list(map(str, found)))}", advice)


def some(texts: list[str]) -> str:
    """The first of many."""
    more = f", and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(map(visible, texts[:SHOWN])) + more
