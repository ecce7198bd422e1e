"""`flowbench new`: a complete package for a method, a data set or a metric of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowbench.cli import words

if TYPE_CHECKING:
    from flowbench.scaffold import Kind

LICENCES = ("mit", "apache-2.0", "bsd-3-clause", "none")


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The words that every kind takes."""
    named = [
        click.argument("name"),
        click.option(
            *("--license", "--licence", "licence"),
            type=click.Choice(LICENCES),
            default="mit",
            show_default=True,
            help="Of the package.",
        ),
        click.option(
            *("--author", "author"),
            default="",
            metavar="TEXT",
            help="'Ann Lee', or 'Ann Lee <ann@x.org>'.  [default: The flowbench-NAME authors]",
        ),
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="The folder to make.  [default: flowbench-NAME, in this folder]",
        ),
    ]
    for decorate in reversed(named):
        command = decorate(command)
    return command


@click.group()
def new() -> None:
    """Write a package of your own that works: a method, a data set or a metric.

    It has an entry point, tests, a README, a licence and a file for continuous integration.
    """


@new.command()
@shared
@click.option(
    "--from",
    "origin",
    type=words.Name("method"),
    metavar="METHOD",
    help="Start from the source of this one.  [default: a short method that explains itself]",
)
def method(name: str, licence: str, author: str, output: Path | None, origin: str | None) -> None:
    """Write the package of a method called NAME, such as my-method."""
    from flowbench import scaffold

    names = scaffold.Names(name)
    scaffold.check_free("method", names)
    original = None if origin is None else scaffold.find(origin)
    _write(scaffold.Order("method", names, licence, author, original), output)


@new.command()
@shared
def dataset(name: str, licence: str, author: str, output: Path | None) -> None:
    """Write the package of a data set called NAME."""
    _extension("dataset", name, licence, author, output)


@new.command()
@shared
def metric(name: str, licence: str, author: str, output: Path | None) -> None:
    """Write the package of a metric called NAME."""
    _extension("metric", name, licence, author, output)


def _extension(kind: "Kind", name: str, licence: str, author: str, output: Path | None) -> None:
    from flowbench import scaffold

    names = scaffold.Names(name)
    scaffold.check_free(kind, names)
    _write(scaffold.Order(kind, names, licence, author), output)


def _write(order: Any, output: Path | None) -> None:
    """Write the package and say what to type next."""
    from flowbench import scaffold

    target = Path(order.names.distribution) if output is None else output
    made = scaffold.files(order)
    scaffold.write(target, made)
    click.echo(f"wrote {target}: {len(made)} files. Next:")
    for line in scaffold.next_steps(order, target):
        click.echo(f"  {line}")
    if order.original is not None and not order.notice:
        click.echo(f"the licence of {order.original.name} is not known: ask its authors", err=True)
