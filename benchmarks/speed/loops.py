"""Training loops in turns: ours as users run it, and others' on an equal network.

Ours runs inside `training.fit`, so what it draws from is where the other gets its turn.
"""

import copy
import statistics
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.harness import Times, now
from flowbench import meters, training
from flowbench.average import decay_at
from flowbench.data.placement import scale
from flowbench.optimizers import DEFAULT
from flowbench.records import Budget
from flowbench.training import Run

Loss = Callable[[Any, Tensor], Tensor]  # (network, x (B, *shape)) -> mean over the batch
Train = Callable[["Turns", Run], object]  # takes all steps of the run on batches of the turns
LR, EMA = 2e-4, 0.9999


@dataclass(frozen=True)
class Case:
    """Something to train on: rows of `values` (N, *shape) on the device, float32 or uint8."""

    name: str
    values: Tensor
    batch: int
    network: nn.Module

    @property
    def device(self) -> str:
        """Where the rows lie, and where networks compute."""
        return str(self.values.device)


class Loop(ABC):
    """A training loop that can be halted after any step; a subclass says what a step is."""

    @abstractmethod
    def step(self) -> Tensor:
        """Take a step; returns its loss."""

    def steps(self, count: int, device: str) -> tuple[float, float]:
        """Take some steps; returns seconds on the wall and of the CPU."""
        meters.synchronise(device)
        begun = now()
        for _ in range(count):
            self.step()
        meters.synchronise(device)
        return _since(begun)


def draw(case: Case, generator: torch.Generator | None = None) -> Tensor:
    """A batch of rows drawn at random with replacement, uint8 or float32 as they lie there."""
    rows = torch.randint(len(case.values), (case.batch,), generator=generator)
    return case.values[rows.to(case.values.device)]


def descend(
    net: nn.Module,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Move the weights down a loss, the norm of its gradient clipped at 1."""
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    schedule.step()


class Bare(Loop):
    """What flowbench does in a step, written out in PyTorch with nothing around it.

    Same network, loss, optimiser, schedule, clipping, average and order of random numbers. With
    `fused` Adam is one kernel, as ours is on a GPU.
    """

    def __init__(
        self, case: Case, loss: Loss, steps: int, seed: int = 0, fused: bool | None = None
    ):
        self.case, self.loss = case, loss
        self.net = copy.deepcopy(case.network)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LR, fused=fused)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda k: DEFAULT.factor(k, steps)
        )
        self.generator, self.done = torch.Generator().manual_seed(seed), 0

    def step(self) -> Tensor:
        x = scale(draw(self.case, self.generator))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.net, x)
        descend(self.net, loss, self.optimizer, self.schedule)
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        self.done += 1
        weight = 1 - decay_at(self.done, EMA)
        mine, theirs = list(self.average.parameters()), list(self.net.parameters())
        torch._foreach_lerp_(mine, theirs, weight)
        for old, new in zip(self.average.buffers(), self.net.buffers(), strict=True):
            old.copy_(new)


@dataclass
class Turns:
    """A source of batches that every `block` draws takes the time, and lets `other` train too.

    The order is ABBA, as in `harness.alternate`; the first block of each is warm-up.
    """

    case: Case
    other: Loop
    block: int
    drawn: int = 0
    begun: tuple[float, float] = (0.0, 0.0)
    ours: list[tuple[float, float]] = field(default_factory=list)
    theirs: list[tuple[float, float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.case.values)

    def prepare(self) -> None:
        """Nothing to do: the rows are here."""

    def draw(self, rows: Tensor) -> tuple[Tensor, None]:
        """The rows as float32, no labels; between two blocks, the other's turn comes before."""
        if self.drawn % self.block == 0:
            self._turn()
        self.drawn += 1
        return scale(self.case.values[rows.to(self.case.values.device)]), None

    def _turn(self) -> None:
        meters.synchronise(self.case.device)
        if self.drawn:
            self.ours.append(_since(self.begun))
        while len(self.theirs) <= len(self.ours) // 2 * 2:
            self.theirs.append(self.other.steps(self.block, self.case.device))
        self.begun = now()


def fitting(case: Case, loss: Loss) -> Train:
    """What trains a copy of the network down `loss` as methods do."""

    def train(turns: Turns, run: Run) -> None:
        net = copy.deepcopy(case.network)
        training.fit(net, lambda x, y: loss(net, x), turns, run, lr=LR, ema=EMA)

    return train


def compare(
    case: Case,
    train: Train,
    other: Callable[[int], Loop],
    seconds: float,
    compiled: bool = False,
) -> "Compared":
    """Train by flowbench, in turns with `other(steps)`, for about `seconds`.

    Ours has a folder: it logs, watches, and keeps a checkpoint every 20 s, as `flowbench run` does.
    """
    step = _step_seconds(other(1000), case.device)
    repeats = 2 * max(2, min(7, int(seconds / (4 * step)) // 2))
    block = max(1, round(seconds / (2 * step * (repeats + 1))))
    steps = block * (repeats + 1) + 1
    turns = Turns(case, other(steps), block)
    with tempfile.TemporaryDirectory() as folder:
        budget, place = Budget(steps, case.batch), Path(folder)
        train(turns, Run(budget, folder=place, device=case.device, compile=compiled))
    return Compared(_each(turns.ours, block), _each(turns.theirs, block), block)


@dataclass(frozen=True)
class Compared:
    """Seconds of a step in each block, ours and theirs, the first of them warm-up."""

    all_ours: list[tuple[float, float]]
    all_theirs: list[tuple[float, float]]
    block: int

    @property
    def ours(self) -> Times:
        """Without the warm-up."""
        return Times.of(self.all_ours[1:])

    @property
    def theirs(self) -> Times:
        """Without the warm-up."""
        return Times.of(self.all_theirs[1:])


def _each(blocks: list[tuple[float, float]], block: int) -> list[tuple[float, float]]:
    return [(wall / block, cpu / block) for wall, cpu in blocks]


def _since(begun: tuple[float, float]) -> tuple[float, float]:
    ended = now()
    return ended[0] - begun[0], ended[1] - begun[1]


def _step_seconds(loop: Loop, device: str) -> float:
    """What a step takes, after two that warm up."""
    loop.steps(2, device)
    return statistics.median(loop.steps(1, device)[0] for _ in range(3))
