"""Owns the way of a spooled attempt into tables: once, whoever brings it and however often."""

from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy import insert as insert_row

from flowbench.store.attempts import environment_values, insert_new, run_values
from flowbench.store.claims import now
from flowbench.store.spool_lines import Entry
from flowbench.store.tables import ArtifactRow, AttemptRow, EnvironmentRow, RunRow, ScoreRow


def insert(connection: Connection, entry: Entry, id: int | None = None) -> bool:
    """Insert an attempt with all that belongs to it, unless it is there; tells whether it was not.

    Where its number is taken, by one that was merged meanwhile, it gets the next. Earlier attempts
    that the database has as running were taken over by it.
    """
    run = _run(connection, entry)
    mine = AttemptRow.run_id == run
    who = ("host", "pid", "started")
    same = [getattr(AttemptRow, name) == entry.attempt[name] for name in who]
    if connection.scalar(select(AttemptRow.id).where(mine, *same)) is not None:
        return False
    before = mine & (AttemptRow.number < entry.attempt["number"])
    over = update(AttemptRow).where(before, AttemptRow.outcome == "running")
    connection.execute(over.values(outcome="lost", ended=now()))
    _insert(connection, entry, {"run_id": run} | ({} if id is None else {"id": id}))
    return True


def _run(connection: Connection, entry: Entry) -> int:
    values = run_values(entry.spec) | {"created": entry.run["created"]}
    insert_new(connection, RunRow, values)
    return connection.execute(select(RunRow.id).where(RunRow.key == entry.spec.key)).scalar_one()


def _insert(connection: Connection, entry: Entry, own: dict[str, Any]) -> None:
    values = entry.attempt | own | {"number": _number(connection, entry, own["run_id"])}
    end = entry.end or {"outcome": "running"}
    row = insert_row(AttemptRow).values(
        **values, **end, notes=entry.notes, environment=_environment(connection, entry)
    )
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    for table, rows in ((ScoreRow, entry.scores), (ArtifactRow, entry.artifacts)):
        if rows:
            connection.execute(insert_row(table), [one | {"attempt_id": key[0]} for one in rows])


def _number(connection: Connection, entry: Entry, run: int) -> int:
    number = entry.attempt["number"]
    mine = AttemptRow.run_id == run
    taken = connection.scalar(select(AttemptRow.id).where(mine, AttemptRow.number == number))
    if taken is None:
        return number
    return (connection.scalar(select(func.max(AttemptRow.number)).where(mine)) or 0) + 1


def _environment(connection: Connection, entry: Entry) -> str | None:
    if entry.environment is None:
        return None
    values = environment_values(entry.environment["json"])
    created = {"created": entry.environment["created"]}
    insert_new(connection, EnvironmentRow, values | created)
    return values["digest"]
