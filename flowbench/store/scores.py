"""Owns the reading of scores: many thousands at once, so by columns and not one by one."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Text, cast, func, select

from flowbench.records import Measured, Score, Spec
from flowbench.store.queries import MANY, Selection, is_latest, shown
from flowbench.store.tables import AttemptRow, RunRow, ScoreRow

# What tells the scores of an attempt apart, in the order in which they are listed.
PLACE = ("name", "nfe", "subject", "n", "seed")


def measured(connection: Connection, selection: Selection) -> list[Measured]:
    """List the scores of each run's latest generation, the newest of equals, by run and score."""
    attempts = _attempts(connection, selection)
    found: dict[int, list[Measured]] = {}
    for id, scores in _scores(connection, sorted(attempts)):
        name, spec, *facts = map(repeat, attempts[id])
        found[id] = list(_records(Measured, name, spec, scores, repeat(id), *facts))
    runs = groupby(attempts, key=lambda id: attempts[id][1])
    return [row for _, ids in runs for row in _newest([found.get(id, []) for id in ids])]


def _newest(attempts: Sequence[list[Measured]]) -> list[Measured]:
    """The scores of a run: a later attempt takes the place of an earlier one."""
    if len(attempts) == 1:
        return attempts[0]
    place = attrgetter(*PLACE)
    newest = {place(row.score): row for rows in attempts for row in rows}
    return sorted(newest.values(), key=lambda row: place(row.score))


def _attempts(connection: Connection, selection: Selection) -> dict[int, tuple]:
    """By id, those of a run after each other: its name and Spec, generation, environment, origin.

    Read apart so that none of it is repeated for each score.
    """
    latest = shown()
    query = (
        select(AttemptRow.id, RunRow.id, RunRow.name, RunRow.spec, AttemptRow.generation)
        .add_columns(func.coalesce(AttemptRow.environment, ""), AttemptRow.origin)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .join(latest, is_latest(latest))
        .where(*selection.clauses())
        .order_by(RunRow.name, RunRow.id, AttemptRow.number)
    )
    known: dict[int, Spec] = {}
    found = {}
    for id, run, name, spec, *facts in connection.execute(query):
        if run not in known:
            known[run] = Spec.from_json(spec)
        found[id] = (name, known[run], *facts)
    return found


def _scores(connection: Connection, attempts: Sequence[int]) -> Iterator[tuple[int, list[Score]]]:
    """The scores of each of these attempts; only numbers are read, not who they belong to.

    A statement over all runs would have to be sorted by the database, and what another process
    stores meanwhile would be a part of it on a server.
    """
    place = [getattr(ScoreRow, name) for name in PLACE]
    known: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(attempts), MANY):
        query = (
            select(ScoreRow.attempt_id, ScoreRow.value, ScoreRow.kind, *place, ScoreRow.goal)
            .add_columns(cast(ScoreRow.protocol, Text))
            .where(ScoreRow.attempt_id.in_(attempts[start : start + MANY]))
            .order_by(ScoreRow.attempt_id, *place)  # all but a part of it is that of an index
        )
        rows = connection.execute(query).all()
        if rows:
            yield from _by_attempt(rows, known)


def _by_attempt(
    rows: Sequence[Any], known: dict[str, Mapping[str, Any]]
) -> Iterator[tuple[int, list[Score]]]:
    """The same of rows, whose protocols are `known` once each: thousands of scores share one."""
    ids, values, kinds, name, nfe, subject, n, seed, goal, texts = zip(*rows, strict=True)
    numbers = values if set(kinds) == {"finite"} else map(_number, values, kinds)
    for text in set(texts) - known.keys():
        known[text] = json.loads(text)
    protocols = map(known.__getitem__, texts)
    scores = list(_records(Score, name, numbers, nfe, subject, n, seed, goal, protocols))
    stop = 0
    for id, size in Counter(ids).items():  # in their order
        stop += size
        yield id, scores[stop - size : stop]


def _number(value: float | None, kind: str) -> float:
    return float(kind) if value is None else value


def _records(kind: type, *columns: Iterable[Any]) -> Iterator[Any]:
    """A named tuple of each row, without a step of Python for it."""
    return map(partial(tuple.__new__, kind), zip(*columns, strict=False))
