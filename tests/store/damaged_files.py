"""A database of results to be damaged, what it holds, and what a repair made of it."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

from stored_rows import MACHINE, score, spec

from flowbench.records import FlowbenchError
from flowbench.store import Store

TABLES = ("origins", "environments", "runs", "attempts", "scores", "artifacts")
# Longer than a page, as the list of packages usually is.
LARGE = MACHINE | {"packages": {f"package-{number}": "1.0" for number in range(400)}}
PAGE = 4096


def fill(path, runs=6, scores=30):
    """Runs with attempts, scores, files and notes; the journal is gone afterwards."""
    store = Store(f"sqlite:///{path}")
    for seed in range(runs):
        run = spec("cfm", seed)
        machine = LARGE | {"threads": seed % 2}
        with store.attempt(run, machine) as attempt:
            for nfe in range(1, scores + 1):
                attempt.add(score(nfe + 0.25 * (nfe % 2), nfe=nfe))
            attempt.artifact("network", f"{run.name}/network.safetensors", "a" * 64, 10)
            attempt.note("a note")
    store.close()
    return path


def rows(path):
    """All rows by table and key, as a reader has them who opens the file with other tools."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: {row[0]: dict(row) for row in connection.execute(f"select * from {table}")}
            for table in TABLES
        }


def on_pages(path):
    """By page the rows (table, key) that stand on it, as SQLite itself tells; None: it cannot."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            return {k: v for table in TABLES for k, v in _of_table(connection, table)}
        except sqlite3.OperationalError:  # built without its table of pages
            return None


def _of_table(connection, table):
    query = "select path, pageno, ncell from dbstat where name = ? and pagetype = ? order by path"
    keys = [row[0] for row in connection.execute(f"select * from {table} order by rowid")]
    starts, start = {}, 0
    for place, page, cells in connection.execute(query, (table, "leaf")):
        yield page, [(table, key) for key in keys[start : start + cells]]
        starts[place], start = start, start + cells
    for place, page, _ in connection.execute(query, (table, "overflow")):
        leaf, cell = place.partition("+")[0][:-3], place.partition("+")[0][-3:]
        yield page, [(table, keys[starts[leaf] + int(cell, 16)])]


def left(found, hit):
    """The rows (as of `rows`) that remain without those of `hit` and what belongs to these."""
    kept = {
        table: {key: row for key, row in some.items() if (table, key) not in hit}
        for table, some in found.items()
    }
    links = {"attempts": ("run_id", "runs")} | dict.fromkeys(
        ("scores", "artifacts"), ("attempt_id", "attempts")
    )
    for table, (link, owner) in links.items():
        kept[table] = {k: row for k, row in kept[table].items() if row[link] in kept[owner]}
    for key, row in kept["attempts"].items():
        lost = row["environment"] not in kept["environments"]
        kept["attempts"][key] = row | ({"environment": None} if lost else {})
    return kept


def flipped(content, seed, bits=1):
    """The content with some bits turned over, at places that follow from the seed."""
    changed, random = bytearray(content), Random(seed)
    for _ in range(bits):
        place = random.randrange(len(changed))
        changed[place] ^= 1 << random.randrange(8)
    return bytes(changed)


def outcome(call):
    """What a call returns, or its one line of failure."""
    try:
        return call()
    except FlowbenchError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return error
