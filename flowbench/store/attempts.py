"""Owns what is written: the opening of an attempt, its scores, and how it ended."""

import json
import math
import os
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from flowbench.records import FlowbenchError, Score, Spec, digest, visible
from flowbench.store import claims, leases
from flowbench.store.claims import now, plain
from flowbench.store.engine import Database
from flowbench.store.forms import texts
from flowbench.store.leases import Superseded
from flowbench.store.tables import (
    OUTCOMES,
    ArtifactRow,
    AttemptRow,
    Base,
    EnvironmentRow,
    RunRow,
    ScoreRow,
)


class Attempt:
    """An open attempt at a run; whatever it is given is committed at once.

    One that is no longer `running` writes nothing more: add, note and artifact raise Superseded.
    """

    def __init__(self, database: Database, id: int, number: int, generation: int):
        self._database = database
        self.id = id
        self.number = number
        self.generation = generation

    def add(self, score: Score) -> None:
        """Store one score.

        Raises FlowbenchError if this attempt already holds it.
        """
        with self._writing() as connection:
            is_new = insert_new(connection, ScoreRow, score_values(self.id, score))
        if not is_new:
            raise doubled(score)

    def note(self, text: str) -> None:
        """Append a remark."""
        with self._writing() as connection:
            mine = AttemptRow.id == self.id
            notes = connection.execute(select(AttemptRow.notes).where(mine)).scalar_one()
            connection.execute(update(AttemptRow).where(mine).values(notes=[*notes, plain(text)]))

    def artifact(self, role: str, path: str | Path, sha256: str, bytes: int) -> None:
        """Store where a file lies and what it holds."""
        values = {"role": role, "path": str(path), "sha256": sha256, "bytes": bytes}
        with self._writing() as connection:
            row = insert(ArtifactRow).values(attempt_id=self.id, created=now(), **values)
            connection.execute(row)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction in which this attempt is running, and stays so until the end of it."""
        with self._database.transaction(write=True) as connection:
            mine = select(AttemptRow.outcome).where(AttemptRow.id == self.id)
            outcome = connection.scalar(mine.with_for_update())
            if outcome != "running":
                raise superseded(self.number, outcome or "deleted")
            yield connection

    def close(self, error: BaseException | None = None) -> None:
        """Store the outcome, `ok` without an `error`; one that is stored already stays."""
        mine = (AttemptRow.id == self.id) & (AttemptRow.outcome == "running")
        with self._database.transaction(write=True) as connection:
            connection.execute(update(AttemptRow).where(mine).values(ended=now(), **verdict(error)))


def open_attempt(
    database: Database,
    spec: Spec,
    environment: Mapping[str, Any],
    force: bool,
    expired: Container[int] = (),
) -> Attempt:
    """Insert an attempt, and its run and environment if they are new.

    Raises Held while another one is running that is neither dead nor in `expired`.
    """
    with database.transaction(write=True) as connection:
        # In this order everywhere, so that nobody waits in a circle.
        surroundings = _environment(connection, environment)
        run = _run(connection, spec)
        claims.take_over(connection, spec, expired)
        number, generation = place_of_next(connection, run, force)
        place = {"run_id": run, "number": number, "generation": generation}
        row = insert(AttemptRow).values(environment=surroundings, **place, **_beginning())
        key = connection.execute(row).inserted_primary_key
    assert key is not None
    return Attempt(database, key[0], number, generation)


def _beginning() -> dict[str, Any]:
    """The columns of an attempt that this process begins now."""
    own = {"host": leases.host(), "pid": os.getpid(), "birth": leases.birth(os.getpid())}
    return own | {"started": now(), "outcome": "running", "notes": []}


def superseded(number: int, outcome: str) -> Superseded:
    """The refusal of a late write of an attempt that was closed."""
    return Superseded(
        f"attempt {number} was closed meanwhile ({outcome}), so nothing more of it is stored"
    )


def doubled(score: Score) -> FlowbenchError:
    """The refusal of a score that an attempt holds already."""
    where = f"nfe={score.nfe}, n={score.n}, seed={score.seed}, {score.subject}"
    return FlowbenchError(f"this attempt already holds the score {score.name} ({where})")


def run_values(spec: Spec) -> dict[str, Any]:
    """The columns of a run that follow from its spec."""
    return {
        "key": spec.key,
        "name": spec.name,
        "method": spec.method,
        "dataset": spec.dataset,
        "seed": spec.seed,
        "spec": asdict(spec),
    }


def environment_values(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an environment that follow from its facts."""
    parts = dict(environment)
    columns = {name: str(parts.get(name, "")) for name in ("python", "torch", "device")}
    return {"digest": digest(parts), "json": parts, **columns}


