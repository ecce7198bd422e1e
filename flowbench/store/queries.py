"""Owns what is read: every question to the database, in few statements."""

import difflib
import functools
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    or_,
    select,
)

from flowbench.records import Artifact, FlowbenchError, Measured, Score, Spec, Tried
from flowbench.store.tables import ArtifactRow, AttemptRow, EnvironmentRow, RunRow, ScoreRow

SHORTEST_PREFIX = 4
SHOWN = 5  # names in an error message


@dataclass(frozen=True)
class Selection:
    """Which runs are asked for; what is None or empty does not restrict."""

    dataset: str | None = None
    methods: Collection[str] | None = None
    seeds: Collection[int] | None = None

    def clauses(self) -> list[ColumnElement[bool]]:
        """Conditions on the table of runs."""
        clauses: list[ColumnElement[bool]] = []
        if self.dataset:
            clauses.append(RunRow.dataset == self.dataset)
        if self.methods:
            clauses.append(RunRow.method.in_(self.methods))
        if self.seeds:
            clauses.append(RunRow.seed.in_(self.seeds))
        return clauses


def done(
    connection: Connection, spec: Spec, seed: int
) -> dict[tuple[str, str, int, int], dict[str, Any]]:
    """Map (subject, name, nfe, n) of all that is stored for noise stream `seed` to its protocol.

    Of equals, the newest.
    """
    latest = _latest()
    # Facts about no samples, such as seconds of training, carry seed 0 in every noise stream.
    facts = and_(ScoreRow.n == 0, ScoreRow.seed == 0)
    query = (
        select(ScoreRow.subject, ScoreRow.name, ScoreRow.nfe, ScoreRow.n, ScoreRow.protocol)
        .join(AttemptRow, AttemptRow.id == ScoreRow.attempt_id)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .join(latest, _is_latest(latest))
        .where(RunRow.key == spec.key, or_(ScoreRow.seed == seed, facts))
        .order_by(AttemptRow.number)
    )
    return {(row[0], row[1], row[2], row[3]): row[4] for row in connection.execute(query)}


def measured(connection: Connection, selection: Selection) -> list[Measured]:
    """List the scores of each run's latest generation, the newest of equals, by run and score."""
    latest = _shown()
    score = (ScoreRow.name, ScoreRow.nfe, ScoreRow.subject, ScoreRow.n, ScoreRow.seed)
    query = (
        select(AttemptRow.run_id, *score)
        .add_columns(ScoreRow.value, ScoreRow.kind, ScoreRow.goal, cast(ScoreRow.protocol, Text))
        .add_columns(AttemptRow.id, AttemptRow.generation, AttemptRow.environment)
        .join(AttemptRow, AttemptRow.id == ScoreRow.attempt_id)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .join(latest, _is_latest(latest))
        .where(*selection.clauses())
        .order_by(RunRow.name, RunRow.id, *score, AttemptRow.number)
    )
    # A later attempt takes the place of an earlier one without moving it.
    newest = {tuple(row[:6]): row for row in connection.execute(query)}
    specs = _specs(connection, selection)
    # Thousands of scores share a few protocols, which would take most of the time to decode.
    decode = functools.cache(json.loads)
    return [_measured(row, specs, decode) for row in newest.values()]


def tried(connection: Connection, selection: Selection) -> list[Tried]:
    """List all attempts by run and number."""
    query = (
        select(AttemptRow)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .where(*selection.clauses())
        .order_by(RunRow.name, RunRow.id, AttemptRow.number)
    )
    rows = connection.execute(query).all()
    specs = _specs(connection, selection)
    return [_tried(row, specs) for row in rows]


def find(connection: Connection, words: str) -> Spec:
    """Find a run by name, key, attempt id, or a prefix of its name or key.

    Raises FlowbenchError if there is none, or more than one.
    """
    runs = connection.execute(select(RunRow.id, RunRow.name, RunRow.key)).all()
    matches = [run for run in runs if words in (run.name, run.key)]
    if not matches:
        attempted = _run_of_attempt(connection, words)
        matches = [run for run in runs if run.id == attempted]
    if not matches and len(words) >= SHORTEST_PREFIX:
        matches = [run for run in runs if run.name.startswith(words) or run.key.startswith(words)]
    if len(matches) != 1:
        raise FlowbenchError(
            _not_found(words, [run.name for run in matches or runs], bool(matches))
        )
    spec = select(RunRow.spec).where(RunRow.id == matches[0].id)
    return Spec.from_json(connection.execute(spec).scalar_one())


