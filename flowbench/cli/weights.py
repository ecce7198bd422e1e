"""`flowbench weights`: the pretrained networks that metrics and losses of images stand on."""

import sys

import click


@click.group()
def weights() -> None:
    """List or download the weights of pretrained networks."""


@weights.command("list")
def list_weights() -> None:
    """Say which weights are here, and how to supply the others."""
    from flowbench.known_weights import KNOWN, LOSSES, METRICS

    for use in (METRICS, LOSSES):
        click.echo(f"For {use}:")
        for known in KNOWN.values():
            if known.use == use:
                _describe(known)


def _describe(known) -> None:
    """Print what a network is for, and where its file is or comes from."""
    from flowbench.weights import find

    path = find(known.name, {})
    click.echo(f"  {known.name}: {known.summary}  [{known.licence}]")
    click.echo(f"    {'not here' if path is None else f'here: {path}'}")
    if path is None:
        click.echo(f"    {known.url}")
        click.echo(f"    SHA-256 {known.sha256 + '...' if known.sha256 else 'not published'}")
        fetch = f"flowbench weights download {known.name}, or " if known.sha256 else ""
        click.echo(f"    {fetch}{known.instead}")


@weights.command()
@click.argument("name")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def download(name, quiet) -> None:
    """Download the weights NAME, check them, and say where they lie."""
    from flowbench import known_weights
    from flowbench.checkpoints import file_hash
    from flowbench.cli.progress import watcher

    with watcher(quiet, sys.stderr.isatty()) as watch:
        path = known_weights.download(name, watch)
    if not quiet:
        click.echo(f"{path}\nSHA-256 {file_hash(path)}")
