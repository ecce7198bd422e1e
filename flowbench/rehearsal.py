"""A few steps of a plan's own training and sampling, timed; nothing is written by it."""

import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowbench import meters, plugins, resolution, runner
from flowbench.planning import Plan, Setup
from flowbench.random_states import random_state, set_random_state
from flowbench.records import ADAPTIVE
from flowbench.sampling import Sampler
from flowbench.short_run import MOST, Around, ShortRun, Timed
from flowbench.teacher import Teacher
from flowbench.training import ignore

NFES = (*range(1, 17), 32, 64, ADAPTIVE)  # tried in this order


@dataclass(frozen=True)
class Rehearsed:
    """What the few steps have shown.

    `network` is what the method returned, `evaluation` the seconds of one evaluation of one
    sample, `above` the same of the teacher.
    """

    network: nn.Module
    parts: tuple[Timed, ...]
    evaluation: float
    above: "Rehearsed | None" = None

    @property
    def training(self) -> float:
        """Seconds of all parts together."""
        return sum(part.total for part in self.parts)


def rehearse(
    plan: Plan,
    setup: Setup,
    patience: float = 1.0,
    around: Around = nullcontext,
    most: int = MOST,
) -> Rehearsed:
    """Train and sample a little, the teacher first; the random state stays as it was.

    `around` is entered around the up to `most` steps of a stage that are counted. Raises whatever
    the method raises.
    """
    state = random_state(setup.device)
    try:
        return _rehearse(plan, setup, patience, {"around": around, "most": most})
    finally:
        set_random_state(state, setup.device)


def _rehearse(plan: Plan, setup: Setup, patience: float, given: dict[str, Any]) -> Rehearsed:
    above = None if plan.teacher is None else _rehearse(plan.teacher, setup, patience / 2, {})
    hook = plugins.manager(plan.method, meters).hook
    torch.manual_seed(plan.spec.seed)
    if plan.weights is not None:
        with tempfile.TemporaryDirectory() as empty:
            network, parts = runner.train(plan, setup, Path(empty)).network, []
    else:
        given = given | {"evaluation": above.evaluation if above else 0.0}
        run = ShortRun(**runner.terms(plan, setup), patience=patience, **given)
        network = hook.train(data=plan.data, run=run, teacher=_teacher(plan, above), meter={})
        parts = run.found
    seconds = evaluation(plan, replace(setup, watch=ignore), network, patience)
    return Rehearsed(network, tuple(parts), seconds, above)


def _teacher(plan: Plan, above: Rehearsed | None) -> Teacher | None:
    """The teacher's network as the rehearsal has left it."""
    if plan.teacher is None or above is None:
        return None
    hook = plugins.manager(plan.teacher.method, meters).hook
    return runner.as_teacher(plan.teacher, hook, lambda: above.network)


def evaluation(plan: Plan, setup: Setup, network: nn.Module, patience: float) -> float:
    """Seconds of one evaluation of one sample, as many together as the patience allows."""
    hook = plugins.manager(plan.method, meters).hook
    sampler = Sampler(plan, setup, setup.folder, hook, network)
    (nfe,), rows = accepted(plan.method, plan.nfe) or (1,), 1
    while True:
        noise = sampler.noise(range(rows))
        start = time.perf_counter()
        _, counted = sampler.call(noise, range(rows), nfe)
        meters.synchronise(setup.device)
        seconds = time.perf_counter() - start
        if rows >= sampler.batch or seconds > patience / 4:
            return seconds / (rows * max(counted, 1))
        rows = min(8 * rows, sampler.batch)


def accepted(method: Any, wanted: tuple[int, ...] = (), most: int = 1) -> tuple[int, ...]:
    """The first few numbers of evaluations that a method takes, of those `wanted` or of all."""
    taken = (nfe for nfe in wanted or NFES if not resolution.refusal(method, nfe))
    return tuple(nfe for nfe, _ in zip(taken, range(most), strict=False))
