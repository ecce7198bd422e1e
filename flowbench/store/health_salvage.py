"""Owns the choice among rows of a damaged database: whole ones that keep every rule are saved."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flowbench.records import FlowbenchError, Score, Spec, digest
from flowbench.store import health_pages, portable
from flowbench.store.attempts import environment_values, run_values
from flowbench.store.claims import now
from flowbench.store.forms import COLUMNS, Row, word
from flowbench.store.tables import OUTCOMES, Base
from flowbench.store.verification import identity, is_place, proved

# In this order, so that a row comes after those that it refers to.
TABLES = ("origins", "environments", "runs", "attempts", "scores", "artifacts")
# What a row that an older flowbench wrote does not have at its end.
LATER = {"origin": "", "beats": 0, "birth": ""}
# What stands in a database for the links by which rows travel, and what is told from the rest.
WHOLE = ("id", "run_id", "attempt_id", "beats")
UNKNOWN = "lost with a damaged database"  # an origin that attempts name


@dataclass
class Saved:
    """The rows to keep by table; `broken` were found and break a rule, `gaps` are missing ids.

    `pages` could not be read. What stood at the very end of a table leaves no gap.
    """

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})
    broken: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    pages: int = 0

    @property
    def count(self) -> int:
        """Rows to keep."""
        return sum(map(len, self.rows.values()))


def salvage(content: bytes, wal: bytes) -> Saved:
    """All that can be read of a database file and its log, and keeps the rules."""
    fits: dict[str, health_pages.Fits] = {name: functools.partial(_fits, name) for name in TABLES}
    tries = [health_pages.tables(p, fits) for p in health_pages.opened(content, wal)]
    best = max(tries, key=lambda found: sum(len(table.rows) for table in found.values()))
    saved = Saved(pages=sum(table.pages for table in best.values()))
    judges: dict[str, Callable[[list[Row]], Iterator[Row]]] = {
        "origins": lambda rows: _unique(rows, "digest"),
        "environments": _environments,
        "runs": _runs,
        "attempts": functools.partial(_attempts, saved),
        "scores": functools.partial(_scores, saved),
        "artifacts": functools.partial(_artifacts, saved),
    }
    for name in TABLES:
        rows = list(_decoded(name, best[name].rows))
        saved.rows[name] = list(judges[name](rows))
        saved.broken[name] += len(best[name].rows) - len(saved.rows[name])
        if name in ("runs", "attempts", "scores", "artifacts"):
            saved.gaps[name] = max(best[name].rows, default=0) - len(best[name].rows)
    _name_origins(saved)
    return saved


def _columns(table: str) -> list[str]:
    return [column.name for column in Base.metadata.tables[table].columns]


def _fits(table: str, values: list[Any]) -> bool:
    """Whether the values may be a row of the table: as many, of such types, an id only beside."""
    columns = Base.metadata.tables[table].columns
    short = len(columns) - len(LATER) if table == "attempts" else len(columns)
    if not short <= len(values) <= len(columns):
        return False
    return all(_may(column, value) for column, value in zip(columns, values, strict=False))


def _may(column: Any, value: Any) -> bool:
    if column.name == "id":
        return value is None
    if value is None:
        return column.nullable
    kind = str(column.type)
    types = {"TEXT": (str,), "JSON": (str,), "DOUBLE": (float, int)}.get(kind, (int,))
    return isinstance(value, types)


def _decoded(table: str, found: dict[int, list[Any]]) -> Iterator[Row]:
    """The rows whose every value has its form, JSON read."""
    names = _columns(table)
    for rowid, values in sorted(found.items()):
        row: Row = dict(LATER) if table == "attempts" else {}
        row |= zip(names, values, strict=table != "attempts")
        if "id" in row:
            row["id"] = rowid
        if isinstance(row.get("value"), int):
            row["value"] = float(row["value"])  # SQLite stores whole numbers shorter
        with contextlib.suppress(FlowbenchError):
            for name in portable.JSON & row.keys():
                row[name] = portable.parse(row[name], table)
            if all(_formed(table, name, value) for name, value in row.items()):
                yield row


def _formed(table: str, name: str, value: Any) -> bool:
    if name == "outcome":
        return value in OUTCOMES
    if name in WHOLE:
        return 0 <= value < 2**63
    forms = COLUMNS[table]
    return forms[name][1](value) if name in forms else name == "seed" or word[1](value)


def _unique(rows: list[Row], *names: str) -> Iterator[Row]:
    """The rows, of those that agree in these columns the first."""
    seen = set()
    for row in rows:
        own = tuple(row[name] for name in names)
        if own not in seen:
            seen.add(own)
            yield row


def _environments(rows: list[Row]) -> Iterator[Row]:
    for row in _unique(rows, "digest"):
        with contextlib.suppress(ValueError, RecursionError):
            if digest(row["json"]) == row["digest"]:
                yield row | environment_values(row["json"])


def _runs(rows: list[Row]) -> Iterator[Row]:
    yield from _unique(_proved(rows), "name")


def _proved(rows: list[Row]) -> list[Row]:
    """The runs whose key follows from their spec, with the columns that do so too."""
    found = []
    for row in _unique(rows, "key"):
        with contextlib.suppress(FlowbenchError):
            found.append(row | run_values(proved(row, "")))
    return found


def _attempts(saved: Saved, rows: list[Row]) -> Iterator[Row]:
    keys = {row["id"]: row["key"] for row in saved.rows["runs"]}
    known = {row["digest"] for row in saved.rows["environments"]}
    seen = set()
    for row in _unique(rows, "run_id", "number"):
        if row["run_id"] not in keys:
            continue
        who = identity(row | {"run": keys[row["run_id"]]})
        if who in seen:
            continue
        seen.add(who)
        lost = row["environment"] not in known
        yield row | ({"environment": None} if lost else {})


def _owners(saved: Saved) -> dict[int, Spec]:
    """The spec by attempt."""
    specs = {row["id"]: Spec.from_json(row["spec"]) for row in saved.rows["runs"]}
    return {row["id"]: specs[row["run_id"]] for row in saved.rows["attempts"]}


def _scores(saved: Saved, rows: list[Row]) -> Iterator[Row]:
    owners = {row["id"] for row in saved.rows["attempts"]}
    for row in _unique(rows, "attempt_id", "subject", "name", "nfe", "n", "seed"):
        if row["attempt_id"] in owners and _fingerprinted(row):
            yield row


def _fingerprinted(row: Row) -> bool:
    try:
        score = Score(row["name"], 0.0, n=row["n"], seed=row["seed"], protocol=row["protocol"])
        right = score.fingerprint == row["fingerprint"]
    except (ValueError, RecursionError):
        return False
    return right and (row["kind"] == "finite") == (row["value"] is not None)


def _artifacts(saved: Saved, rows: list[Row]) -> Iterator[Row]:
    owners = _owners(saved)
    for row in rows:
        spec = owners.get(row["attempt_id"])
        if spec is not None and is_place(row["path"], spec):
            yield row


def _name_origins(saved: Saved) -> None:
    """Keep apart what came from elsewhere, also where nobody knows any more from where."""
    named = Counter(row["origin"] for row in saved.rows["attempts"] if row["origin"])
    known = {row["digest"] for row in saved.rows["origins"]}
    for name in sorted(named.keys() - known):
        row = {"digest": name, "name": UNKNOWN, "kind": "database", "merged": now()}
        saved.rows["origins"].append(row | {"attempts": named[name]})
