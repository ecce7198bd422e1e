"""Owns the turn of a merge on a server, where nothing else keeps writers apart."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from flowbench.records import Spec
from flowbench.store.merging import Source, hold, insert_environments

LOCK = 7309877  # any number, as long as every process takes the same advisory lock


def wait(connection: Connection, sources: Sequence[Source]) -> None:
    """Wait for other merges, and for who writes an attempt at a run that the sources hold.

    What is read afterwards stays as it is until the end of the transaction. The order is the one
    in which attempts are opened, environments first, so that nobody waits in a circle.
    """
    if connection.dialect.name == "sqlite":  # where there is one writer at a time
        return
    connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    for source in sources:
        insert_environments(connection, source.rows)
    for source in sources:
        for row in source.rows["runs"]:
            hold(connection, Spec.from_json(row["spec"]), row["created"], source.name)
