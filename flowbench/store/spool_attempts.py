"""Owns attempts in a spool: how they are claimed, written, beaten for and concluded."""

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from flowbench.records import RunFailed, Score, Spec
from flowbench.store import attempts, claims, leases, queries, spool_lines
from flowbench.store.attempts import Attempt
from flowbench.store.engine import Database
from flowbench.store.leases import Holder, Superseded
from flowbench.store.schema import prepare
from flowbench.store.spool import SharedDatabase
from flowbench.store.spool_files import Folder, Place, number
from flowbench.store.tables import EnvironmentRow, RunRow

OWN = ("attempt_id",)  # what a row of a spool does not say


class SpooledAttempt(Attempt):
    """An open attempt whose every word is appended to its file, and on the disk at once.

    What a database would refuse is refused here too: each row goes into one in memory first.
    """

    def __init__(self, folder: Folder, place: Place, generation: int, rehearsal: Attempt):
        self._folder, self._place, self._rehearsal = folder, place, rehearsal
        self._lock = threading.Lock()
        self.id, self.number, self.generation = number(*place), place[1], generation

    def add(self, score: Score) -> None:
        """As of an Attempt."""
        row = attempts.score_values(0, score)
        self._append("scores", row, lambda: self._rehearsal.add(score))

    def note(self, text: str) -> None:
        """As of an Attempt."""
        self._append("notes", claims.plain(text), lambda: self._rehearsal.note(text))

    def artifact(self, role: str, path: str | Path, sha256: str, bytes: int) -> None:
        """As of an Attempt."""
        row = {"role": role, "path": str(path), "sha256": sha256, "bytes": bytes}
        words = (role, path, sha256, bytes)
        row["created"] = claims.now()
        self._append("artifacts", row, lambda: self._rehearsal.artifact(*words))

    def close(self, error: BaseException | None = None) -> None:
        """As of an Attempt."""
        self._rehearsal._database.close()
        with contextlib.suppress(FileNotFoundError):  # it was ingested meanwhile
            self._folder.end(self._place, attempts.verdict(error))

    def _append(self, kind: str, content: Any, rehearse: Callable[[], None]) -> None:
        """Write a line, if this attempt is still the one; raises Superseded if it is not."""
        with self._lock:
            outcome = self._folder.over(self._place)
            if outcome:
                raise attempts.superseded(self.number, outcome)
            rehearse()
            if isinstance(content, dict):
                content = {name: value for name, value in content.items() if name not in OWN}
            append(self._folder.file(self._place), spool_lines.line(kind, content))


def append(path: Path, content: bytes) -> None:
    """Add to a file and wait until it is on the disk; what is added in part is taken back."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        raise Superseded(f"{path.name} was ingested meanwhile, so nothing more is stored") from None
    try:
        size = os.fstat(file).st_size
        try:
            while content:
                content = content[os.write(file, content) :]
            os.fsync(file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise RunFailed(f"{path} cannot be written: {error.strerror}") from error
    finally:
        os.close(file)


def open_attempt(
    database: SharedDatabase,
    spec: Spec,
    environment: Mapping[str, Any],
    force: bool,
    expired: Container[int] = (),
) -> Attempt:
    """As of `attempts`; of several that try at once, one makes the file of the next number."""
    claims.refuse_held(holders(database, [spec.key]), spec, expired)
    rehearsal = Database("sqlite://")
    rehearsal.place = database.place
    prepare(rehearsal)
    trial = attempts.open_attempt(rehearsal, spec, environment, False)
    folder, begun = database.folder, _begun(rehearsal)
    database.create()
    folder.make()
    while True:
        last = folder.highest(spec.key)
        if last and folder.file((spec.key, last)).exists():
            folder.settle((spec.key, last))
        generation, following = _take_over(database, spec, force, expired)
        place = (spec.key, max(last + 1, following))
        own = {"number": place[1], "generation": generation, "started": claims.now()}
        begun["attempts"] |= own
        if folder.claim(place, begun):
            return SpooledAttempt(folder, place, generation, trial)


def _begun(rehearsal: Database) -> dict[str, Any]:
    """The first line of an attempt, without its number."""
    with rehearsal.transaction() as connection:
        run = connection.execute(select(RunRow.key, RunRow.spec, RunRow.created)).one()
        columns = (EnvironmentRow.digest, EnvironmentRow.json, EnvironmentRow.created)
        machine = connection.execute(select(*columns)).one_or_none()
    pid = os.getpid()
    return {
        "runs": dict(run._mapping),
        "environments": dict(machine._mapping) if machine is not None else None,
        "attempts": {
            "host": leases.host(),
            "pid": pid,
            "birth": leases.birth(pid),
        },
    }


def _take_over(
    database: SharedDatabase, spec: Spec, force: bool, expired: Container[int]
) -> tuple[int, int]:
    """Close the dead attempts of a run; the generation and lowest number of the next.

    Raises Held where one is not dead.
    """
    with database.transaction() as connection:  # one look, or one may be claimed between two
        held = _running(database, connection, [spec.key])
        run = connection.scalar(select(RunRow.id).where(RunRow.key == spec.key))
        following, generation = 1, 1
        if run is not None:
            following, generation = attempts.place_of_next(connection, run, force)
    claims.refuse_held(held, spec, expired)
    for holder in held:
        place = database.folder.find(holder.attempt)
        if place is not None:
            database.folder.end(place, {"outcome": "lost"})
    return generation, following


def holders(database: SharedDatabase, keys: Collection[str]) -> list[Holder]:
    """The running attempts of these runs by number, with beats of this moment."""
    with database.transaction() as connection:
        return _running(database, connection, keys)


def _running(
    database: SharedDatabase, connection: Connection, keys: Collection[str]
) -> list[Holder]:
    found = queries.running(connection, keys)
    fresh = []
    for holder in sorted(found, key=lambda holder: holder.number):
        place = (holder.key, holder.number)
        spooled = number(*place) == holder.attempt
        fresh.append(replace(holder, beats=database.folder.beats(place)) if spooled else holder)
    return fresh


def beat(database: SharedDatabase, ids: Collection[int]) -> set[int]:
    """Tell that these attempts are worked on; returns those that are no longer running."""
    places = {number(*place): place for place in database.folder.places()} if ids else {}
    over = {id for id in ids if id not in places or database.folder.over(places[id])}
    for id in set(ids) - over:
        database.folder.beat(places[id])
    return over


def conclude(database: SharedDatabase, id: int, outcome: str, text: str) -> bool:
    """Store how the worker of an attempt ended; returns whether it was still running."""
    claims.require_outcome(outcome)
    place = database.folder.find(id)
    row = {"outcome": outcome, "error_text": claims.plain(text) or None}
    return place is not None and database.folder.end(place, row)
