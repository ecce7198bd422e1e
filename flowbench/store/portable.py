"""Owns the form in which rows travel: no ids of a database, the same bytes for the same content."""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, func, literal, select

from flowbench.records import FlowbenchError
from flowbench.store.forms import COLUMNS, Row, check
from flowbench.store.tables import (
    ArtifactRow,
    AttemptRow,
    EnvironmentRow,
    OriginRow,
    RunRow,
    ScoreRow,
)

Clauses = Sequence[ColumnElement[bool]]
MODELS: dict[str, Any] = {
    "origins": OriginRow,
    "environments": EnvironmentRow,
    "runs": RunRow,
    "attempts": AttemptRow,
    "scores": ScoreRow,
    "artifacts": ArtifactRow,
}
JSON = {"json", "spec", "notes", "protocol"}
# Of these only what some attempt names.
USED = {
    "origins": (OriginRow.digest, AttemptRow.origin),
    "environments": (EnvironmentRow.digest, AttemptRow.environment),
    "runs": (RunRow.id, AttemptRow.run_id),
}
ENDED = AttemptRow.outcome != "running"
# What a row of each table is called by; `attempt` is the number of an attempt at its run.
KEYS = {
    "origins": ("digest",),
    "environments": ("digest",),
    "runs": ("key",),
    "attempts": ("run", "number"),
    "scores": ("run", "attempt", "subject", "name", "nfe", "n", "seed"),
    "artifacts": ("run", "attempt"),  # of equals the newest counts, so these keep their order
}


@dataclass(frozen=True)
class Rows:
    """Rows of all tables as they travel; `running` attempts had not ended and were left out."""

    tables: dict[str, list[Row]]
    running: int = 0

    def __getitem__(self, table: str) -> list[Row]:
        return self.tables[table]

    @property
    def digest(self) -> str:
        """SHA-256 over all that is in here."""
        hasher = hashlib.sha256()
        for table in COLUMNS:
            hasher.update(f"{table}\n".encode())
            for line in lines(self[table]):
                hasher.update(line)
        return hasher.hexdigest()


def key(table: str, row: Row) -> tuple:
    """What the row is called by."""
    return tuple(row[name] for name in KEYS[table])


def lines(rows: Sequence[Row]) -> Iterator[bytes]:
    """One line of JSON for each row."""
    for row in rows:
        yield json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def parse(text: str | bytes, place: str) -> Any:
    """JSON without NaN and infinity; raises FlowbenchError for anything else."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, TypeError, RecursionError) as error:
        raise FlowbenchError(f"{place} holds malformed JSON") from error


def _refuse(word: str) -> None:
    raise ValueError(word)


def read(
    connection: Connection,
    place: str,
    clauses: Clauses = (),
    origins: bool = True,
) -> Rows:
    """Read what belongs to the runs that `clauses` choose, and has ended.

    Without `origins` the database is older than these. Raises FlowbenchError for a row that holds
    what no flowbench has written.
    """
    decode = functools.cache(lambda text: parse(text, place))
    found: dict[str, list[Row]] = {table: [] for table in MODELS}
    for table, query in _queries(clauses, origins).items():
        for row in connection.execute(query):
            found[table].append(_row(table, row, f"{place}, {table}", decode))
        found[table].sort(key=functools.partial(key, table))
    running = select(func.count()).select_from(AttemptRow).join(RunRow)
    running = running.where(AttemptRow.outcome == "running", *clauses)
    return Rows(found, connection.scalar(running) or 0)


def _row(table: str, values: Sequence[Any], place: str, decode) -> Row:
    row = dict(zip(COLUMNS[table], values, strict=True))
    for name in JSON & row.keys():
        row[name] = decode(row[name])
    return check(row, COLUMNS[table], place)


def _queries(clauses: Clauses, origins: bool) -> dict[str, Select]:
    """By table its columns in the order of `COLUMNS`, JSON as it is written."""
    found = {}
    for table, model in MODELS.items():
        query = select(*(_column(model, name, origins) for name in COLUMNS[table]))
        if table in USED:
            mine, attempts = USED[table]
            query = query.where(mine.in_(_ended(attempts, clauses)))
        else:
            query = query.select_from(model)
            if model is not AttemptRow:
                query = query.join(AttemptRow, AttemptRow.id == model.attempt_id)
            query = query.join(RunRow, RunRow.id == AttemptRow.run_id).where(ENDED, *clauses)
        found[table] = query.order_by(model.id) if table == "artifacts" else query
    if not origins:
        del found["origins"]
    return found


def _column(model: Any, name: str, origins: bool) -> Any:
    if name == "run":
        return RunRow.key
    if name == "attempt":
        return AttemptRow.number
    if name == "origin" and not origins:
        return literal("")
    column = getattr(model, name)
    return cast(column, Text) if name in JSON else column


def _ended(column: Any, clauses: Clauses) -> Select:
    """A column of the chosen attempts."""
    query = select(column).join(RunRow, RunRow.id == AttemptRow.run_id)
    return query.where(ENDED, *clauses)
