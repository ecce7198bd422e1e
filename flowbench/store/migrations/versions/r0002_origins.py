"""Owns where merged attempts come from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Let every attempt say its origin; those that are there were made here."""
    op.add_column("attempts", sa.Column("origin", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "origins",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("merged", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_origins"),
        sa.CheckConstraint("kind IN ('database', 'bundle')", name=op.f("ck_origins_kind")),
    )
