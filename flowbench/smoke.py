"""A run at the size that proves only that it runs: what a user asked for, made tiny."""

import dataclasses
from typing import Any

from flowbench import planning, plugins, presets, rehearsal
from flowbench.nets import settings
from flowbench.planning import Plan, Request, Setup
from flowbench.records import FlowbenchError, Spec

STEPS, ROWS = 20, 64
SIZES = {0: (16, 64), 32: (8, 16), 64: (4, 4), 128: (2, 2)}  # from a side on: batch, samples
OPTIONS = {"pairs": 32, "pair_steps": 4}  # what a teacher makes, in methods that have them
CHANNELS = (8, 16, 32, 64)  # tried in this order
BLOCKS = 1


def plan(request: Request, setup: Setup) -> Plan:
    """The plan of a tiny run; what the user said himself stays as it is.

    Raises FlowbenchError as `planning.plan` does.
    """
    request = _sized(request)
    full = planning.plan(request, setup)
    side = full.data.shape[-1] if full.data.kind == "image" else 0
    batch, samples = SIZES[max(least for least in SIZES if least <= side)]
    request = dataclasses.replace(
        request,
        batch=request.batch or batch,
        samples=request.samples or samples,
        network=_network(request, full.data.network),
    )
    return planning.plan(request, setup)


def _sized(request: Request) -> Request:
    """Few steps, few pairs, and the first numbers of evaluations that can be had."""
    if isinstance(request.teacher, Spec):
        raise FlowbenchError(
            "--smoke trains a teacher of its own: give --teacher a method or a file, or leave it"
            " out"
        )
    options = _options(request)
    method = plugins.method(request.method, {**presets.fill(request).options, **options})
    steps = None if request.images else request.steps or STEPS
    return dataclasses.replace(
        request,
        options=options,
        steps=steps,
        reference_rows=request.reference_rows or ROWS,
        nfe=request.nfe or rehearsal.accepted(method, most=2),
    )


def _options(request: Request) -> dict[str, Any]:
    """The options with few pairs, where the method has such options and they go together."""
    cls = plugins.method_class(request.method)
    fields = {field.name for field in dataclasses.fields(cls)}
    few = {name: value for name, value in OPTIONS.items() if name in fields}
    options = {**few, **getattr(cls, "smoke", {}), **request.options}
    try:
        plugins.method(request.method, {**presets.fill(request).options, **options})
    except FlowbenchError:
        return dict(request.options)
    return options


def _network(request: Request, network: Any) -> str | None:
    """The word for a tiny backbone, but for what the user said of it; None: nothing to shrink."""
    if network is None or request.weights or not isinstance(request.teacher, str | None):
        return request.network
    said = {part.partition("=")[0] for part in (request.network or "").split(",")}
    names = {field.name for field in dataclasses.fields(network)} - said
    if "blocks" in names:
        network = dataclasses.replace(network, blocks=min(BLOCKS, network.blocks))
    for channels in CHANNELS if "channels" in names else ():
        if channels < network.channels and network.fits(channels):
            try:
                network = dataclasses.replace(network, channels=channels)
            except FlowbenchError:  # heads that cannot be equal, and the like
                continue
            break
    return settings.word(network)
