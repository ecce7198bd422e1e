"""`flowbench run --dry-run`: the plan of a run, what of it is there, and what the rest takes."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import click

from flowbench.cli import why

WIDTH = 100  # of a line


def show(store: Any, plans: Sequence[Any], setup: Any) -> None:
    """Print all that is known of the runs beforehand; nothing is made or written."""
    plan = plans[0]
    why.explain(store, plans, setup)
    click.echo("")
    for name, text in _facts(plan, setup):
        _line(name, text)
    for name, text in _costs(store, plan, setup):
        _line(name, text)
    if len(plans) > 1:
        _line("runs", f"{len(plans)}; what the first of them takes is said above")


def _line(name: str, text: str) -> None:
    room = WIDTH - 12
    first, *more = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    click.echo(f"  {name:10}{first}")
    for line in more:
        click.echo(f"  {'':10}{line}")


def _facts(plan: Any, setup: Any) -> Iterator[tuple[str, str]]:
    """What was asked for, with all that the user did not say."""
    from flowbench import protocol

    spec, data = plan.spec, plan.data
    size, classes = "x".join(map(str, data.shape)), f", {data.classes} classes" * bool(data.classes)
    held = f", {len(data.test)} held out" if data.test is not None else ""
    yield "data", f"{data.name}: {len(data.train)} rows of {size}{held}{classes}"
    yield "options", " ".join(f"{name}={_word(value)}" for name, value in spec.options.items())
    for name in ("augment", "optimizer", "unconditional"):
        if name in spec.setting:
            yield name, str(spec.setting[name])
    yield "budget", _budget(spec)
    above = plan.teacher
    while above is not None:
        yield "teacher", f"{above.spec.variant} ({above.spec.name}), {_budget(above.spec)}"
        above = above.teacher
    counts = ", ".join(str(nfe or "auto") for nfe in plan.nfe)
    yield "samples", f"{plan.protocol.samples} at NFE {counts}, on {setup.device}"
    yield "metrics", ", ".join(metric.name for metric in protocol.metrics_for(plan, setup))


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _budget(spec: Any) -> str:
    steps, batch = spec.budget.steps, spec.budget.batch
    return f"{steps} steps of {batch}, {spec.budget.images:,} examples"


def _costs(store: Any, plan: Any, setup: Any) -> Iterator[tuple[str, str]]:
    """The network, its memory, and the time of what is not there yet."""
    from flowbench import blame, estimate, meters, rehearsal, stages

    looked = stages.look(plan, setup, store)
    found = None
    try:
        found = rehearsal.rehearse(plan, _silent(setup))
    except Exception as error:
        yield "network", f"cannot be tried: {blame.line(error, plan.method)}"
    else:
        yield "network", f"{_network(plan)}, {meters.parameters(found.network):,} parameters"
        yield "memory", estimate.memory(found.network, plan, setup) or "cannot be told"
    if looked[-1].used:
        yield "time", "none: every score is stored"
        return
    new = {stage.spec.key for stage in looked if stage.spec is not None}
    parts = estimate.durations(plan, found, store, new)
    yield "time", f"about {_time(estimate.total(parts))} in all"
    for part in parts:
        yield "", f"{part.part}: {_time(part.seconds)}{f' ({part.ground})' if part.ground else ''}"


def _network(plan: Any) -> str:
    from flowbench.nets import settings

    return settings.word(plan.data.network) if plan.data.network else "the small one for such data"


def _silent(setup: Any) -> Any:
    """The same machine, without a word on what is only tried."""
    from dataclasses import replace

    from flowbench.training import ignore

    return replace(setup, watch=ignore, note=lambda text: None, compile=False)


def _time(seconds: float) -> str:
    """Seconds for people."""
    if math.isnan(seconds):
        return "unknown"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
