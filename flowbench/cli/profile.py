"""`flowbench run --profile`: which operators take the time, as tables."""

from collections.abc import Iterator
from typing import Any

import click

SHOWN = 12  # operators
WIDTH = 44  # characters of a name


def show(plan: Any, setup: Any) -> None:
    """Print where a few steps and a sampler's call spend their time; the run itself comes after.

    A method that fails at it will fail in the run, too, so here that is a line only.
    """
    from flowbench import blame, profiling

    try:
        for found in profiling.profile(plan, setup):
            for line in table(found):
                click.echo(line)
    except Exception as error:
        click.echo(f"--profile: {blame.line(error, plan.method)}", err=True)


def table(found: Any) -> Iterator[str]:
    """A profile in lines."""
    yield f"{found.title}: {_time(found.seconds)} in operators"
    yield f"  {'operator':{WIDTH}}{'calls':>7}{'own time':>11}{'share':>7}{'memory':>11}"
    for operator in found.operators[:SHOWN]:
        share = operator.seconds / found.seconds if found.seconds else 0.0
        name = operator.name if len(operator.name) <= WIDTH else f"{operator.name[: WIDTH - 3]}..."
        memory = f"{operator.bytes / 2**20:.1f} MiB"
        time = _time(operator.seconds)
        yield f"  {name:{WIDTH}}{operator.calls:>7}{time:>11}{share:>7.0%}{memory:>11}"
    yield f"  trace for ui.perfetto.dev or chrome://tracing: {found.trace}"
    yield ""


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
