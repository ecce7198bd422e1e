"""A run whose stages end early and tell what each would take, and that writes nothing.

Pairs are put in the place of those that a teacher would make: what a step costs does not hang on
the values that go through it.
"""

import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flowbench import meters
from flowbench.data.ahead import drawer
from flowbench.pairs import Pairs
from flowbench.ranks import Part
from flowbench.training import Progress, Run

FEW = 8  # rows of the first steps, and of all where those are slow
GROWTH = 4  # factor from one number of rows to the next, while steps are fast
WARM = 2  # steps that are not counted
MOST = 500  # steps of a stage
SLOW = 0.05  # seconds of one row's evaluation, from which on no pair is made to be timed
Around = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Timed:
    """What a part of training will take: `seconds` for each of `count` steps, or pairs.

    It was measured over `measured` steps of `rows` rows. What cannot be told is NaN.
    """

    stage: str
    count: int
    seconds: float
    measured: int = 1
    rows: int = 0

    @property
    def total(self) -> float:
        """Seconds of the whole part."""
        return self.count * self.seconds


class _Enough(Exception):
    """Ends what a source prepares, when it has taken long enough to tell how long it takes."""


class _Watch:
    """Hears how far a source is, in all stages of a run; `limit` is when it has to end."""

    def __init__(self) -> None:
        self.last, self.limit = Progress("", 1, 1), math.inf

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        if time.perf_counter() > self.limit:
            raise _Enough


@dataclass
class ShortRun(Run):
    """A run whose stages end after about `patience` seconds; it has no folder.

    `found` hears of every part; `around` is entered around the up to `most` steps that are counted.
    `evaluation` are the seconds of one row in the teacher's network.
    """

    patience: float = 1.0
    found: list[Timed] = field(default_factory=list)
    around: Around = nullcontext
    heard: _Watch = field(default_factory=_Watch)
    most: int = MOST
    evaluation: float = 0.0

    def __post_init__(self) -> None:
        self.watch = self.heard

    def batches(self, source: Any, /, **parts: Any) -> Iterator[tuple]:
        """Yield a few batches, small ones first; note what a step of the whole batch takes."""
        patience = self.patience / (1 + len(self.found))  # less for each further part
        self._prepare(source, patience)
        batch, steps = self.budget.batch, self.budget.steps
        rows = min(FEW, batch)
        times = yield from self._steps(source, rows, min(WARM, steps), 10 * patience)
        left = steps - len(times)
        while left and rows < batch and GROWTH * min(times) < patience:
            rows = min(GROWTH * rows, batch)
            times = yield from self._steps(source, rows, min(WARM, left), patience)
            left -= len(times)
        with self.around():
            more = yield from self._steps(source, rows, min(self.most, left), patience)
        each = statistics.median(more or times) * batch / rows
        self.found.append(Timed(self.name, steps, each, len(more or times), rows))

    def _steps(
        self, source: Any, rows: int, most: int, patience: float
    ) -> Generator[tuple, None, list[float]]:
        """Yield up to `most` batches while there is patience; returns the seconds of each."""
        generator, draw = torch.Generator().manual_seed(0), drawer(source, Part(0, rows, rows))
        times: list[float] = []
        while len(times) < most and sum(times) < patience:
            start = time.perf_counter()
            yield draw(generator, True)
            meters.synchronise(self.device)
            times.append(time.perf_counter() - start)
        return times

    def _prepare(self, source: Any, patience: float) -> None:
        """Let a source prepare itself as far as there is patience."""
        for pairs in pairs_of(source):
            self._imagine(pairs)
        start, watch = time.perf_counter(), self.heard
        watch.last, watch.limit = Progress("", 1, 1), start + patience
        with suppress(_Enough):
            source.prepare()
        watch.limit, last = math.inf, watch.last
        seconds = (time.perf_counter() - start) * last.steps / max(1, last.step)
        if seconds > 0.1:
            self.found.append(Timed(last.stage or f"what {self.name} draws from", 1, seconds))

    def _imagine(self, pairs: Pairs) -> None:
        """Note what a pair takes to be made; put copies of few, or noise, in the place of all."""
        if pairs.held is not None:
            return
        each, ends = self._made(pairs) if self.evaluation < SLOW else (math.nan, None)
        self.found.append(Timed(pairs.run.name, pairs.n, each))
        pairs.n = min(pairs.n, max(2 * self.budget.batch, FEW))
        pairs.shard, pairs.modes = pairs.n, None

        def sample(states: Tensor, labels: Tensor | None) -> Tensor:
            return states if ends is None else ends[torch.arange(len(states)) % len(ends)]

        pairs.sample = sample

    def _made(self, pairs: Pairs) -> tuple[float, Tensor]:
        """Seconds for each pair, many made together, and the ends of few."""

        def make(rows: int) -> tuple[float, Tensor]:
            states, labels = pairs.start(range(rows))
            start = time.perf_counter()
            ends = pairs.sample(states, labels)
            meters.synchronise(self.device)
            return time.perf_counter() - start, ends

        few, batch = min(FEW, pairs.n), min(pairs.batch, pairs.n)
        make(1)  # what is done only once
        (first, ends), rows = make(few), min(GROWTH * FEW, batch)
        if rows <= few:
            return first / few, ends
        second, ends = make(rows)
        each = max(0.0, second - first) / (rows - few)  # beside what a call takes at any size
        return (first + each * (batch - few)) / batch, ends


def pairs_of(source: Any) -> list[Pairs]:
    """The pairs that a source draws from, if they are any."""
    return [part for part in (source, *vars(source).values()) if isinstance(part, Pairs)]
