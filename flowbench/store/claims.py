"""Owns who works on a run: one attempt at a time, taken over when its worker is dead."""

import os
from collections.abc import Collection, Container, Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from flowbench.records import FlowbenchError, Spec
from flowbench.store.engine import Database
from flowbench.store.leases import Held, Holder
from flowbench.store.queries import running
from flowbench.store.tables import OUTCOMES, AttemptRow


def take_over(connection: Connection, spec: Spec, expired: Container[int]) -> None:
    """Mark the attempts of a run as lost whose worker is dead; raises Held if one is not.

    One of this very process is dead as well: it works on a run once at a time.
    """
    holders = running(connection, [spec.key])
    refuse_held(holders, spec, expired)
    dead = _still_running(connection, [holder.attempt for holder in holders])
    lost = update(AttemptRow).where(AttemptRow.id.in_(dead))
    connection.execute(lost.values(outcome="lost", ended=now()))


def refuse_held(holders: Iterable[Holder], spec: Spec, expired: Container[int]) -> None:
    """Raise Held unless each holder of the run is dead, expired, or this very process."""
    for holder in holders:
        own = holder.here and holder.pid == os.getpid()
        if not own and holder.alive is not False and holder.attempt not in expired:
            raise Held(f"{spec.name} is being worked on by another process ({holder.words})")


def _still_running(connection: Connection, ids: Collection[int]) -> list[int]:
    """Those of the attempts that are running, and on a server their rows locked in one order."""
    query = select(AttemptRow.id).where(AttemptRow.id.in_(ids), AttemptRow.outcome == "running")
    return list(connection.scalars(query.order_by(AttemptRow.id).with_for_update()))


def beat(database: Database, ids: Collection[int]) -> set[int]:
    """Tell that these attempts are worked on; returns those that are no longer running."""
    if not ids:
        return set()
    with database.transaction(write=True) as connection:
        lasting = _still_running(connection, ids)
        mine = update(AttemptRow).where(AttemptRow.id.in_(lasting))
        connection.execute(mine.values(beats=AttemptRow.beats + 1))
    return set(ids) - set(lasting)


def conclude(database: Database, id: int, outcome: str, text: str) -> bool:
    """Store how the worker of an attempt ended; returns whether it was still running."""
    require_outcome(outcome)
    with database.transaction(write=True) as connection:
        lasting = _still_running(connection, [id])
        mine = update(AttemptRow).where(AttemptRow.id.in_(lasting))
        values = {"outcome": outcome, "ended": now(), "error_text": plain(text) or None}
        connection.execute(mine.values(values))
    return bool(lasting)


def holders(database: Database, keys: Collection[str]) -> list[Holder]:
    """The running attempts of these runs."""
    with database.transaction() as connection:
        return running(connection, keys)


def require_outcome(outcome: str) -> None:
    """Raise FlowbenchError unless an attempt may end so."""
    if outcome not in OUTCOMES or outcome == "running":
        raise FlowbenchError(f'"{outcome}" is no outcome; there are {", ".join(OUTCOMES[1:])}')


def plain(text: str) -> str:
    """Text that every database takes: messages may quote file names that are not UTF-8."""
    return text.encode(errors="replace").decode().replace("\0", "")


def now() -> str:
    """The time in UTC as text; it is shown, and decides nothing."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
