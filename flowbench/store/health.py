"""Owns the examination of a results database: what is whole, what is not, and what to do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, select

from flowbench.records import FlowbenchError, visible
from flowbench.store import (
    filesystem,
    foreign,
    guard,
    health_files,
    health_wal,
    portable,
    queries,
    schema,
    spool_ingest,
    views,
)
from flowbench.store.attempts import run_values
from flowbench.store.engine import Database
from flowbench.store.health_files import NOTE, OK, PROBLEM, Finding, some
from flowbench.store.spool import SharedDatabase
from flowbench.store.spool_files import Folder
from flowbench.store.tables import Base, RunRow
from flowbench.store.verification import verify

NAMED = ("name", "method", "dataset", "seed")  # columns that follow from the spec of a run
REPAIR = "run `flowbench db repair`"


def check(url: str, folder: Path, files: bool = False) -> list[Finding]:
    """Everything that can be said of a database without changing it.

    `folder` is that of the runs; `files` also hashes every file that the database names. Raises
    FlowbenchError where there is none.
    """
    database = Database(url)
    if database.file is None:
        with database.transaction() as connection:
            found = _whole(connection, database.place, folder, files)
        database.close()
        return [*found, health_files.parts(folder)]
    path = database.file
    if not path.is_file():
        raise FlowbenchError(f"there is no database {path}: name the file of one, or use --db")
    found = [_place(path), *_spool(url, path), *_log(path)]
    try:
        with foreign.snapshot(path) as connection:
            found += _whole(connection, str(path), folder, files)
    except FlowbenchError as error:
        found.append(Finding("file", PROBLEM, _after(error, path), REPAIR))
    return [*found, health_files.parts(folder, path)]


def _whole(connection: Connection, place: str, folder: Path, files: bool) -> list[Finding]:
    """What the database tells, and what became of the files that it names."""
    found = look(connection, place)
    if any(one.state == PROBLEM for one in found):
        return found
    return [*found, health_files.artifacts(connection, folder, files)]


def look(connection: Connection, place: str) -> list[Finding]:
    """What the database itself tells: its pages, schema, views and rows."""
    found = list(_integrity(connection))
    if any(one.state == PROBLEM for one in found):
        return found
    revision = _revision(connection)
    found.append(revision)
    if revision.state == PROBLEM:
        return found
    asked: list[tuple[str, Callable[[Connection, str], Finding]]] = [
        ("triggers", _odd),
        ("rows", _rows),
    ]
    if revision.state == OK:  # of an older one, these are made by the upgrade
        asked += [("views", _views), ("running", _running)]
    for what, one in asked:
        try:
            found.append(one(connection, place))
        except FlowbenchError as error:
            found.append(Finding(what, PROBLEM, _after(error, place), REPAIR))
    return found


def _after(error: FlowbenchError, place: Any) -> str:
    """What an error says after the name of the database."""
    return str(error).removeprefix(str(place)).lstrip(":, ").strip()


def _place(path: Path) -> Finding:
    kind = filesystem.kind(path)
    if kind:
        return Finding("place", OK, f"{path} is on a network file system ({kind})")
    return Finding("place", OK, f"{path} is on a local file system")


def _spool(url: str, path: Path) -> Iterator[Finding]:
    """What waits beside the file to be joined."""
    if not Folder(path).path.is_dir():
        return
    state = spool_ingest.state(SharedDatabase(url))
    text = f"{state.new} attempts wait, {state.running} run"
    if state.unusable:
        advice = "move these files away: nothing of them is used"
        yield Finding("spool", PROBLEM, f"{text}; {some(list(state.unusable))}", advice)
    else:
        advice = "`flowbench db ingest` joins them; every command sees them already"
        yield Finding("spool", OK, text, advice if state.new else "")


def _log(path: Path) -> Iterator[Finding]:
    """The log beside the file, if it is damaged before its end."""
    log = path.with_name(f"{path.name}-wal")
    try:
        size = int.from_bytes(path.read_bytes()[16:18], "big")
        content = log.read_bytes() if log.exists() else b""
    except OSError:
        return
    if health_wal.read(content, 65536 if size == 1 else size).damaged:
        text = f"{log.name} is damaged: what was committed last would be forgotten"
        yield Finding("log", PROBLEM, text, REPAIR)


def _integrity(connection: Connection) -> Iterator[Finding]:
    if connection.dialect.name != "sqlite":
        yield Finding("pages", OK, "left to the server", "amcheck and pg_dump look at them")
        return
    said = [str(row[0]) for row in connection.exec_driver_sql("pragma integrity_check(20)")]
    if said != ["ok"]:
        lines = [visible(line) for text in said for line in text.splitlines()]
        lines = [line for line in lines if not line.startswith("***")] or lines
        yield Finding("pages", PROBLEM, some(lines), REPAIR)
        return
    yield Finding("pages", OK, "every page and index is whole")
    orphans = connection.exec_driver_sql("pragma foreign_key_check").all()
    if orphans:
        text = (
            f"{len(orphans)} rows belong to nothing, such as one of {visible(str(orphans[0][0]))}"
        )
        yield Finding("references", PROBLEM, text, REPAIR)
    else:
        yield Finding("references", OK, "every row belongs to something")


def _revision(connection: Connection) -> Finding:
    found = schema.revision(connection)
    there = set(inspect(connection).get_table_names())
    names = set(Base.metadata.tables) - ({"origins"} if found in foreign.OLDER else set())
    if found is None and not there & names:
        text = "holds no results of flowbench"
        return Finding("schema", PROBLEM, text, "choose another file, or restore a backup")
    if names - there or found is None:
        missing = min(names - there, default=schema.VERSION_TABLE)
        return Finding("schema", PROBLEM, f"the table {missing} is missing", REPAIR)
    if found == schema.HEAD:
        return Finding("schema", OK, f"{found}, of this flowbench")
    if found in foreign.KNOWN:
        advice = "run `flowbench db upgrade`, or any command that writes"
        return Finding("schema", NOTE, f"{found}, older than {schema.HEAD}", advice)
    text = f"{visible(str(found))}, but this flowbench knows only up to {schema.HEAD}"
    return Finding("schema", PROBLEM, text, "run `pip install -U flowbench`")


def _odd(connection: Connection, place: str) -> Finding:
    guard.inspect(connection, place)
    return Finding("triggers", OK, "none")


def _rows(connection: Connection, place: str) -> Finding:
    found = schema.revision(connection)
    rows = portable.read(connection, place, origins=found not in foreign.OLDER)
    specs = verify(rows, place)
    named = select(RunRow.key, *(getattr(RunRow, name) for name in NAMED))
    for row in connection.execute(named):
        spec = specs.get(row.key)  # none where no attempt has ended yet
        if spec and tuple(row[1:]) != tuple(run_values(spec)[name] for name in NAMED):
            raise FlowbenchError(f"{place}: the run {spec.name} has another name than its spec")
    if found == schema.HEAD:
        guard.prove(connection, place)
    counts = ", ".join(f"{len(rows[name])} {name}" for name in ("runs", "attempts", "scores"))
    return Finding("rows", OK, f"{counts}: each has its form and its hash")


def _views(connection: Connection, place: str) -> Finding:
    known = views.texts(connection.dialect.name)
    missing = sorted(known.keys() - set(inspect(connection).get_view_names()))
    if missing:
        return Finding("views", PROBLEM, f"{some(missing)} missing", REPAIR)
    if connection.dialect.name == "sqlite":
        query = "select name, sql from sqlite_master where type = 'view'"
        there = {row.name: row.sql for row in connection.exec_driver_sql(query)}
        changed = [name for name, text in known.items() if not there[name].endswith(text)]
        if changed:
            return Finding("views", PROBLEM, f"{some(changed)} changed by somebody", REPAIR)
    return Finding("views", OK, ", ".join(sorted(known)))


def _running(connection: Connection, place: str) -> Finding:
    holders = queries.running(connection, list(connection.scalars(select(RunRow.key))))
    dead = [one for one in holders if one.alive is False]
    if not dead:
        return Finding("running", OK, f"{len(holders)} attempts")
    advice = "run the same commands again: these become `lost`, and new attempts go on"
    text = f"{len(dead)} of {len(holders)} attempts have no process any more"
    return Finding("running", NOTE, text, advice)
