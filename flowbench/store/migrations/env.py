"""Owns how Alembic runs a migration: inside the transaction that it is handed."""

from alembic import context

from flowbench.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=context.config.attributes["version_table"],
    render_as_batch=True,
)
context.run_migrations()
