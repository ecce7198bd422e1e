"""`flowbench report`: the leaderboard, printed or as a file that people publish."""

from pathlib import Path
from typing import Any

import click

from flowbench.cli import filters, tables, words
from flowbench.records import FlowbenchError

FORMATS = ("table", "md", "latex", "csv", "json", "html")
ENDINGS = {
    **{".md": "md", ".tex": "latex", ".csv": "csv", ".json": "json"},
    **{".html": "html", ".htm": "html", ".txt": "table"},
}
STANDARD = Path("-")  # the standard output


@click.command()
@click.argument("methods", nargs=-1, type=words.Name("method"))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="[default: by the ending of --output, or else table]",
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
    output = None if output == STANDARD else output
    form = _form(form, output)
    store, found = tables.opened(db, asked)
    if form == "table" and output is None:
        from flowbench.report import building, terminal

        terminal.show(building.tables(_document(store, found)))
        return
    if form == "html":
        place = words.runs_folder(db, folder), data_root
        content = _page(store, found, *place, not no_pictures)
    else:
        content = _text(store, found, form)
    if output is None:
        click.echo(content, nl=False)
    else:
        _write(output, content)


def _form(form: str | None, output: Path | None) -> str:
    """The format, by the ending of the file unless named; raises FlowbenchError for another."""
    if output is None:
        return form or "table"
    if not output.name:
        raise FlowbenchError("--output needs the name of a file")
    found = form or ENDINGS.get(output.suffix.lower())
    if found is None:
        raise FlowbenchError(f"{output} ends in none of {', '.join(ENDINGS)}: add --format")
    return found


def _document(store: Any, found: Any, **drawn: Any) -> Any:
    from flowbench.comparison import published
    from flowbench.report import building

    rows = published.rows()
    return building.document(found, store.environments(), tables.catalogues(), rows, **drawn)


def _text(store: Any, found: Any, form: str) -> str:
    """The leaderboard in one of the formats without pictures."""
    from flowbench.report import building, latex, terminal, text

    if form == "csv":
        return text.as_csv(found.sections, found.failed)
    if form == "json":
        return text.as_json(found)
    render = {"md": text.markdown, "latex": latex.latex, "table": terminal.plain}[form]
    return render(building.tables(_document(store, found)))


def _page(store: Any, found: Any, folder: Path, data_root: Path | None, pictures: bool) -> str:
    """The page with its charts and pictures."""
    from flowbench.cli import figures
    from flowbench.report.charts import export
    from flowbench.report.page import page

    with figures.watcher(len(found.sections)) as watch:
        drawn = figures.Figures(store, found, folder, data_root, pictures, watch)
        document = _document(store, found, charts=drawn.charts, pictures=drawn.pictures)
    return page.html(document, export.svg)


def _write(output: Path, content: str) -> None:
    from flowbench.checkpoints import write

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write(output, content.encode())
    except OSError as error:
        raise FlowbenchError(f"{output} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {output}", err=True)
