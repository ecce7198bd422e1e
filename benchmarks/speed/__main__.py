"""`python -m benchmarks.speed [NAME ...]`: flowbench measured against what people use instead."""

import inspect
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click

from benchmarks.speed import tables
from benchmarks.speed.harness import LeftOut, Result, absent
from flowbench import environment

ORDER = (
    "training",
    "sampling",
    "coupling",
    "evaluator",
    "roofline",
    "frechet",
    "commands",
    "commits",
    "growth",
)


def names() -> list[str]:
    """The modules beside this one that measure something, the known ones first."""
    files = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    found = [name for name in files if name.isidentifier() and _measures(name)]
    return sorted(found, key=lambda name: (name not in ORDER, name in ORDER and ORDER.index(name)))


def _measures(name: str) -> bool:
    return "\ndef measure(" in (Path(__file__).parent / f"{name}.py").read_text("utf-8")


def measured(name: str, quick: bool, device: str) -> Iterator[Result | LeftOut]:
    """What one module finds; a package that is missing, or any error, ends it in one line."""
    try:
        yield from _call(import_module(f"benchmarks.speed.{name}"), quick, device)
    except Exception as error:
        package = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if package and package.partition(".")[0] not in ("flowbench", "benchmarks"):
            yield LeftOut("the rest", absent(package))
            return
        traceback.print_exc()
        reason = str(error).partition("\n")[0]
        yield LeftOut("the rest", f"FAILED with {type(error).__name__}: {reason}")


def _call(module: ModuleType, quick: bool, device: str) -> Iterator[Result | LeftOut]:
    """`device` goes to the modules that have more to measure on a GPU."""
    if "device" in inspect.signature(module.measure).parameters:
        return module.measure(quick=quick, device=device)
    return module.measure(quick=quick)


@click.command()
@click.argument("chosen", nargs=-1, metavar="[NAME ...]")
@click.option("--quick", is_flag=True, help="Tiny sizes: a trial of the command, no measurement.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("-o", "folder", type=click.Path(path_type=Path), help="Write results there.")
def main(chosen: tuple[str, ...], quick: bool, device: str, folder: Path | None) -> None:
    """Measure flowbench against others, one module after the other."""
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        raise click.UsageError(f"no comparison {unknown[0]!r}: there are {', '.join(names())}")
    with environment.threads(1 if quick else None):
        outcome = _outcome(chosen or tuple(names()), quick, environment.device(device))
    click.echo(tables.terminal(outcome), nl=False)
    if folder is not None:
        tables.write(outcome, folder)
    left = [each for some in outcome.left_out.values() for each in some]
    if any(each.reason.startswith("FAILED") for each in left):
        sys.exit(3)


def _outcome(chosen: tuple[str, ...], quick: bool, device: str) -> tables.Outcome:
    machine = tables.machine(device, quick)
    results: dict[str, list[Result]] = {}
    left: dict[str, list[LeftOut]] = {}
    for name in chosen:
        click.echo(f"measuring {name} ...", err=True)
        found = list(measured(name, quick, device))
        results[name] = [each for each in found if isinstance(each, Result)]
        left[name] = [each for each in found if isinstance(each, LeftOut)]
    return tables.Outcome(machine, results, left)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.speed")
