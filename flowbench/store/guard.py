"""Owns the look at an SQLite file before it is used: what would act by itself in it is refused."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from flowbench.records import FlowbenchError, visible
from flowbench.store import forms, portable
from flowbench.store.tables import KINDS, OUTCOMES, Base
from flowbench.store.verification import readable

LONGEST = 2**26  # bytes of one value
GENERATED = (2, 3)  # what table_xinfo calls columns that an expression makes
MASTER = "select type, name, rootpage from sqlite_master"
# What SQLite may hold for what the tables declare; a REAL that is whole is stored as an integer.
KEPT = {"TEXT": ("text",), "JSON": ("text",), "DOUBLE": ("real", "integer")}
WHOLE = ("integer",)
# Whose values are proved as well: words that the code counts on, or any JSON of their form.
LOOKED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "attempts": {"outcome": OUTCOMES, "notes": ()},
    "scores": {"kind": KINDS, "protocol": ()},
    "environments": {"json": ()},
}
TABLES = {*Base.metadata.tables, "flowbench_alembic_version"}


def restrain(connection: sqlite3.Connection) -> None:
    """Let nothing in a file do more than a file should, as SQLite's authors advise."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    for pragma in ("trusted_schema=off", "cell_size_check=on"):
        connection.execute(f"pragma {pragma}")


def inspect(connection: Connection, place: str) -> None:
    """Raise FlowbenchError for triggers, and for what only has the name of our tables.

    A trigger would act on what is written, and a view or a column that is generated would make
    numbers up while they are read.
    """
    if connection.dialect.name != "sqlite":
        return
    for kind, name, root in connection.exec_driver_sql(MASTER):
        known = str(name).lower() in TABLES
        if kind == "trigger":
            raise FlowbenchError(_odd(place, f"the trigger {visible(name)}"))
        if known and (kind != "table" or not root):
            raise FlowbenchError(_odd(place, f"a {kind} in the place of the table {visible(name)}"))
        if known and _generated(connection, name):
            raise FlowbenchError(_odd(place, f"generated columns in the table {visible(name)}"))


def _odd(place: str, what: str) -> str:
    return (
        f"{place} has {what}, which flowbench never makes: it is not opened;"
        " `flowbench merge` takes its results into a database of yours"
    )


def _generated(connection: Connection, table: str) -> bool:
    query = "select hidden from pragma_table_xinfo(?)"
    return any(hidden in GENERATED for (hidden,) in connection.exec_driver_sql(query, (table,)))


def prove(connection: Connection, place: str) -> None:
    """Raise FlowbenchError where a column holds what no flowbench has written.

    SQLite keeps whatever it is given, so every type is looked at, and all JSON is read once.
    """
    if connection.dialect.name != "sqlite":
        return
    for name, table in Base.metadata.tables.items():
        looked = LOOKED.get(name, {})
        for column, values in _values(connection, name, table.columns, [*looked], place).items():
            if not _fit(name, column, values, looked[column], place):
                raise _unknown(place, name, column)
    for key, text in connection.exec_driver_sql("select key, spec from runs"):
        readable({"key": key, "spec": portable.parse(text, f"{place}, runs")}, place)


def _values(
    connection: Connection, name: str, columns: Iterable[Any], looked: Sequence[str], place: str
) -> dict[str, set[Any]]:
    """What stands in the columns `looked` of a table, whose types were all proved: in one pass."""
    known = {column.name: _types(column) for column in columns}
    asked = ", ".join([*(f'typeof("{column}")' for column in known), *looked])
    found = connection.exec_driver_sql(f'select distinct {asked} from "{name}"').all()
    for row in found:
        for column, kind in zip(known, row, strict=False):
            if kind not in known[column]:
                raise _unknown(place, name, column)
    return {word: {row[at] for row in found} for at, word in enumerate(looked, len(known))}


def _fit(name: str, column: str, values: set[Any], words: Sequence[str], place: str) -> bool:
    """Whether a column holds nothing but these words, or JSON of its form where there are none."""
    if words:
        return values <= set(words)
    fits = forms.COLUMNS[name][column][1]
    return all(fits(portable.parse(text, f"{place}, {name}")) for text in values)


def _types(column: Any) -> tuple[str, ...]:
    kinds = KEPT.get(str(column.type), WHOLE)
    return (*kinds, "null") if column.nullable else kinds


def _unknown(place: str, name: str, column: str) -> FlowbenchError:
    return FlowbenchError(
        f"{place} holds in the column {column} of {name} what no flowbench has written:"
        " `flowbench db check` looks at all of it"
    )
