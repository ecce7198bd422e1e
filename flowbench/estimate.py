"""What a plan will take, part by part: time by earlier runs or a few steps here, and memory."""

import copy
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

from flowbench import meters
from flowbench.history import History
from flowbench.planning import Plan, Setup
from flowbench.records import ADAPTIVE
from flowbench.rehearsal import Rehearsed
from flowbench.short_run import Timed
from flowbench.store import Store

INNER = ("net", "model")  # what a wrapper around a network calls it


@dataclass(frozen=True)
class Duration:
    """Seconds of a part of a run, NaN where they cannot be told, and how they are known."""

    part: str
    seconds: float
    ground: str


def durations(
    plan: Plan, found: Rehearsed | None, store: Store | None, new: Collection[str]
) -> list[Duration]:
    """What each part of a run takes: the networks that are `new` (keys of runs), and the samples.

    Earlier runs of the same kind know best; of the rest, `found` has been measured.
    """
    name = plan.spec.dataset
    measured, tried = (store.measured(name), store.tried(name)) if store else ([], [])
    history = History(measured, tried)
    parts: list[Duration] = []
    for one, shown in _networks(plan.trained or plan, found):
        if one.spec.key in new:
            whose = "" if one.spec.key == (plan.trained or plan).spec.key else "teacher's "
            parts += _training(one, shown, history, whose)
    return [*parts, *_examining(plan, found, history)]


def _networks(plan: Plan, found: Rehearsed | None) -> Iterator[tuple[Plan, Rehearsed | None]]:
    """The plan and its teachers, the first teacher first, with what was measured of each."""
    if plan.teacher is not None:
        yield from _networks(plan.teacher, found.above if found else None)
    yield plan, found


def _training(
    plan: Plan, found: Rehearsed | None, history: History, whose: str
) -> Iterator[Duration]:
    known = history.training(plan.spec)
    if known is not None:
        yield Duration(f"{whose}training", known, f"earlier runs of {plan.spec.method} like it")
        return
    if found is None:
        yield Duration(f"{whose}training", math.nan, "no earlier run is like it")
        return
    for part in found.parts:
        yield Duration(f"{whose}{part.stage}", part.total, _ground(part, plan.spec.budget.batch))


def _ground(part: Timed, batch: int) -> str:
    """How a part was measured, in words."""
    if math.isnan(part.seconds):
        return f"{part.count} of them; the teacher is too slow to try"
    if not part.rows:
        return f"{part.count} x {part.seconds * 1e3:.3g} ms, tried here" * (part.count > 1)
    each = f"{part.count} steps x {part.seconds * 1e3:.3g} ms"
    of = f" of {part.rows} rows, not {batch}" * (part.rows != batch)
    return f"{each}, by {part.measured} steps{of} here"


def _examining(plan: Plan, found: Rehearsed | None, history: History) -> Iterator[Duration]:
    """Earlier runs know all of it, a network that was tried only what its samples take."""
    known = history.examining(plan.spec)
    if known:
        yield Duration("samples and scores", known, f"earlier runs of {plan.spec.method} like it")
        return
    if found is None:
        return
    n, counts = plan.protocol.samples, [nfe for nfe in plan.nfe if nfe != ADAPTIVE]
    each = found.evaluation * 1e6
    if counts:
        ground = f"{n} x {sum(counts)} evaluations x {each:.3g} us; scores come on top"
        yield Duration("samples", n * sum(counts) * found.evaluation, ground)
    if len(counts) < len(plan.nfe):
        yield Duration("samples, NFE auto", math.nan, "as many evaluations as the solver takes")


def memory(network: nn.Module, plan: Plan, setup: Setup) -> str:
    """What training the network holds, in a sentence; nothing where that cannot be told."""
    rows = min(setup.micro_batch or plan.spec.budget.batch, plan.spec.budget.batch)
    network = copy.deepcopy(network).requires_grad_(True)  # an average has no gradients
    inner = [part for name in INNER if isinstance(part := getattr(network, name, None), nn.Module)]
    for candidate in (network, *inner):
        for times in (1, 2):
            try:
                need = meters.training_bytes(candidate, plan.data.shape, rows, times)
            except Exception:  # called in another way, or without weights
                continue
            room = meters.gib(meters.room(setup.device))
            return f"training needs about {need.sentence(rows)}; {room} are there"
    return ""


def total(parts: Collection[Duration]) -> float:
    """Seconds of all parts that can be told."""
    return sum(part.seconds for part in parts if math.isfinite(part.seconds))
