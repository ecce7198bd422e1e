"""Owns what is read: every question to the database, in few statements."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Subquery,
    and_,
    case,
    func,
    or_,
    select,
)

from flowbench.records import Artifact, FlowbenchError, Spec, Tried
from flowbench.store.leases import Holder, look
from flowbench.store.tables import ArtifactRow, AttemptRow, EnvironmentRow, RunRow, ScoreRow

SHORTEST_PREFIX = 4
SHOWN = 5  # names in an error message
MANY = 500  # keys in one statement: databases bound how many it may have


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
        .join(latest, is_latest(latest))
        .where(RunRow.key == spec.key, or_(ScoreRow.seed == seed, facts))
        .order_by(AttemptRow.number)
    )
    return {(row[0], row[1], row[2], row[3]): row[4] for row in connection.execute(query)}


def tried(connection: Connection, selection: Selection) -> list[Tried]:
    """List all attempts by run, generation and number: merged ones never hide what is here."""
    query = (
        select(AttemptRow)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .where(*selection.clauses())
        .order_by(RunRow.name, RunRow.id, AttemptRow.generation, AttemptRow.number)
    )
    rows = connection.execute(query).all()
    known = specs(connection, selection)
    return [_tried(row, known) for row in rows]


def running(connection: Connection, keys: Collection[str]) -> list[Holder]:
    """The running attempts of these runs, by id."""
    known = list(keys)
    parts = (known[start : start + MANY] for start in range(0, len(known), MANY))
    found = (holder for part in parts for holder in _running(connection, part))
    return sorted(found, key=lambda holder: holder.attempt)


def _running(connection: Connection, keys: Collection[str]) -> list[Holder]:
    """The same of as many as one statement takes, in no order."""
    columns = ("id", "number", "beats", "pid", "started", "birth", "host")
    query = (
        select(RunRow.key, *(getattr(AttemptRow, name) for name in columns))
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .where(RunRow.key.in_(keys), AttemptRow.outcome == "running")
    )
    found = []
    for key, attempt, number, beats, pid, started, birth, host in connection.execute(query):
        here, alive = look(host, pid, birth)
        found.append(Holder(attempt, number, key, beats, here, alive, pid, started, birth, host))
    return found


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


def by_key(connection: Connection) -> dict[str, Spec]:
    """Map the key of every run to its Spec."""
    rows = connection.execute(select(RunRow.key, RunRow.spec))
    return {key: Spec.from_json(spec) for key, spec in rows}


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


def environments(connection: Connection) -> dict[str, dict[str, Any]]:
    """Map the digest of every environment to its facts, those about packages left out."""
    query = select(EnvironmentRow.digest, EnvironmentRow.json)
    rows = connection.execute(query)
    return {name: {k: v for k, v in facts.items() if k != "packages"} for name, facts in rows}


def artifacts(connection: Connection, run: str) -> list[Artifact]:
    """List the files of the latest generation of a run by name, the newest of equals."""
    latest = shown()
    query = (
        select(ArtifactRow.role, ArtifactRow.path, ArtifactRow.sha256, ArtifactRow.bytes)
        .join(AttemptRow, AttemptRow.id == ArtifactRow.attempt_id)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .join(latest, is_latest(latest))
        .where(RunRow.name == run)
        .order_by(ArtifactRow.id)
    )
    newest = {(row.role, row.path): Artifact(*row) for row in connection.execute(query)}
    return list(newest.values())


def _latest() -> Subquery:
    """The current generation of each run."""
    generation = func.max(AttemptRow.generation).label("generation")
    return select(AttemptRow.run_id, generation).group_by(AttemptRow.run_id).subquery()


def shown() -> Subquery:
    """The newest generation of each run that was finished, or the current if none was.

    So a `--force` that was interrupted does not hide the numbers that are there.
    """
    finished = case((AttemptRow.outcome == "ok", AttemptRow.generation))
    newest = func.coalesce(func.max(finished), func.max(AttemptRow.generation))
    query = select(AttemptRow.run_id, newest.label("generation"))
    return query.group_by(AttemptRow.run_id).subquery()


def is_latest(latest: Subquery) -> ColumnElement[bool]:
    return and_(AttemptRow.run_id == latest.c.run_id, AttemptRow.generation == latest.c.generation)


def specs(connection: Connection, selection: Selection) -> dict[int, tuple[str, Spec]]:
    """Name and Spec by run id, read apart so that neither is repeated for each score."""
    query = select(RunRow.id, RunRow.name, RunRow.spec).where(*selection.clauses())
    return {id: (name, Spec.from_json(spec)) for id, name, spec in connection.execute(query)}


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
        origin=row.origin,
        notes=tuple(row.notes),
    )


def _run_of_attempt(connection: Connection, words: str) -> int | None:
    # A server has no larger ids; those of a spool are longer.
    longest = 18 if connection.dialect.name == "sqlite" else 9
    if not (words.isascii() and words.isdecimal() and len(words) <= longest):
        return None
    query = select(AttemptRow.run_id).where(AttemptRow.id == int(words))
    return connection.execute(query).scalar_one_or_none()


def _not_found(words: str, names: list[str], ambiguous: bool) -> str:
    if ambiguous:
        more = ", ..." if len(names) > SHOWN else ""
        return f'"{words}" fits several runs: {", ".join(sorted(names)[:SHOWN])}{more}'
    near = difflib.get_close_matches(words, sorted(names), n=SHOWN, cutoff=0.3)
    return f'no run is called "{words}"' + (f"; nearest: {', '.join(near)}" if near else "")
