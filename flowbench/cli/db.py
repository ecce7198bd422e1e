"""`flowbench db`: look after a database of results: check, repair, back up, upgrade, ingest."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words
from flowbench.records import FlowbenchError, RunFailed, visible

name = click.argument("database", required=False, metavar="[DATABASE]")


@click.group()
def db() -> None:
    """Check, repair, back up, upgrade and ingest: look after a database of results.

    DATABASE is an SQLite file or a URL; without one it is that of --db.
    """


@db.command()
@name
@click.option("--files", is_flag=True, help="Also hash every file that the database names.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@words.runs
@words.database
def check(database: str | None, files: bool, as_json: bool, folder, db: str) -> None:
    """Look at every page, row and reference; nothing is changed. Exit code 3: a problem."""
    from flowbench.store import health

    chosen = database or db
    found = health.check(words.url(chosen), words.runs_folder(chosen, folder), files)
    wrong = [one for one in found if one.state == "problem"]
    if as_json:
        rows = [vars(one) for one in found]
        click.echo(json.dumps({"database": _shown(chosen), "ok": not wrong, "checks": rows}))
    else:
        _table(found)
    if wrong:
        first = f"{wrong[0].what}: {wrong[0].text}"
        raise RunFailed(f"{_shown(chosen)} has {_count(len(wrong), 'problem')}: {first}")


@db.command()
@name
@words.database
def repair(database: str | None, db: str) -> None:
    """Save what can be read of a damaged SQLite file; that stays beside it as .damaged-N."""
    from flowbench.store import health, health_repair

    path = _file(database or db, "repaired", "use its own tools, such as amcheck and pg_dump")
    found = health.check(words.url(str(path)), words.runs_folder(str(path)))
    wrong = [one for one in found if one.state == "problem"]
    if not wrong:
        click.echo(f"{path} is whole: nothing to repair")
        return
    newer = [one for one in wrong if "pip install" in one.advice]
    if newer:
        raise FlowbenchError(f"{path} has schema {newer[0].text}: {newer[0].advice}")
    done = health_repair.repair(path)
    for line in _told(done.saved):
        click.echo(line)
    click.echo(f"repaired {path}; the damaged file is {done.damaged}")


@db.command()
@name
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@words.database
def backup(database: str | None, file: Path | None, force: bool, db: str) -> None:
    """Copy one moment of an SQLite file to FILE, while others may write, and prove the copy.

    FILE is by default the first free one of DATABASE.backup-1, -2, ...
    """
    from flowbench.store import health_backup

    path = _file(database or db, "backed up", "use pg_dump")
    target, rows = health_backup.backup(path, file, force)
    click.echo(f"wrote {target}: {_count(rows, 'row')}, {target.stat().st_size / 1e6:.3g} MB")


@db.command()
@name
@words.database
def upgrade(database: str | None, db: str) -> None:
    """Bring a database to the schema of this flowbench, an SQLite file with a backup before."""
    from flowbench.store import health_backup

    chosen = database or db
    before, after, kept = health_backup.upgrade(words.url(chosen))
    if before == after:
        click.echo(f"{_shown(chosen)} has schema {after} already: nothing to upgrade")
        return
    copy = f"; the one before is {kept}" if kept else ""
    click.echo(f"upgraded {_shown(chosen)} from schema {before} to {after}{copy}")


@db.command()
@name
@words.database
def ingest(database: str | None, db: str) -> None:
    """Join what workers on a network file system have written into the database.

    Every command sees it before that too; workers do it themselves at their end.
    """
    from flowbench.store import Store

    chosen = database or db
    store = Store.open_existing(words.url(chosen))
    if not store.advice:
        click.echo(f"{_shown(chosen)} has no spool: nothing to ingest")
        return
    found = store.ingest(wait=True)
    running = f"; {found.running} still run" if found.running else ""
    click.echo(f"ingested {_count(found.new, 'attempt')} into {_shown(chosen)}{running}")
    if found.unusable:
        raise RunFailed(f"left out: {visible('; '.join(found.unusable[:3]))}")


def _file(chosen: str, what: str, advice: str) -> Path:
    """The SQLite file that is meant; raises FlowbenchError for a server and for no file."""
    from flowbench.store.engine import Database

    path = Database(words.url(chosen)).file
    if path is None:
        raise FlowbenchError(f"{_shown(chosen)} is not {what} by flowbench: {advice}")
    if not path.is_file():
        raise FlowbenchError(f"there is no database {path}: name the file of one, or use --db")
    return path


def _shown(chosen: str) -> str:
    """The database without its password."""
    from flowbench.store.engine import Database

    return visible(Database(words.url(chosen)).place)


def _table(found: Sequence[Any]) -> None:
    """Print findings below each other, what to do under those that need it."""
    wide = max(len(one.what) for one in found)
    for one in found:
        click.echo(visible(f"{one.what:{wide}s}  {one.state:7s}  {one.text}"))
        if one.advice:
            click.echo(visible(f"{'':{wide}s}           {one.advice}"))


def _told(saved: Any) -> list[str]:
    """What was saved and what was lost, table by table."""
    kept = [_count(len(rows), table[:-1]) for table, rows in saved.rows.items() if rows]
    lines = [f"saved {', '.join(kept)}"]
    for table in saved.rows:
        broken, gaps = saved.broken[table], saved.gaps[table]
        parts = [f"{broken} broke a rule"] * bool(broken) + [f"{gaps} unreadable"] * bool(gaps)
        if parts:
            lines.append(f"lost {_count(broken + gaps, table[:-1])}: {', '.join(parts)}")
    if saved.pages:
        lines.append(f"{_count(saved.pages, 'page')} could not be read")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
