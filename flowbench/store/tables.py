"""Owns the tables as the code reads and writes them; `migrations` builds the same ones."""

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

OUTCOMES = ("running", "ok", "failed", "diverged", "interrupted", "lost", "timeout", "skipped")
KINDS = ("finite", "nan", "inf", "-inf")
GOALS = ("", "min", "max", "floor")
SOURCES = ("database", "bundle")


def _one_of(column: str, words: tuple[str, ...]) -> CheckConstraint:
    quoted = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({quoted})", name=column)


class Base:
    """A table whose columns are attributes; a class stands for it in a statement.

    SQLAlchemy's own classes of that kind take a tenth of a second to import. Every constraint has
    a name, so that a migration can find it again. Times are UTC ISO text.
    """

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    __tablename__: ClassVar[str]
    __table_args__: ClassVar[tuple[Any, ...]] = ()
    __table__: ClassVar[Table]

    def __init_subclass__(cls) -> None:
        columns = {name: part for name, part in vars(cls).items() if isinstance(part, Column)}
        for name, column in columns.items():
            column.name = column.key = name
        parts = (*columns.values(), *cls.__table_args__)
        cls.__table__ = Table(cls.__tablename__, cls.metadata, *parts)

    @classmethod
    def __clause_element__(cls) -> Table:
        """What SQLAlchemy takes for the class."""
        return cls.__table__


def _column(kind: Any, *more: Any, nullable: bool = False, **given: Any) -> ColumnElement[Any]:
    return Column(kind, *more, nullable=nullable, **given)


class EnvironmentRow(Base):
    """One row per distinct environment."""

    __tablename__ = "environments"
    digest = _column(Text, primary_key=True)
    json = _column(JSON)
    python = _column(Text)
    torch = _column(Text)
    device = _column(Text)
    created = _column(Text)


class RunRow(Base):
    """One row per `Spec.key`."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "dataset", "method", "seed"),)
    id = _column(Integer, primary_key=True)
    key = _column(Text, unique=True)
    name = _column(Text, index=True)
    method = _column(Text)
    dataset = _column(Text)
    seed = _column(BigInteger)
    spec = _column(JSON)
    created = _column(Text)


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
    id = _column(Integer, primary_key=True)
    run_id = _column(Integer, ForeignKey("runs.id"))
    number = _column(Integer)
    generation = _column(Integer)
    environment = _column(Text, ForeignKey("environments.digest"), nullable=True)
    host = _column(Text)
    pid = _column(BigInteger)
    started = _column(Text)
    ended = _column(Text, nullable=True)
    outcome = _column(Text)
    error_type = _column(Text, nullable=True)
    error_text = _column(Text, nullable=True)
    notes = _column(JSON)
    origin = _column(Text, server_default="")
    beats = _column(Integer, server_default="0")
    birth = _column(Text, server_default="")


class ScoreRow(Base):
    """One number; SQLite turns NaN into NULL, hence `kind`."""

    __tablename__ = "scores"
    __table_args__ = (
        UniqueConstraint("attempt_id", "subject", "name", "nfe", "n", "seed"),
        _one_of("kind", KINDS),
        _one_of("goal", GOALS),
        CheckConstraint("(kind = 'finite') = (value IS NOT NULL)", name="value"),
    )
    id = _column(Integer, primary_key=True)
    attempt_id = _column(Integer, ForeignKey("attempts.id"))
    subject = _column(Text)
    name = _column(Text)
    nfe = _column(Integer)
    n = _column(BigInteger)
    seed = _column(BigInteger)
    value = _column(Double, nullable=True)
    kind = _column(Text)
    goal = _column(Text)
    protocol = _column(JSON)
    fingerprint = _column(Text)
    created = _column(Text)


class ArtifactRow(Base):
    """One file that an attempt left behind."""

    __tablename__ = "artifacts"
    id = _column(Integer, primary_key=True)
    attempt_id = _column(Integer, ForeignKey("attempts.id"), index=True)
    role = _column(Text)
    path = _column(Text)
    sha256 = _column(Text)
    bytes = _column(BigInteger)
    created = _column(Text)


class OriginRow(Base):
    """One source that attempts were merged from, and how many it held of its own."""

    __tablename__ = "origins"
    __table_args__ = (_one_of("kind", SOURCES),)
    digest = _column(Text, primary_key=True)
    name = _column(Text)
    kind = _column(Text)
    merged = _column(Text)
    attempts = _column(Integer)
