"""Owns the room's door: the one object through which results are written and read."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flowbench.records import Absent, Artifact, FlowbenchError, Measured, Spec, Tried
from flowbench.store import queries
from flowbench.store.attempts import Attempt, open_attempt
from flowbench.store.engine import Database
from flowbench.store.queries import Selection
from flowbench.store.schema import prepare


class Store:
    """The results database behind a URL; safe to open in many processes at once."""

    def __init__(self, url: str):
        """Open the database, and create or upgrade its tables first.

        Raises FlowbenchError in one line for everything that can be wrong with it.
        """
        self._open(Database(url))

    @classmethod
    def open_existing(cls, url: str) -> "Store":
        """Open a database in order to read it, without ever creating a file.

        Raises FlowbenchError as the constructor does, and if there is no file.
        """
        database = Database(url)
        if database.file is not None and not database.file.exists():
            raise Absent(f"no results yet in {database.place}: run `flowbench run ...` first")
        store = cls.__new__(cls)
        store._open(database)
        return store

    def _open(self, database: Database) -> None:
        self._database = database
        try:
            prepare(database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the idle connections; the store opens new ones when it is used again."""
        self._database.close()

    @contextmanager
    def attempt(
        self, spec: Spec, environment: Mapping[str, Any], force: bool = False
    ) -> Iterator[Attempt]:
        """Open an attempt and store how it ended; whatever ended it is raised again.

        The caller holds the lock of this run, so an attempt that is still `running` is dead and
        becomes `lost`. `force` starts a new generation, which hides the scores before it.
        """
        attempt = open_attempt(self._database, spec, environment, force)
        try:
            yield attempt
        except BaseException as error:
            try:
                attempt.close(error)
            except FlowbenchError as trouble:  # must not hide the error that came first
                error.add_note(f"and the outcome could not be stored: {trouble}")
            raise
        attempt.close()

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
            return queries.measured(connection, Selection(dataset, methods, seeds))

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

    def environment(self, digest: str) -> dict[str, Any]:
        """Look up an environment by digest.

        Raises FlowbenchError for an unknown digest.
        """
        with self._database.transaction() as connection:
            return queries.environment(connection, digest)

    def artifacts(self, run_name: str) -> list[Artifact]:
        """List the files of the latest generation of a run."""
        with self._database.transaction() as connection:
            return queries.artifacts(connection, run_name)
