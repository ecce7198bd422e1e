"""`flowbench ref`: reference statistics of real images, made here or by others."""

import sys
from pathlib import Path

import click

from flowbench.cli import words
from flowbench.records import Absent, FlowbenchError


@click.group()
def ref() -> None:
    """Make, describe and list reference statistics of real images."""


@ref.command()
@click.argument("dataset", type=words.Name("dataset"))
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option(
    "--extractor",
    type=click.Choice(["inception", "clean", "dinov2"]),
    default="inception",
    show_default=True,
    help="clean: Inception after clean-fid's resizing.",
)
@click.option(
    "--rows", type=click.IntRange(2), help="Images, drawn with a fixed seed.  [default: all]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an npz (mu, sigma) too, as EDM has them.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@words.inception
@words.dinov2
@words.data_root
def build(dataset, split, extractor, rows, device, output, quiet, inception, dinov2, data_root):
    """Make the statistics of a data set, or find them in the cache."""
    from flowbench import environment, planning
    from flowbench.cli.progress import watcher
    from flowbench.metrics import extractors, reference_files, references

    place = environment.device(device)
    weights = _weights(extractor, words.extractors(inception, dinov2))
    data = planning.load_data(dataset, place, data_root)
    rows_of = _split(data, dataset, split)
    network = extractors.load(extractor, weights, place)
    with watcher(quiet, sys.stderr.isatty()) as watch:
        made = references.build(
            *(rows_of, data.sha256, split, network, rows, watch, _note), label=data.name
        )
    if output is not None:
        reference_files.write_npz(made, output)
    if not quiet:
        click.echo(f"{data.name}, {split}: {made.n} images, {len(made.pool.mean)} features")
        click.echo(output or references.find_built(made.facts))


def _note(text: str) -> None:
    click.echo(text, err=True)


def _weights(extractor: str, found: dict[str, Path]) -> Path:
    """The file of weights of an extractor; raises Absent with how to supply it."""
    from flowbench.known_weights import KNOWN
    from flowbench.weights import NETWORKS

    known = KNOWN[NETWORKS[extractor]]
    if known.name not in found:
        fetch = f"flowbench weights download {known.name}, or " if known.sha256 else ""
        raise Absent(f"the weights of {known.name} are not here: {fetch}{known.instead}")
    return found[known.name]


def _split(data, name: str, split: str):
    """The rows that are asked for; raises FlowbenchError where nothing is held out."""
    rows = getattr(data, split)
    if rows is None:
        raise FlowbenchError(f"{name} has no test split: use --split train")
    return rows


@ref.command()
@click.argument("target", metavar="FILE|DATASET")
def show(target) -> None:
    """Say what is in a file of statistics, or which ones of a data set are in the cache."""
    from flowbench.metrics import reference_files, references

    if Path(target).is_file():
        click.echo("\n".join(reference_files.describe(Path(target))))
        return
    paths = [path for path, header in references.built() if header["label"] == target]
    if not paths:
        raise FlowbenchError(
            f"there is no file {target}, and no statistics of a data set of that name are in the"
            " cache: flowbench ref list shows all, flowbench ref build DATASET makes some"
        )
    for path in paths:
        click.echo("\n".join(reference_files.describe(path)))


@ref.command("list")
def list_references() -> None:
    """List the statistics in the cache."""
    from flowbench.metrics import references

    found = list(references.built())
    for path, header in found:
        facts, size = header["facts"], path.stat().st_size / 2**20
        name = facts["extractor"].get("name", "?")
        click.echo(
            f"{header['label'] or '?'} {facts['split']}  n={facts['n']}  {name}"
            f"  data {facts['data'][:12]}  {size:.0f} MiB  {path}"
        )
    if not found:
        click.echo("there are none: make some with flowbench ref build DATASET")
