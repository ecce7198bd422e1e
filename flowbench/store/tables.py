"""Owns the tables as the code reads and writes them; `migrations` builds the same ones."""

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

OUTCOMES = ("running", "ok", "failed", "diverged", "interrupted", "lost", "timeout", "skipped")
KINDS = ("finite", "nan", "inf", "-inf")
GOALS = ("", "min", "max", "floor")
SOURCES = ("database", "bundle")


def _one_of(column: str, words: tuple[str, ...]) -> CheckConstraint:
    quoted = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({quoted})", name=column)


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can find it again. Times are UTC ISO text."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {str: Text, dict[str, Any]: JSON}


class EnvironmentRow(Base):
    """One row per distinct environment."""

    __tablename__ = "environments"
    digest: Mapped[str] = mapped_column(primary_key=True)
    json: Mapped[dict[str, Any]]
    python: Mapped[str]
    torch: Mapped[str]
    device: Mapped[str]
    created: Mapped[str]


class RunRow(Base):
    """One row per `Spec.key`."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "dataset", "method", "seed"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(index=True)
    method: Mapped[str]
    dataset: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    spec: Mapped[dict[str, Any]]
    created: Mapped[str]


class AttemptRow(Base):
    """One process that worked on a run; never changed once it has ended.

    `origin` names the source that it was merged from; "" is here. A merged attempt of a run that
    was here already has a generation below 1. `beats` and `birth` tell whether its worker lives;
    they stay in this database.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("run_id", "number"),
        Index(None, "run_id", "generation"),
        _one_of("outcome", OUTCOMES),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int]
    generation: Mapped[int]
    environment: Mapped[str | None] = mapped_column(ForeignKey("environments.digest"))
    host: Mapped[str]
    pid: Mapped[int] = mapped_column(BigInteger)
    started: Mapped[str]
    ended: Mapped[str | None]
    outcome: Mapped[str]
    error_type: Mapped[str | None]
    error_text: Mapped[str | None]
    notes: Mapped[list[str]] = mapped_column(JSON)
    origin: Mapped[str] = mapped_column(server_default="")
    beats: Mapped[int] = mapped_column(server_default="0")
    birth: Mapped[str] = mapped_column(server_default="")


class ScoreRow(Base):
    """One number; SQLite turns NaN into NULL, hence `kind`."""

    __tablename__ = "scores"
    __table_args__ = (
        UniqueConstraint("attempt_id", "subject", "name", "nfe", "n", "seed"),
        _one_of("kind", KINDS),
        _one_of("goal", GOALS),
        CheckConstraint("(kind = 'finite') = (value IS NOT NULL)", name="value"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"))
    subject: Mapped[str]
    name: Mapped[str]
    nfe: Mapped[int]
    n: Mapped[int] = mapped_column(BigInteger)
    seed: Mapped[int] = mapped_column(BigInteger)
    value: Mapped[float | None] = mapped_column(Double)
    kind: Mapped[str]
    goal: Mapped[str]
    protocol: Mapped[dict[str, Any]]
    fingerprint: Mapped[str]
    created: Mapped[str]


class ArtifactRow(Base):
    """One file that an attempt left behind."""

    __tablename__ = "artifacts"
    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"), index=True)
    role: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[str]


class OriginRow(Base):
    """One source that attempts were merged from, and how many it held of its own."""

    __tablename__ = "origins"
    __table_args__ = (_one_of("kind", SOURCES),)
    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    merged: Mapped[str]
    attempts: Mapped[int]
