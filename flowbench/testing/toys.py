"""Small data, a teacher that costs nothing, and runs that are watched or end in the middle."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from flowbench.data.base import Arrays, Data, Modes, load
from flowbench.mixtures import Mixture, gaussian
from flowbench.records import Budget
from flowbench.teacher import Teacher
from flowbench.training import Run, Source

BUDGET = Budget(steps=8, batch=16)
SPREAD = 0.1  # standard deviation of each mode


@cache
def toy(kind: str = "image") -> Data:
    """64 rows in two classes: 8x8 images, or 6-dimensional vectors."""
    rng = np.random.Generator(np.random.Philox(key=1))
    labels = np.arange(64) % 2
    if kind == "image":
        rows: Any = rng.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)
    else:
        rows = rng.standard_normal((64, 6), dtype=np.float32)
    law = _unit_law() if kind == "vector" else None
    return load(kind, Arrays(rows, rows[:16], labels, labels[:16], classes=2, law=law), "cpu")


def _unit_law() -> Mixture:
    """N(0, I), whose tensors share no memory, so that weights can be loaded over them."""
    law = gaussian(6)
    return Mixture(law.weights, law.means, law.stds.contiguous())


@cache
def corners() -> Data:
    """1024 points of the plane around the corners of a square of side 2, without labels."""
    rng = np.random.Generator(np.random.Philox(key=2))
    means = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=np.float32)
    noise = rng.standard_normal((1024, 2), dtype=np.float32)
    rows = np.tile(means, (256, 1)) + SPREAD * noise
    modes = Modes(torch.from_numpy(means), torch.full((2,), SPREAD), (0, 1))
    return load("corners", Arrays(rows, rows[:256], modes=modes), "cpu")


class Straight(nn.Module):
    """A teacher whose field is known: every sample is half its noise."""

    def forward(self, z: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return -0.5 * z / (1 - 0.5 * t.reshape(-1, *[1] * (z.ndim - 1)))


def toy_teacher() -> Teacher:
    """A teacher that costs nothing."""

    def velocity(network: nn.Module, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return network(z, t, labels)

    return Teacher(Straight, velocity)


class Stop(Exception):
    """Stands for whatever ends a process in the middle."""


@dataclasses.dataclass
class Killed(Run):
    """A run that ends in the middle of a stage, right after a checkpoint."""

    stop: int = 3

    def _save(self, parts, generator, step):
        super()._save(parts, generator, step)
        if step == self.stop:
            raise Stop


@dataclasses.dataclass
class Ledger:
    """What a method did in training.

    `budgets` and `drawn` count the steps of each stage, `steps` those that each optimiser took in
    it, `outside` those that were taken while no batch was out. `trained` are all parameters that
    optimisers hold, by id, `reached` those that ever had a gradient.
    """

    budgets: dict[str, int] = dataclasses.field(default_factory=dict)
    drawn: Counter[str] = dataclasses.field(default_factory=Counter)
    steps: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    outside: int = 0
    losses: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)
    trained: dict[int, nn.Parameter] = dataclasses.field(default_factory=dict)
    reached: set[int] = dataclasses.field(default_factory=set)
    open: str | None = None  # the stage whose batch is out
    paused: bool = False  # while a teacher trains
    kept: list[Any] = dataclasses.field(default_factory=list)  # so that no id is used twice

    def see(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Write down a step that is about to be taken."""
        if self.paused:
            return
        if self.open is None:
            self.outside += 1
            return
        self.steps[self.open, id(optimizer)] += 1
        self.kept.append(optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                self.trained[id(parameter)] = parameter
                if id(parameter) not in self.reached and _has_gradient(parameter):
                    self.reached.add(id(parameter))


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


@contextmanager
def steps_into(ledger: Ledger) -> Iterator[Ledger]:
    """Write every step of every optimiser inside into `ledger`."""
    handle = register_optimizer_step_pre_hook(ledger.see)
    try:
        yield ledger
    finally:
        handle.remove()


@dataclasses.dataclass
class Watched(Run):
    """A run whose batches and losses are written down; stages of it write into the same ledger."""

    ledger: Ledger = dataclasses.field(default_factory=Ledger)

    def batches(self, source: Source, /, **parts: Any) -> Iterator[tuple]:
        self.ledger.budgets[self.name] = self.budget.steps
        try:
            for batch in super().batches(source, **parts):
                self.ledger.drawn[self.name] += 1
                self.ledger.open = self.name
                yield batch
                self.ledger.open = None
        finally:
            self.ledger.open = None

    def log(self, loss: Tensor, rival: bool = False) -> None:
        super().log(loss, rival)
        if not rival:
            self.ledger.losses.setdefault(self.name, []).append(loss.detach())


@dataclasses.dataclass
class Ended(Killed, Watched):
    """A watched run that ends in the middle."""
