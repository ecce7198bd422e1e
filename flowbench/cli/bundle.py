"""`flowbench export` and `flowbench merge`: results that leave, and results that arrive."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from flowbench.cli import words

SHOWN = 5  # paths in a message


@click.command()
@click.option(
    "--bundle",
    "output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The zip to write.",
)
@click.option("--dataset", type=words.Name("dataset"), help="Only this one.  [default: all]")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=words.Name("method"),
    help="Only this one; several times for several.",
)
@click.option("--no-artifacts", "bare", is_flag=True, help="Leave networks and samples out.")
@words.runs
@words.database
def export(output: Path, dataset, methods, bare: bool, folder, db: str) -> None:
    """Write results, their files and a manifest of hashes to one zip, for `flowbench merge`."""
    from flowbench import bundle, options
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    specs = [attempt.spec for attempt in store.tried()]
    if dataset is not None:
        options.choose("data set", dataset, {spec.dataset for spec in specs})
    for name in methods:
        options.choose("method", name, {spec.method for spec in specs})
    old = output.exists()
    with _bar(f"writing {output}") as watch:
        place = words.runs_folder(db, folder)
        made = bundle.export(store, place, output, dataset, methods, not bare, watch)
    if old:
        click.echo(f"replaced {output}", err=True)
    if made.missing:
        text = f"{_count(len(made.missing), 'file')} left out, because not in {place}"
        click.echo(f"{text}: {_some(made.missing)}", err=True)
    if made.rows.running:
        text = _count(made.rows.running, "attempt")
        click.echo(f"{text} had not ended, so left out: run again what was interrupted", err=True)
    counts = [_count(len(made.rows[f"{name}s"]), name) for name in ("attempt", "score")]
    counts += [_count(made.files, "file"), f"{made.bytes / 1e6:.3g} MB"]
    click.echo(f"wrote {output}: {_count(len(made.rows['runs']), 'run')} ({', '.join(counts)})")


@click.command()
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    metavar="SOURCE...",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@words.runs
@words.database
def merge(sources, folder, db: str) -> None:
    """Add the results of SOURCE, a bundle or another results.db, once all hashes were checked.

    Nothing that is here is overwritten or hidden; each attempt keeps where it came from.
    """
    from flowbench import bundle

    with _bar("reading") as watch:
        joined = bundle.merge(words.url(db), words.runs_folder(db, folder), sources, watch)
    for one in joined:
        if one.kept:
            text = f"{one.source.name} has other files than you, and yours are kept"
            click.echo(f"{text}: {_some(one.kept)}", err=True)
        if one.apart and one.merged.attempts:
            text = "its files stay beside it; a bundle (`flowbench export`) brings them along"
            click.echo(f"{one.source.name}: {text}", err=True)
        click.echo(_line(one))


def _line(one) -> str:
    """What became of a source, in one line."""
    told = one.merged
    counts = [_count(told.attempts, "attempt"), _count(told.scores, "score")]
    counts.append(_count(one.files, "file"))
    parts = [f"merged {_count(told.runs, 'run')} ({', '.join(counts)}) of {one.source.name}"]
    if told.known:
        parts.append(f"{_count(told.known, 'attempt')} {_were(told.known)} here already")
    if told.hidden:
        parts.append(f"{_count(told.hidden, 'run')} {_are(told.hidden)} here too: yours are shown")
    if told.shown:
        text = f"{_count(told.shown, 'run')} {_were(told.shown)} never finished here"
        parts.append(f"{text}: the merged ones are shown")
    if one.running:
        parts.append(f"{_count(one.running, 'attempt')} had not ended and stayed there")
    return "; ".join(parts)


def _some(paths: Sequence[str]) -> str:
    """The first of many paths."""
    more = f", and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal; it hears of bytes done and of all."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def watch(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield watch
