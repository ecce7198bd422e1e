"""Stored runs as pictures need them: networks and samples, read from their files."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowbench import (
    command_line,
    environment,
    places,
    plugins,
    protocol,
    runner,
    setting,
    trajectories,
)
from flowbench.checkpoints import read_tensors
from flowbench.data.base import Data
from flowbench.noise import balanced_labels, unit_noise
from flowbench.planning import Plan, Setup, dataset, load_data
from flowbench.records import RUN_LEVEL, FlowbenchError, Protocol, Score, Spec

OTHERWISE = 1000  # samples of a run of which nothing is known


@dataclass(frozen=True)
class Stored:
    """A run whose network was read from its file: the canonical field, and where it is defined.

    `interval` is None for a method without a field.
    """

    plan: Plan
    setup: Setup
    hook: Any
    network: Any
    interval: tuple[float, float] | None

    @property
    def data(self) -> Data:
        """What the run was trained on."""
        return self.plan.data

    def velocity(self, z, t, labels):
        """The canonical field at states `z` (B, *shape) and times `t` (B,)."""
        return self.hook.velocity(network=self.network, z=z, t=t, labels=labels)

    def noise(self, n: int):
        """What the samples 0 to n - 1 start from, and their labels."""
        device = self.setup.device
        noise = unit_noise(0, range(n), self.data.shape, device=device)
        return noise, balanced_labels(range(n), self.data.classes, device)

    def follow(self, n: int) -> tuple[Any, Any]:
        """Times (T,) and states (T, n, *shape) of the trajectories from the first noise."""
        assert self.interval is not None
        knots = getattr(self.plan.method, "knots", ())
        noise, labels = self.noise(n)
        return trajectories.follow(self.velocity, noise, labels, self.interval, knots)


def setup(folder: Path, data_root: Path | None, device: str) -> Setup:
    """The machine's side; `device` as `flowbench run` takes it."""
    return Setup(device=environment.device(device), folder=folder, data_root=data_root)


def load(spec: Spec, place: Setup) -> Data:
    """The data of a stored run; raises FlowbenchError if they are others today."""
    data = load_data(dataset(spec.dataset).name, place.device, place.data_root)
    if data.sha256 != spec.data:
        raise FlowbenchError(f"{spec.name} was trained on other data than today's {spec.dataset}")
    return data


def read(store, spec: Spec, place: Setup) -> Stored:
    """A stored run with its network.

    Raises FlowbenchError if the method's code has changed since, or if the file is not there.
    """
    method = plugins.method(spec.method, spec.options)
    if plugins.code_hash(type(method)) != spec.code:
        raise FlowbenchError(
            f"{spec.name} was made with other code of {spec.method} than today's:"
            f" {command(store, spec)}"
        )
    if not hasattr(method, "network"):
        raise FlowbenchError(f"{spec.method} has no network(data): it cannot be read from a file")
    data = setting.dress(load(spec, place), spec.setting)
    file = find(store, spec, place.folder, "network")[-1]
    plan = Plan(spec, Protocol(OTHERWISE), (), method, data, weights=file)
    network = runner.train(plan, place, file.parent).network
    hook = runner.hooks(plan)
    return Stored(plan, place, hook, network.eval(), protocol.field_interval(plan, hook))


def find(store, spec: Spec, folder: Path, role: str) -> list[Path]:
    """The files of a run whose role begins so, the newest last.

    Raises FlowbenchError with what to type where there is none, or where one is gone.
    """
    files = [a for a in store.artifacts(spec.name) if a.role.startswith(role)]
    if not files:
        raise FlowbenchError(f"{spec.name} has no {role} yet: {command(store, spec)}")
    paths = [places.inside(folder, file.path) for file in files]
    gone = [path for path in paths if not path.exists()]
    if gone:
        raise FlowbenchError(
            f"{gone[0]} is not there: name the folder of the runs with --runs, or make it anew:"
            f" {command(store, spec)} --force"
        )
    return paths


def command(store, spec: Spec) -> str:
    """The command that makes this run."""
    found = [score for score in scores(store, spec) if score.n and score.nfe != RUN_LEVEL]
    entry = plugins.datasets().get(spec.dataset)
    n = found[-1].n if found else entry.samples if entry else OTHERWISE
    seed = found[-1].seed if found else 0
    nfes = sorted({score.nfe for score in found}) or [1]
    return command_line.command(spec, nfes, [spec.seed], n, seed, entry)


def scores(store, spec: Spec) -> list[Score]:
    """Every stored score of this run, those of its floor left out."""
    found = store.measured(spec.dataset, [spec.method], [spec.seed])
    return [m.score for m in found if m.run == spec.name and m.score.subject == "model"]


def samples(store, spec: Spec, folder: Path) -> tuple[int, list[tuple[str, np.ndarray]]]:
    """The noise stream, and (title, samples (n, *shape)) by number of evaluations, ascending.

    Images are uint8, (n, C, H, W), unless some are not finite. Of several protocols, the newest.
    """
    files = find(store, spec, folder, "samples-nfe")
    form = re.compile(r"samples-nfe(\d+|auto)-n(\d+)-s(\d+)")
    parts = {path: match.groups() for path in files if (match := form.match(path.name))}
    protocol = parts[files[-1]][1:]
    chosen = {nfe: path for path, (nfe, *rest) in parts.items() if tuple(rest) == protocol}
    order = sorted(chosen, key=lambda nfe: float(nfe.replace("auto", "inf")))
    return int(protocol[1]), [_samples(nfe, chosen[nfe]) for nfe in order]


def _samples(nfe: str, path: Path) -> tuple[str, np.ndarray]:
    tensors, facts = read_tensors(path)
    counted = f" ({facts['nfe']:.4g})" if nfe == "auto" else ""
    return f"NFE {nfe}{counted}", tensors["samples"].numpy()