def environment(connection: Connection, digest: str) -> dict[str, Any]:
    """Look up an environment; "" stands for one that was not recorded.

    Raises FlowbenchError for an unknown digest.
    """
    if not digest:
        return {}
    query = select(EnvironmentRow.json).where(EnvironmentRow.digest == digest)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        raise FlowbenchError(f"no environment {digest} is recorded")
    return found


def artifacts(connection: Connection, run: str) -> list[Artifact]:
    """List the files of the latest generation of a run by name, the newest of equals."""
    latest = _shown()
    query = (
        select(ArtifactRow.role, ArtifactRow.path, ArtifactRow.sha256, ArtifactRow.bytes)
        .join(AttemptRow, AttemptRow.id == ArtifactRow.attempt_id)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .join(latest, _is_latest(latest))
        .where(RunRow.name == run)
        .order_by(ArtifactRow.id)
    )
    newest = {(row.role, row.path): Artifact(*row) for row in connection.execute(query)}
    return list(newest.values())


def _latest() -> Subquery:
    """The current generation of each run."""
    generation = func.max(AttemptRow.generation).label("generation")
    return select(AttemptRow.run_id, generation).group_by(AttemptRow.run_id).subquery()


def _shown() -> Subquery:
    """The newest generation of each run that was finished, or the current if none was.

    So a `--force` that was interrupted does not hide the numbers that are there.
    """
    finished = case((AttemptRow.outcome == "ok", AttemptRow.generation))
    newest = func.coalesce(func.max(finished), func.max(AttemptRow.generation))
    query = select(AttemptRow.run_id, newest.label("generation"))
    return query.group_by(AttemptRow.run_id).subquery()


def _is_latest(latest: Subquery) -> ColumnElement[bool]:
    return and_(AttemptRow.run_id == latest.c.run_id, AttemptRow.generation == latest.c.generation)


def _specs(connection: Connection, selection: Selection) -> dict[int, tuple[str, Spec]]:
    """Name and Spec by run id, read apart so that neither is repeated for each score."""
    query = select(RunRow.id, RunRow.name, RunRow.spec).where(*selection.clauses())
    return {id: (name, Spec.from_json(spec)) for id, name, spec in connection.execute(query)}


def _measured(
    row: Any, specs: dict[int, tuple[str, Spec]], decode: Callable[[str], dict[str, Any]]
) -> Measured:
    run, name, nfe, subject, n, seed, value, kind, goal, protocol, *attempt = row
    number = value if kind == "finite" else float(kind)
    score = Score(name, number, nfe, subject, n, seed, goal, decode(protocol))
    id, generation, environment = attempt
    return Measured(*specs[run], score, id, generation, environment or "")


def _tried(row: Any, specs: dict[int, tuple[str, Spec]]) -> Tried:
    run, spec = specs[row.run_id]
    return Tried(
        id=row.id,
        run=run,
        spec=spec,
        number=row.number,
        generation=row.generation,
        outcome=row.outcome,
        error=row.error_text or "",
        started=row.started,
        ended=row.ended or "",
        environment=row.environment or "",
    )


def _run_of_attempt(connection: Connection, words: str) -> int | None:
    if not (words.isascii() and words.isdecimal() and len(words) < 10):
        return None
    query = select(AttemptRow.run_id).where(AttemptRow.id == int(words))
    return connection.execute(query).scalar_one_or_none()


def _not_found(words: str, names: list[str], ambiguous: bool) -> str:
    if ambiguous:
        more = ", ..." if len(names) > SHOWN else ""
        return f'"{words}" fits several runs: {", ".join(sorted(names)[:SHOWN])}{more}'
    near = difflib.get_close_matches(words, sorted(names), n=SHOWN, cutoff=0.3)
    return f'no run is called "{words}"' + (f"; nearest: {', '.join(near)}" if near else "")
