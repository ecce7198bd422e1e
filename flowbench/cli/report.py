"""`flowbench report`: the leaderboard, printed or as a file that people publish."""

import sys
from pathlib import Path
from typing import Any

import click

from flowbench.cli import filters, tables, words
from flowbench.records import FlowbenchError

BUILT_IN = "[table|md|latex|csv|json|html|...]"
STANDARD = Path("-")  # the standard output


class Format(click.ParamType):
    """The name of a format; which there are is asked when one is given, and not for --help."""

    name = "format"

    def convert(self, value, param, ctx) -> str:
        from flowbench import plugins

        known = plugins.reports()
        if value not in known:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, known))}.", param, ctx)
        return value

    def shell_complete(self, ctx, param, incomplete):
        from click.shell_completion import CompletionItem

        from flowbench import plugins

        return [CompletionItem(name) for name in plugins.reports() if name.startswith(incomplete)]


@click.command()
@click.argument("methods", nargs=-1, type=words.Name("method"))
@click.option(
    "--format",
    "form",
    type=Format(),
    metavar=BUILT_IN,
    help="Or that of a plugin.  [default: by the ending of --output, or else table]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file; - prints.  [default: print]",
)
@click.option("--no-pictures", is_flag=True, help="Of html: without samples and trajectories.")
@filters.options
@words.runs
@words.data_root
@words.database
def report(asked, form, output, no_pictures, folder, data_root, db) -> None:
    """Every method at every NFE with all its metrics and costs: the leaderboard.

    As html: one page with charts, samples and trajectories that needs no network.
    """
    from flowbench.report import rendering, request

    output = None if output == STANDARD else output
    form = _form(form, output)
    store, found = tables.opened(db, asked)

    def compose(figures: bool) -> Any:
        if not figures:
            return _document(store, found)
        place = words.runs_folder(db, folder), data_root
        return _illustrated(store, found, *place, not no_pictures)

    given = request.Report(found, compose)
    if form == "table" and output is None:
        from flowbench.report import terminal

        terminal.show(given.tables())  # as wide as the terminal is
    else:
        _deliver(output, form, rendering.content(form, given))


def _form(form: str | None, output: Path | None) -> str:
    """The format, by the ending of the file unless named; raises FlowbenchError for another."""
    if output is None:
        return form or "table"
    if not output.name:
        raise FlowbenchError("--output needs the name of a file")
    if form:
        return form
    from flowbench.report import rendering

    return rendering.by_ending(output)


def _document(store: Any, found: Any, **drawn: Any) -> Any:
    from flowbench.comparison import published
    from flowbench.report import building

    rows = published.rows()
    return building.document(found, store.environments(), tables.catalogues(), rows, **drawn)


def _illustrated(
    store: Any, found: Any, folder: Path, data_root: Path | None, pictures: bool
) -> Any:
    """The document with its charts and pictures."""
    from flowbench.cli import figures

    with figures.watcher(len(found.sections)) as watch:
        drawn = figures.Figures(store, found, folder, data_root, pictures, watch)
        return _document(store, found, charts=drawn.charts, pictures=drawn.pictures)


def _deliver(output: Path | None, form: str, content: str | bytes) -> None:
    """Write to the file, or print; raises FlowbenchError for bytes that a terminal would get."""
    if output is not None:
        _write(output, content)
    elif isinstance(content, bytes) and _is_terminal():
        raise FlowbenchError(f"--format {form} makes no text: name a file with --output")
    else:
        click.echo(content, nl=False)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _write(output: Path, content: str | bytes) -> None:
    from flowbench.checkpoints import write

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write(output, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise FlowbenchError(f"{output} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {output}", err=True)
