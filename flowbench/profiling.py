"""Which operators a few steps of a plan and a call of its sampler spend their time in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from flowbench import meters, plugins
from flowbench.planning import Plan, Setup
from flowbench.random_states import random_state, set_random_state
from flowbench.rehearsal import accepted, rehearse
from flowbench.sampling import Sampler
from flowbench.training import ignore

STEPS = 5  # of training
ROWS = 100  # of the sampler's call


@dataclass(frozen=True)
class Operator:
    """An operator's own seconds, those of what it calls left out, and the bytes it allocated."""

    name: str
    calls: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Profile:
    """What was recorded: `title` says of what, `operators` come with the longest first.

    `trace` is a file for chrome://tracing or ui.perfetto.dev.
    """

    title: str
    operators: tuple[Operator, ...]
    trace: Path

    @property
    def seconds(self) -> float:
        """The time of all operators."""
        return sum(operator.seconds for operator in self.operators)


def profile(plan: Plan, setup: Setup) -> list[Profile]:
    """Record steps of the first stage of training, after some to warm up, and a sampler's call.

    The traces lie beside the run; nothing else is kept, and the random state stays as it was.
    Raises whatever the method raises.
    """
    state, recorders = random_state(setup.device), []

    @contextmanager
    def around() -> Iterator[None]:
        recorder = _recorder(setup.device)
        with recorder:
            yield
        recorders.append(recorder)

    try:
        found = rehearse(plan, setup, around=around, most=STEPS)
        sampled, title = _sampled(plan, setup, found.network)
    finally:
        set_random_state(state, setup.device)
    profiles = [_profile(title, sampled, _place(plan, setup, "sample"), setup)]
    if recorders:
        stage = next(part for part in found.parts if part.rows)
        title = f"{stage.measured} steps of {stage.rows} rows, stage {stage.stage}"
        profiles.insert(0, _profile(title, recorders[0], _place(plan, setup, "train"), setup))
    return profiles


def _recorder(device: str) -> Any:
    kinds = [ProfilerActivity.CPU]
    if device.startswith("cuda"):
        kinds.append(ProfilerActivity.CUDA)
    return torch.profiler.profile(activities=kinds, profile_memory=True, acc_events=True)


def _sampled(plan: Plan, setup: Setup, network: torch.nn.Module) -> tuple[Any, str]:
    """A recorded call of the sampler, after one that is not."""
    hook = plugins.manager(plan.method, meters).hook
    sampler = Sampler(plan, replace(setup, watch=ignore), setup.folder, hook, network)
    nfe = (accepted(plan.method, plan.nfe) or (1,))[0]
    rows = range(sampler.fitting(min(ROWS, plan.protocol.samples), nfe))
    noise, recorder = sampler.noise(rows), _recorder(setup.device)
    with recorder:
        sampler.call(noise, rows, nfe)
        meters.synchronise(setup.device)
    return recorder, f"{len(rows)} samples at NFE {nfe or 'auto'}"


def _place(plan: Plan, setup: Setup, what: str) -> Path:
    return setup.folder / f"{plan.spec.name}.{what}.trace.json"


def _profile(title: str, recorder: Any, trace: Path, setup: Setup) -> Profile:
    """Write the trace, and add up what it says of each operator."""
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorder.export_chrome_trace(str(trace))
    kind = "device" if setup.device.startswith("cuda") else "cpu"
    operators = [
        Operator(
            event.key,
            event.count,
            getattr(event, f"self_{kind}_time_total") / 1e6,
            getattr(event, f"self_{kind}_memory_usage"),
        )
        for event in recorder.key_averages()
        if not event.key.startswith("[")
    ]
    operators.sort(key=lambda operator: -operator.seconds)
    return Profile(title, tuple(operators), trace)
