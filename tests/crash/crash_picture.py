"""What is in a folder: all that must be as in the undisturbed one, and whether it is sound."""

import hashlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

COSTS = ("ms-per-sample", "peak-mib", "train-seconds")
OWN = {"id", "run_id", "attempt_id", "merged"}  # columns that may differ between equal databases
Picture = dict[str, Any]

SCORES = """
select runs.name, attempts.generation, subject, scores.name, nfe, n, scores.seed, kind, goal,
       value, protocol
from scores join attempts on attempts.id = attempt_id join runs on runs.id = run_id
"""
ARTIFACTS = """
select runs.name, role, path, sha256, bytes
from artifacts join attempts on attempts.id = attempt_id join runs on runs.id = run_id
"""


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the database, so that a look mends nothing of what a killed process left."""
    with tempfile.TemporaryDirectory() as place:
        for path in folder.glob("results.db*"):
            if path.name in ("results.db", "results.db-wal"):
                shutil.copy(path, place)
        with closing(sqlite3.connect(Path(place) / "results.db")) as connection:
            yield connection


def outcomes(folder: Path) -> list[str]:
    """How the attempts ended, in their order."""
    with reading(folder) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'attempts'").fetchall():
            return []
        return [row[0] for row in connection.execute("select outcome from attempts order by id")]


def alone(folder: Path, patience: float = 60.0) -> bool:
    """Whether all processes that were started for a folder end soon."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if not any(_belongs(place, folder) for place in Path("/proc").glob("[0-9]*")):
            return True
        time.sleep(0.2)
    return False


def _belongs(place: Path, folder: Path) -> bool:
    try:
        return f"{folder}/results.db".encode() in (place / "environ").read_bytes()
    except OSError:
        return False


def rows(folder: Path) -> Picture:
    """Every row of every table, without the numbers that rows have only here."""
    with reading(folder) as connection:
        tables = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
        return {name: _rows(connection, name) for (name,) in connection.execute(tables).fetchall()}


def _rows(connection: sqlite3.Connection, table: str) -> list[str]:
    found = connection.execute(f"select * from {table}")
    names = [column[0] for column in found.description]
    kept = [i for i, name in enumerate(names) if name not in OWN]
    return sorted(repr([row[i] for i in kept]) for row in found)


def scores(folder: Path) -> Picture:
    """Every score by its names; the value of a time, or of memory, is left out."""
    with reading(folder) as connection:
        found = connection.execute(SCORES).fetchall()
    named = [(" ".join(map(str, row[:9])), row) for row in found]
    assert len(dict(named)) == len(named), "a score is there twice"
    return {name: None if cost(row[3]) else (row[9], row[10]) for name, row in named}


def stored(folder: Path) -> int:
    """How many scores there are."""
    with reading(folder) as connection:
        return connection.execute("select count(*) from scores").fetchone()[0]


def cost(name: str) -> bool:
    """Whether it is a score that no two runs share."""
    return name.startswith(COSTS)


def files(folder: Path) -> Picture:
    """Every file by its path: its content, without the seconds that are in it."""
    there = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): content(path) for path in sorted(there)}


def content(path: Path) -> Any:
    """What of a file must be as in the undisturbed folder."""
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.name == "training.jsonl":
        lines = map(json.loads, path.read_text().splitlines())
        return [{name: part for name, part in line.items() if name != "seconds"} for line in lines]
    if path.suffix in (".lock", ".pt", ".json", ".jsonl"):  # with times in them
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tensors(path: Path) -> str:
    """SHA-256 over the names, types and bytes of tensors; raises for a file that is cut short."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    end = max((part["data_offsets"][1] for part in header.values()), default=0)
    assert len(content) == start + end, f"{path} is not whole"
    text = json.dumps(header, sort_keys=True).encode()
    return hashlib.sha256(text + content[start:]).hexdigest()


def faults(folder: Path) -> Iterator[str]:
    """What is wrong with a database and the files that it names."""
    if not (folder / "results.db").exists():
        return
    with reading(folder) as connection:
        for check in ("integrity_check", "foreign_key_check"):
            found = connection.execute(f"pragma {check}").fetchall()
            if found not in ([("ok",)], []):
                yield f"{check}: {found[:3]}"
        tables = connection.execute("select name from sqlite_master").fetchall()
        stored = connection.execute(ARTIFACTS).fetchall() if ("artifacts",) in tables else []
    for run, role, path, sha256, size in stored if (folder / "runs").exists() else ():
        file = folder / "runs" / path
        if not file.exists():
            yield f"{run}: {role} is not there: {path}"
        elif (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size) != (sha256, size):
            yield f"{run}: {role} has another content than was stored: {path}"


def difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is missing, too much, or other, in a few words each."""
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield f"missing: {name}"
        elif name not in expected:
            yield f"too much: {name}"
        elif expected[name] != found[name]:
            yield f"other: {name}: {str(expected[name])[:80]} became {str(found[name])[:80]}"
