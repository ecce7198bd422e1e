"""Checks of how trouble is recorded, each through `execute` on a database in memory: group F."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from flowbench import options
from flowbench.data.base import Data, Split
from flowbench.execution import execute
from flowbench.plans import Plan, Setup
from flowbench.records import Budget, Protocol, Spec, Tried
from flowbench.store import Store
from flowbench.testing.check import Check, Found, Skipped, require
from flowbench.testing.learning import trained_at_all
from flowbench.testing.metadata import READY
from flowbench.testing.subject import Subject
from flowbench.training import Progress, ignore

BUDGET = Budget(4, 16)
LAST = 4  # draws in which NaN appear at most; what is drawn later is for metrics
ABSENT = "flowbench_absent_module"
Trouble = Callable[[Tensor], Tensor]


@dataclasses.dataclass
class Strike:
    """What befalls the first batches that are drawn, up to the `last`, and how many those were."""

    trouble: Trouble
    last: int = 1
    draws: int = 0
    struck: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.draws += 1
        if self.draws > self.last:
            return x
        self.struck += 1
        return self.trouble(x)


@dataclasses.dataclass(frozen=True)
class Faulty(Split):
    """A split of data whose batches meet with trouble."""

    strike: Callable[[Tensor], Tensor] = dataclasses.field(default=lambda x: x, kw_only=True)

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        x, y = super().draw(rows)
        return self.strike(x), y


def _spoilt(data: Data, strike: Strike) -> Data:
    split = data.train
    return dataclasses.replace(
        data, train=Faulty(split.values, split.labels, split.device, strike=strike)
    )


def _plan(subject: Subject, data: Data, seed: int) -> Plan:
    """The run of the method, and of its teacher, on these data."""
    teacher = None
    if subject.teacher_method is not None:
        made = subject.teacher_method
        teacher = Plan(_spec(subject.method.teacher, made, data, seed), Protocol(4), (), made, data)
    spec = _spec(subject.name, subject.method, data, seed)
    nfe = (subject.evaluations[0] or 0,)
    return Plan(spec, Protocol(4), nfe, subject.method, data, teacher)


def _spec(name: str, method: Any, data: Data, seed: int) -> Spec:
    chosen = options.values(method)
    return Spec(name, f"{data.name}-trouble", seed, BUDGET, chosen, data=data.sha256)


def _recorded(
    subject: Subject, seed: int, data: Data, watch: Callable[[Progress], None] = ignore
) -> Tried:
    """How a run on these data is recorded."""
    folder = subject.folder / "trouble"
    folder.mkdir(exist_ok=True)
    store, plan = Store("sqlite://"), _plan(subject, data, seed)
    with suppress(KeyboardInterrupt):  # as the command line gets it
        execute(store, plan, Setup(folder=folder, watch=watch))
    tried = store.tried(plan.spec.dataset)
    store.close()
    require(bool(tried), "nothing was recorded")
    return tried[-1]


def _struck(subject: Subject, seed: int, trouble: Trouble, last: int = 1) -> Tried:
    """How a run is recorded whose data meet with trouble; raises Skipped if they are not drawn."""
    trained_at_all(subject)
    strike = Strike(trouble, last)
    tried = _recorded(subject, seed, _spoilt(subject.data, strike))
    if not strike.struck:
        raise Skipped("its training draws no batches from data.train")
    return tried


def _ended(tried: Tried, outcome: str, *words: str) -> None:
    """Raise Found unless a run ended so, with one of these words in its error."""
    if tried.outcome == "ok":
        raise Found(f"it was swallowed: the run is recorded as ok, not as {outcome}")
    require(tried.outcome == outcome, f"recorded as {tried.outcome}, not {outcome}: {tried.error}")
    said = not words or any(word in tried.error.lower() for word in words)
    require(said, f"recorded without a word of it: {tried.error}")


def exception(subject: Subject) -> None:
    """An exception in the data fails the run, with its words."""

    def break_down(x: Tensor) -> Tensor:
        raise OSError("the disk is gone")

    _ended(_struck(subject, 1, break_down), "failed", "the disk is gone")


def not_finite(subject: Subject) -> None:
    """NaN in the data are recorded as a run that diverged, or failed for that reason."""
    tried = _struck(subject, 2, lambda x: torch.full_like(x, torch.nan), LAST)
    if tried.outcome == "failed" and "finite" in tried.error.lower():
        return
    _ended(tried, "diverged")


def interrupted(subject: Subject) -> None:
    """Ctrl-C in training is recorded as interrupted."""
    trained_at_all(subject)
    pressed: list[str] = []

    def watch(progress: Progress) -> None:
        if not pressed and not progress.stage.startswith("teacher"):
            pressed.append(progress.stage)
            raise KeyboardInterrupt

    tried = _recorded(subject, 3, subject.data, watch)
    require(bool(pressed), "nobody hears of its progress: it leaves run.batches unused")
    _ended(tried, "interrupted")


def missing(subject: Subject) -> None:
    """A package that is missing fails the run, and is named."""

    def look_for(x: Tensor) -> Tensor:
        raise ModuleNotFoundError(f"No module named {ABSENT!r}", name=ABSENT)

    _ended(_struck(subject, 4, look_for), "failed", ABSENT)


def memory(subject: Subject) -> None:
    """Memory that ran out fails the run, in these words."""

    def fill(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB")

    _ended(_struck(subject, 5, fill), "failed", "memory", "room")


def _breakdown(id: str, name: str, title: str, advice: str, run: Any) -> Check:
    return Check(id, name, title, advice, run, (*READY, "T01", "S01"))


CHECKS = (
    _breakdown(
        *("F01", "exception", "an error in the data fails the run"),
        "catch no exception that comes out of run.batches",
        exception,
    ),
    _breakdown(
        *("F02", "nan", "NaN in the data ends as diverged"),
        "log each loss with run.log, and leave out no batch whose loss is not finite",
        not_finite,
    ),
    _breakdown(
        *("F03", "ctrl-c", "Ctrl-C ends as interrupted"),
        "catch neither KeyboardInterrupt nor BaseException",
        interrupted,
    ),
    _breakdown(
        *("F04", "missing-package", "a missing package is named"),
        "catch no ImportError in training; declare what the method needs in `needs`",
        missing,
    ),
    _breakdown(
        *("F05", "memory", "memory that ran out is recorded so"),
        "catch no torch.OutOfMemoryError: training.fit halves what goes through at once",
        memory,
    ),
)
