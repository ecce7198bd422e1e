"""`flowbench import`: a published checkpoint, converted once into a safe file."""

from collections.abc import Iterator
from pathlib import Path

import click

from flowbench.records import FlowbenchError


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder or .safetensors file to write.  [default: FILE's name, in this folder]",
)
@click.option("--name", help="The published file's name, where FILE was renamed.")
@click.option("--licence", help="What the file may be used for, where you know it better.")
@click.option("--source", help="Where the file comes from, where you know it better.")
def import_(file: Path, output: Path | None, name: str | None, licence, source) -> None:
    """Convert FILE, a published checkpoint, for `run --weights` and `--teacher`.

    Reads networks of EDM (.pkl), the consistency models for ImageNet-64, CTM and torchcfm (.pt).
    None of the code that a file carries is run.
    """
    target = _target(file, output)
    from flowbench import imports

    imported = imports.read(file, name, licence, source)
    try:
        imports.save(target, imported)
    except OSError as error:
        raise FlowbenchError(f"{target} cannot be written: {error.strerror}") from error
    for line in _lines(imported):
        click.echo(line)
    click.echo(f"wrote {target}", err=True)


def _target(file: Path, output: Path | None) -> Path:
    """The file to write; raises FlowbenchError where that would be FILE itself."""
    target = Path() if output is None else output
    if target.suffix != ".safetensors" or target.is_dir():
        target = target / f"{file.stem}.safetensors"
    if target.resolve() == file.resolve():
        raise FlowbenchError(f"{file} would be overwritten: name another file with --output")
    return target


def _lines(imported) -> Iterator[str]:
    """What was found, as lines."""
    from flowbench.nets import settings

    options = "".join(f" -o {name}={value}" for name, value in imported.options.items())
    classes = f"{imported.classes} classes" if imported.classes else "no classes"
    yield f"form {imported.form}"
    yield f"method {imported.method}{options}"
    yield f"network {settings.word(imported.network)}"
    yield f"parameters {imported.parameters:,}"
    yield f"images {'x'.join(map(str, imported.shape))}, {classes}"
    for fact in ("file", "sha256", "licence", "source"):
        yield f"{fact} {imported.facts.get(fact, 'unknown')}"
