"""Owns the reading of scores: many thousands at once, so in one statement and without detours."""

import functools
import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Text, cast, select

from flowbench.records import Measured, Score, Spec
from flowbench.store.queries import Selection, is_latest, shown, specs
from flowbench.store.tables import AttemptRow, RunRow, ScoreRow


def measured(connection: Connection, selection: Selection) -> list[Measured]:
    """List the scores of each run's latest generation, the newest of equals, by run and score."""
    latest = shown()
    score = (ScoreRow.name, ScoreRow.nfe, ScoreRow.subject, ScoreRow.n, ScoreRow.seed)
    query = (
        select(AttemptRow.run_id, *score)
        .add_columns(ScoreRow.value, ScoreRow.kind, ScoreRow.goal, cast(ScoreRow.protocol, Text))
        .add_columns(
            AttemptRow.id, AttemptRow.generation, AttemptRow.environment, AttemptRow.origin
        )
        .join(AttemptRow, AttemptRow.id == ScoreRow.attempt_id)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .join(latest, is_latest(latest))
        .where(*selection.clauses())
        .order_by(RunRow.name, RunRow.id, *score, AttemptRow.number)
    )
    # A later attempt takes the place of an earlier one without moving it.
    newest = {tuple(row[:6]): row for row in connection.execute(query)}
    known = specs(connection, selection)
    # Thousands of scores share a few protocols, which would take most of the time to decode.
    decode = functools.cache(json.loads)
    return [_measured(row, known, decode) for row in newest.values()]


def _measured(
    row: Any, known: dict[int, tuple[str, Spec]], decode: Callable[[str], dict[str, Any]]
) -> Measured:
    run, name, nfe, subject, n, seed, value, kind, goal, protocol, *attempt = row
    number = value if kind == "finite" else float(kind)
    score = Score(name, number, nfe, subject, n, seed, goal, decode(protocol))
    id, generation, environment, origin = attempt
    return Measured(*known[run], score, id, generation, environment or "", origin)
