"""`flowbench run --smoke`: a tiny run in a folder that is thrown away."""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from flowbench.cli import asking, doing
from flowbench.cli.manner import Manner


def smoke(ctx: click.Context, requests: list[Any], setup: Any, manner: Manner) -> None:
    """Do all that the real run would do at a tiny size; only caches of data are kept.

    Raises RunFailed if it failed; its log then stays where the message says.
    """
    from flowbench import smoke

    begun = time.monotonic()
    weights = _weights(ctx, setup.weights)

    def plans(setup: Any) -> list[Any]:
        found = [smoke.plan(request, setup) for request in requests]
        _say(manner, f"smoke: {described(found[0], setup)}")
        return found

    with place() as folder:
        runs = asking.made_folder(folder / "runs", True)
        setup = dataclasses.replace(setup, folder=runs, weights=weights)
        doing.carry_out(str(folder / "results.db"), plans, setup, manner)
    seconds = time.monotonic() - begun
    name = f"{requests[0].method} on {requests[0].dataset}"
    _say(manner, f"smoke: {name} runs ({seconds:.1f} s); nothing of it was kept")


def _say(manner: Manner, text: str) -> None:
    if not manner.quiet:
        click.echo(text)


def described(plan: Any, setup: Any) -> str:
    """The size of a run in words: `20 steps of 16, 64 samples at NFE 1, 2, on cpu`."""
    spec, network = plan.spec, plan.data.network
    counts = ", ".join(str(nfe or "auto") for nfe in plan.nfe)
    parts = [f"{spec.budget.steps} steps of {spec.budget.batch}"]
    parts += [f"{plan.protocol.samples} samples at NFE {counts}", f"on {setup.device}"]
    parts += [f"{name}={value}" for name, value in spec.changed.items() if name in spec.options]
    if network is not None:
        from flowbench.nets import settings

        parts.append(f"network {settings.word(network)}")
    if plan.teacher is not None:
        parts.append(f"teacher {plan.teacher.spec.method} alike")
    return ", ".join(parts)


def _weights(ctx: click.Context, found: Any) -> dict[str, Path]:
    """The weights that losses need; those of metrics, which take long, only where typed."""
    from flowbench.known_weights import KNOWN, LOSSES

    losses = {known.name for known in KNOWN.values() if known.use == LOSSES}
    typed = click.core.ParameterSource.COMMANDLINE
    said = {name for name in asking.WEIGHTS if ctx.get_parameter_source(name) is typed}
    return {name: path for name, path in found.items() if name in losses | said}


@contextmanager
def place() -> Iterator[Path]:
    """A folder that is gone afterwards, unless there is the log of an error in it."""
    folder = Path(tempfile.mkdtemp(prefix="flowbench-smoke-"))
    try:
        yield folder
    finally:
        if not list(folder.glob("runs/*.error.log")):
            shutil.rmtree(folder, ignore_errors=True)
