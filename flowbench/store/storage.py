"""Owns the room's door: the one object through which results are written and read."""

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flowbench.records import Absent, Artifact, FlowbenchError, Measured, Spec, Tried
from flowbench.store import (
    attempts,
    claims,
    guard,
    merging,
    portable,
    queries,
    scores,
    spool,
    spool_attempts,
    spool_ingest,
    turns,
)
from flowbench.store.attempts import Attempt
from flowbench.store.engine import Database, ReadOnly
from flowbench.store.leases import Holder
from flowbench.store.merging import Merged, Source
from flowbench.store.portable import Rows
from flowbench.store.queries import Selection
from flowbench.store.schema import prepare
from flowbench.store.spool import SharedDatabase
from flowbench.store.spool_ingest import Ingested
from flowbench.store.verification import verify


class Store:
    """The results database behind a URL; safe to open in many processes at once."""

    def __init__(self, url: str):
        """Open the database, and create or upgrade its tables first.

        Raises FlowbenchError in one line for everything that can be wrong with it.
        """
        database = spool.choose(url)
        if isinstance(database, SharedDatabase):
            database.create()
        self._open(database)

    @classmethod
    def open_existing(cls, url: str) -> "Store":
        """Open a database in order to read it, without ever creating a file.

        Raises FlowbenchError as the constructor does, and if there is no file.
        """
        database = spool.choose(url)
        spooled = isinstance(database, SharedDatabase) and database.pending()
        if database.file is not None and not database.file.exists() and not spooled:
            raise Absent(f"no results yet in {database.place}: run `flowbench run ...` first")
        store = cls.__new__(cls)
        try:
            store._open(database)
        except ReadOnly:
            if database.file is None:
                raise
            store._open(database.in_memory())  # where an older one can be upgraded
            store._database.freeze()
        with store._database.transaction() as connection:
            guard.prove(connection, store._database.place)
        return store

    def _open(self, database: Database) -> None:
        self._database = database
        self._spooled = database if isinstance(database, SharedDatabase) else None
        self._attempts = spool_attempts if self._spooled else attempts
        self._claims = spool_attempts if self._spooled else claims
        try:
            with database.transaction() as connection:
                guard.inspect(connection, database.place)
            prepare(database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the idle connections; the store opens new ones when it is used again."""
        self._database.close()

    @contextmanager
    def attempt(
        self,
        spec: Spec,
        environment: Mapping[str, Any],
        force: bool = False,
        expired: Container[int] = (),
    ) -> Iterator[Attempt]:
        """Open an attempt and store how it ended; whatever ended it is raised again.

        Attempts at this run that are still `running` become `lost` if their worker is dead or
        they are in `expired`; else raises Held. `force` starts a new generation, which hides the
        scores before it.
        """
        words = (spec, environment, force, expired)
        attempt: Attempt = self._attempts.open_attempt(self._database, *words)
        try:
            yield attempt
            attempt.close()
        except BaseException as error:
            self._database.release()
            try:
                attempt.close(error)
            except FlowbenchError as trouble:  # must not hide the error that came first
                error.add_note(f"and the outcome could not be stored: {trouble}")
            raise
        if self._spooled:
            spool_ingest.relieve(self._spooled)

    def beat(self, ids: Collection[int]) -> set[int]:
        """Tell that these attempts are worked on; returns those that are no longer running."""
        return self._claims.beat(self._database, ids)

    def conclude(self, id: int, outcome: str, text: str) -> bool:
        """Store how the worker of an attempt ended; returns whether it was still running.

        Raises FlowbenchError for a word that is no outcome.
        """
        return self._claims.conclude(self._database, id, outcome, text)

    def holders(self, keys: Collection[str]) -> dict[str, Holder]:
        """Map the key of each of these runs that is worked on to its newest running attempt."""
        found = self._claims.holders(self._database, keys)
        return {holder.key: holder for holder in found}

    @property
    def advice(self) -> str:
        """One line where another place would be better: on a network file system; else empty."""
        return self._spooled.advice if self._spooled else ""

    def ingest(self, wait: bool = False) -> Ingested:
        """Join what a spool holds, if there is one; without `wait` unless another process does."""
        return spool_ingest.ingest(self._spooled, wait) if self._spooled else Ingested()

    def done(self, spec: Spec, seed: int) -> dict[tuple[str, str, int, int], dict[str, Any]]:
        """Map (subject, name, nfe, n) of all that is stored for noise stream `seed` to protocols.

        Of equals, the newest.
        """
        with self._database.transaction() as connection:
            return queries.done(connection, spec, seed)

    def measured(
        self,
        dataset: str | None = None,
        methods: Collection[str] | None = None,
        seeds: Collection[int] | None = None,
    ) -> list[Measured]:
        """List the scores of each run's latest generation, the newest of equals."""
        with self._database.transaction() as connection:
            return scores.measured(connection, Selection(dataset, methods, seeds))

    def tried(
        self,
        dataset: str | None = None,
        methods: Collection[str] | None = None,
        seeds: Collection[int] | None = None,
    ) -> list[Tried]:
        """List all attempts by run and number."""
        with self._database.transaction() as connection:
            return queries.tried(connection, Selection(dataset, methods, seeds))

    def find(self, words: str) -> Spec:
        """Find a run by name, key, attempt id, or a prefix of its name or key.

        Raises FlowbenchError if there is none, or more than one.
        """
        with self._database.transaction() as connection:
            return queries.find(connection, words)

    def specs(self) -> dict[str, Spec]:
        """Map the key of every run to its Spec."""
        with self._database.transaction() as connection:
            return queries.by_key(connection)

    def environment(self, digest: str) -> dict[str, Any]:
        """Look up an environment by digest.

        Raises FlowbenchError for an unknown digest.
        """
        with self._database.transaction() as connection:
            return queries.environment(connection, digest)

    def environments(self) -> dict[str, dict[str, Any]]:
        """Map the digest of every environment to its facts, without its packages."""
        with self._database.transaction() as connection:
            return queries.environments(connection)

    def artifacts(self, run_name: str) -> list[Artifact]:
        """List the files of the latest generation of a run."""
        with self._database.transaction() as connection:
            return queries.artifacts(connection, run_name)

    def rows(self, dataset: str | None = None, methods: Collection[str] | None = None) -> Rows:
        """All that has ended, in the form in which it travels, and proved as a reader will.

        Raises FlowbenchError for rows that no flowbench has written.
        """
        with self._database.transaction() as connection:
            clauses = Selection(dataset, methods).clauses()
            rows = portable.read(connection, self._database.place, clauses)
        verify(rows, self._database.place)
        return rows

    def merge(
        self, sources: Sequence[Source], place: Callable[[Sequence[Merged]], None]
    ) -> list[Merged]:
        """Insert what is new of all sources, or nothing; `place` moves their files before the end.

        Raises FlowbenchError for what is here with other content.
        """
        self.ingest(wait=True)
        with self._database.transaction(write=True) as connection:
            turns.wait(connection, sources)
            told = [merging.merge(connection, source) for source in sources]
            place(told)
        return told

    def origins(self) -> dict[str, str]:
        """The names of the files, by digest, that attempts were merged from."""
        with self._database.transaction() as connection:
            return merging.origins(connection)