def _run(connection: Connection, spec: Spec) -> int:
    """The id of the run, whose row stays locked on a server with row locks.

    Raises FlowbenchError for a spec that no other database and no view could take.
    """
    odd = [text for text in texts(json.loads(json.dumps(asdict(spec)))) if not text.isprintable()]
    if odd:
        raise FlowbenchError(
            f'{spec.name} has an option with letters that cannot be printed: "{visible(odd[0])}"'
        )
    insert_new(connection, RunRow, run_values(spec) | {"created": now()})
    found = select(RunRow.id).where(RunRow.key == spec.key).with_for_update()
    return connection.execute(found).scalar_one()


def _environment(connection: Connection, environment: Mapping[str, Any]) -> str | None:
    if not environment:
        return None
    values = environment_values(environment)
    insert_new(connection, EnvironmentRow, values | {"created": now()})
    return values["digest"]


def place_of_next(connection: Connection, run: int, force: bool) -> tuple[int, int]:
    """The number and generation of the next attempt; there is nothing to force before the first."""
    highest = select(func.max(AttemptRow.number), func.max(AttemptRow.generation))
    number, generation = connection.execute(highest.where(AttemptRow.run_id == run)).one()
    if number is None:
        return 1, 1
    latest = (AttemptRow.run_id == run) & (AttemptRow.generation == generation)
    found = connection.execute(select(AttemptRow.outcome, AttemptRow.origin).where(latest)).all()
    unfinished = {(outcome, "") for outcome in ("interrupted", "lost", "running", "timeout")}
    # A second --force goes on with a first that was interrupted, unless that was elsewhere.
    goes_on = generation > 1 and {tuple(row) for row in found} <= unfinished
    return number + 1, generation + int(force and not goes_on)


def score_values(attempt: int, score: Score) -> dict[str, Any]:
    """The columns of a score of an attempt."""
    value = float(score.value) + 0.0  # SQLite keeps no sign of a zero, so nobody does
    finite = math.isfinite(value)
    return {
        "attempt_id": attempt,
        "subject": score.subject,
        "name": score.name,
        "nfe": score.nfe,
        "n": score.n,
        "seed": score.seed,
        "value": value if finite else None,
        "kind": "finite" if finite else str(value),
        "goal": score.goal,
        "protocol": dict(score.protocol),
        "fingerprint": score.fingerprint,
        "created": now(),
    }


def verdict(error: BaseException | None) -> dict[str, str | None]:
    """Outcome, type and text of what ended an attempt."""
    if error is None:
        return {"outcome": "ok"}
    kind = type(error).__name__
    if isinstance(error, FlowbenchError):
        outcome = error.outcome if error.outcome in OUTCOMES else "failed"
        return {"outcome": outcome, "error_type": kind, "error_text": plain(str(error))}
    if isinstance(error, Exception):
        text = plain(f"{kind}: {error}")
        return {"outcome": "failed", "error_type": kind, "error_text": text}
    return {"outcome": "interrupted", "error_type": kind}


def insert_new(connection: Connection, table: type[Base], values: Mapping[str, Any]) -> bool:
    """Insert a row unless its unique columns are taken; tell whether it was."""
    from sqlalchemy.dialects import postgresql, sqlite  # which readers need not wait for

    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = dialect.insert(table).on_conflict_do_nothing()
    # Without the option a server that returns the new id would not say how many rows there were.
    options = {"preserve_rowcount": True}
    return connection.execute(row, dict(values), execution_options=options).rowcount == 1
