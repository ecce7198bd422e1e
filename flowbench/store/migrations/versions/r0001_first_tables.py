"""Owns the first five tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    _create_environments()
    _create_runs()
    _create_attempts()
    _create_scores()
    _create_artifacts()


def _create_environments() -> None:
    op.create_table(
        "environments",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("json", sa.JSON(), nullable=False),
        sa.Column("python", sa.Text(), nullable=False),
        sa.Column("torch", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_environments"),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("key", name="uq_runs_key"),
    )
    op.create_index("ix_runs_name", "runs", ["name"])
    op.create_index("ix_runs_dataset_method_seed", "runs", ["dataset", "method", "seed"])


def _create_attempts() -> None:
    outcomes = "'running', 'ok', 'failed', 'diverged', 'interrupted', 'lost', 'timeout', 'skipped'"
    digest = ["environments.digest"]
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.Text(), nullable=False),
        sa.Column("ended", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_attempts_run_id"),
        sa.ForeignKeyConstraint(["environment"], digest, name="fk_attempts_environment"),
        sa.UniqueConstraint("run_id", "number", name="uq_attempts_run_id_number"),
        sa.CheckConstraint(f"outcome IN ({outcomes})", name=op.f("ck_attempts_outcome")),
    )
    op.create_index("ix_attempts_run_id_generation", "attempts", ["run_id", "generation"])


def _create_scores() -> None:
    alone = ["attempt_id", "subject", "name", "nfe", "n", "seed"]
    finite = "(kind = 'finite') = (value IS NOT NULL)"
    op.create_table(
        "scores",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("nfe", sa.Integer(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("protocol", sa.JSON(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_scores"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_scores_attempt_id"),
        sa.UniqueConstraint(*alone, name="uq_scores_" + "_".join(alone)),
        *_checks_of_scores(finite),
    )


def _checks_of_scores(finite: str) -> list[sa.CheckConstraint]:
    kinds = "kind IN ('finite', 'nan', 'inf', '-inf')"
    goals = "goal IN ('', 'min', 'max', 'floor')"
    checks = {"kind": kinds, "goal": goals, "value": finite}
    return [sa.CheckConstraint(text, name=op.f(f"ck_scores_{n}")) for n, text in checks.items()]


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_artifacts_attempt_id"),
    )
    op.create_index("ix_artifacts_attempt_id", "artifacts", ["attempt_id"])
