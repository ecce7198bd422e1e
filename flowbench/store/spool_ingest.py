"""Owns the way from a spool into its database: killed at any moment, nothing is lost or doubled."""

import contextlib
import os
from dataclasses import dataclass

from sqlalchemy import select

from flowbench.records import FlowbenchError, RunFailed
from flowbench.store import leases, spool_rows
from flowbench.store.spool import SharedDatabase
from flowbench.store.spool_files import END, Spooled
from flowbench.store.spool_lines import Unusable
from flowbench.store.tables import AttemptRow, RunRow

MANY = 32  # ended attempts, each of which costs every look some milliseconds


@dataclass(frozen=True)
class Ingested:
    """What became of a spool: attempts that are new in the database, run on, or are unusable."""

    new: int = 0
    running: int = 0
    unusable: tuple[str, ...] = ()


def ingest(database: SharedDatabase, wait: bool = True) -> Ingested:
    """Commit all that has ended to the database, then put its files away.

    Without `wait` it is left to the process that does so at this moment. Attempts in the folder of
    what was put away that the database has lost come back.
    """
    if not database.folder.path.is_dir():
        return Ingested()
    try:
        with database.folder.lock() if wait else database.folder.lock(0):
            return _ingest(database)
    except RunFailed:
        if wait:
            raise
        return Ingested()


def relieve(database: SharedDatabase) -> None:
    """Ingest when much has come together, so that looking at it stays fast."""
    ended = sum(name.endswith(END) for name in os.listdir(database.folder.path))
    if ended > MANY:
        with contextlib.suppress(FlowbenchError):  # it is as well left to the next
            ingest(database, wait=False)


def state(database: SharedDatabase) -> Ingested:
    """What there is to ingest, without a change."""
    pending = database.pending()
    running = sum(one.entry.end is None for one in pending)
    return Ingested(len(pending) - running, running, _unusable(database))


def _ingest(database: SharedDatabase) -> Ingested:
    pending = [_closed(database, one) for one in database.pending()]
    ended = [one for one in pending if one.entry.end is not None]
    lost = _lost(database)
    new = 0
    if ended or lost:
        with database.transaction(write=True) as connection:
            for one in [*lost, *ended]:
                new += spool_rows.insert(connection, one.entry)
    for one in ended:
        database.folder.put_away((one.key, one.number))
    _tidy(database)
    return Ingested(new, len(pending) - len(ended), _unusable(database))


def _closed(database: SharedDatabase, one: Spooled) -> Spooled:
    """An attempt, closed if its process ran here and is gone."""
    row, place = one.entry.attempt, (one.key, one.number)
    dead = leases.look(row["host"], row["pid"], row["birth"])[1] is False
    if one.entry.end is None and dead and database.folder.end(place, {"outcome": "lost"}):
        return database.folder.read(place) or one
    return one


def _lost(database: SharedDatabase) -> list[Spooled]:
    """Attempts that were put away and are not in the database."""
    with database.transaction() as connection:
        query = select(RunRow.key, AttemptRow.number)
        there = {tuple(row) for row in connection.execute(query.join(AttemptRow))}
    done = database.folder.done
    found = []
    for place in set(database.folder.places(done)) - there:
        try:
            one = database.folder.read(place, done)
        except Unusable:
            continue
        found += [one] if one is not None and one.entry.end is not None else []
    return sorted(found, key=lambda one: (one.key, one.number))


def _tidy(database: SharedDatabase) -> None:
    """Move what a killed process left of an attempt that it had put away."""
    folder = database.folder
    for place in folder.places(folder.done):
        if folder.file(place, END).exists() and not folder.file(place).exists():
            folder.put_away(place)


def _unusable(database: SharedDatabase) -> tuple[str, ...]:
    """Files that are no attempts."""
    found = []
    for place in database.folder.places():
        try:
            database.folder.read(place)
        except Unusable as error:
            found.append(str(error))
    return tuple(found)
