"""Owns what tells whether the worker of an attempt still lives."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Let attempts beat, and say which process they are beside its number."""
    op.add_column("attempts", sa.Column("beats", sa.Integer(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("birth", sa.Text(), server_default="", nullable=False))
