"""`flowbench published`: the numbers that papers print, which nobody measured here."""

import click

from flowbench.cli import words
from flowbench.records import FlowbenchError


@click.command()
@click.option("--dataset", type=words.Name("dataset"), help="Only this one.  [default: all]")
@click.option("--method", help="As the papers call it, or as flowbench does.  [default: all]")
@click.option("--paper", metavar="NUMBER", help="Of arXiv: 2412.06403.  [default: all]")
@click.option("--nfe", type=words.NFE, help="Evaluations per sample.  [default: all]")
@click.option("--metric", "metrics", metavar="NAMES", help="With commas.  [default: all]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "csv", "json", "latex"]),
    default="table",
    show_default=True,
)
def published(dataset, method, paper, nfe, metrics, form) -> None:
    """Print the numbers that papers publish, by paper and table: none of them measured here.

    `compare` and `report` hold ours against them where the protocol allows it.
    """
    from flowbench.comparison import published as numbers

    wanted = tuple(name.strip() for name in metrics.split(",")) if metrics else ()
    found = numbers.select(numbers.rows(), dataset, method, paper, nfe or (), wanted)
    if not found:
        raise FlowbenchError("no published number is all of that: leave one of the options out")
    _print(found, form)


def _print(found, form: str) -> None:
    from flowbench.report import reproduction

    if form in ("csv", "json"):
        write = {"csv": reproduction.as_csv, "json": reproduction.as_json}[form]
        click.echo(write(found), nl=False)
        return
    tables = reproduction.published_tables(found)
    if form == "table":
        from flowbench.report import terminal

        terminal.show(tables)
    elif form == "md":
        from flowbench.report import text

        click.echo(text.markdown(tables), nl=False)
    else:
        from flowbench.report import latex

        click.echo(latex.latex(tables), nl=False)
