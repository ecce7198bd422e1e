"""`flowbench data`: prepare, list, check and download the image sets that do not come along."""

import os
import sys
from pathlib import Path

import click

from flowbench.cli import words
from flowbench.data import recipes
from flowbench.records import FlowbenchError

SPLITS = ["train", "test", "val", "all"]
quiet = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
output = click.option(
    "--output",
    envvar="FLOWBENCH_DATA",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    help="Folder to write to.  [default: FLOWBENCH_DATA, else the current folder]",
)
form = click.option(
    "--form",
    type=click.Choice(["zip", "array"]),
    default="zip",
    show_default=True,
    help="EDM's zip, or a folder of arrays that is mapped as it is.",
)
jobs = click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=lambda: os.cpu_count() or 1,
    help="Threads that decode.  [default: one a core]",
)


@click.group()
def data() -> None:
    """Prepare, list, check and download image sets."""


@data.command("list")
@words.data_root
def list_(data_root: Path | None) -> None:
    """List the sets that need files, what each needs, and what is there."""
    for recipe in recipes.RECIPES.values():
        found = recipes.found(data_root, recipe.stem) if data_root else []
        here = ", ".join(path.name for path in found) or "not here"
        click.echo(f"{recipe.name:15s} {recipe.summary}")
        click.echo(f"{'':15s} {here}; source: {recipe.get}")
    if data_root is None:
        click.echo("name the folder of prepared sets with --data-root DIR or FLOWBENCH_DATA")


@data.command()
@click.argument("name")
@click.option("--source", required=True, type=click.Path(path_type=Path), help="What you hold.")
@output
@click.option("--split", type=click.Choice(SPLITS), help="Part of the source to prepare.")
@click.option("--transform", type=click.Choice(list(recipes.FILTERS)), help="For sets of your own.")
@click.option("--resolution", type=click.IntRange(1, 4096), help="For sets of your own: pixels.")
@form
@jobs
@click.option("--limit", type=click.IntRange(1), help="A trial with this many of the images.")
@click.option(
    "--allow-other-count", is_flag=True, help="Take other counts and checksums than published."
)
@click.option("--check", is_flag=True, help="Read back what was written.")
@quiet
def prepare(name, source, output, split, transform, resolution, form, jobs, limit, **flags) -> None:
    """Make the set NAME from files that you hold: a known name, or one of your own.

    The same command goes on after an interruption.
    """
    from flowbench.data.prepare import Order

    recipe = recipes.find(_usable(name), resolution, transform)
    exact = not flags["allow_other_count"]
    order = Order(recipe, source, output, split, form, limit, exact, jobs)
    target = _prepare(order, flags["quiet"])
    if flags["check"]:
        _check(target, recipe, flags["quiet"])


@data.command()
@click.argument("name")
@output
@form
@jobs
@quiet
def download(name, output, form, jobs, quiet) -> None:
    """Fetch and prepare the set NAME: cifar10 or flowers128."""
    from flowbench.data.fetch import fetch
    from flowbench.data.prepare import Order

    recipe = _known(name)
    source = fetch(recipe)
    for split in ["all"] if "all" in recipe.counts else list(recipe.counts):
        _prepare(Order(recipe, source, output, split, form, jobs=jobs), quiet)


@data.command()
@click.argument("name")
@words.data_root
@quiet
def check(name, data_root, quiet) -> None:
    """Decode all of a prepared set, NAME or its PATH, and compare with its manifest."""
    if name not in recipes.RECIPES and Path(name).exists():
        _check(Path(name), None, quiet)
        return
    recipe = _known(name)
    found = recipes.found(data_root, recipe.stem) if data_root else []
    if not found:
        where = data_root or "no --data-root"
        raise FlowbenchError(f"{name} is not prepared: {where} holds no {recipe.stem}.zip")
    for path in found:
        _check(path, recipe, quiet)


def _usable(name: str) -> str:
    """The name of a set to prepare; raises FlowbenchError where no file may have it."""
    from flowbench import plugins

    if name in (".", "..") or Path(name).name != name:
        raise FlowbenchError(f"{name!r} is no name for a data set: it also names its files")
    if name not in recipes.RECIPES and name in plugins.datasets():
        raise FlowbenchError(f"{name} comes with flowbench: give your own set another name")
    return name


def _known(name: str) -> recipes.Recipe:
    if name not in recipes.RECIPES:
        raise FlowbenchError(f"{name} is none of {', '.join(recipes.RECIPES)}, and no such file")
    return recipes.RECIPES[name]


def _prepare(order, quiet: bool) -> Path:
    """Prepare one split, and say what was made."""
    from flowbench.cli.progress import watcher
    from flowbench.data.prepare import prepare

    with watcher(quiet, sys.stderr.isatty()) as watch:
        target, facts = prepare(order, watch)
    click.echo(f"{target}: {facts['n']} images {facts['shape']}, {facts['classes']} classes")
    click.echo(f"  sha256 of the decoded data: {facts['sha256']}")
    if facts["remark"]:
        click.echo(f"  {facts['remark']}")
    return target


def _check(path: Path, recipe: recipes.Recipe | None, quiet: bool) -> None:
    """Check one split, and say what was found."""
    from flowbench.cli.progress import watcher
    from flowbench.data.verify import check

    with watcher(quiet, sys.stderr.isatty()) as watch:
        found = check(path, recipe, watch)
    against = "as its manifest says" if found["manifest"] else "no manifest to compare with"
    click.echo(f"{path}: {found['n']} images {found['shape']}, {against}")
    click.echo(f"  sha256 of the decoded data: {found['sha256']}")
