"""What a method borrows to train: a Run that owns the iterator, and a loop that uses it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowbench import ranks, sharing
from flowbench.average import Average
from flowbench.checkpoints import load_state, save_state
from flowbench.data.ahead import drawer
from flowbench.events import Point
from flowbench.fitting import fit
from flowbench.optimizers import DEFAULT, Optimizer
from flowbench.pace import Pace
from flowbench.random_states import random_state, set_random_state
from flowbench.records import Budget, Diverged, FlowbenchError, digest
from flowbench.rows import Rows
from flowbench.training_log import Log

__all__ = ["Average", "Bill", "Prepared", "Progress", "Run", "Source", "fit", "ignore", "total"]

Bill = dict[str, dict[str, float]]  # stage -> what it has cost: seconds, images
BESIDE = ("coupling",)  # stages that run in another thread than training
MAKING = ("pairs", "inverse-pairs", *BESIDE)  # stages whose images went through no training step


class Source(Protocol):
    """Something that batches are drawn from: a split of the data, or pairs made on demand.

    Where it has `draw_for_training` (see `data.base.Split`), that is called instead of `draw`. If
    it says `by_row`, what it draws for a row hangs on that alone, and each rank draws its own only.
    """

    def __len__(self) -> int: ...

    def prepare(self) -> None: ...

    def draw(self, rows: Tensor) -> tuple: ...


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `loss` of the last step, `rate` in examples per second, 0 if unknown."""

    stage: str
    step: int
    steps: int
    loss: float = math.nan
    rate: float = 0.0
    seconds_left: float = 0.0


class Prepared(Exception):
    """Ends a run that was only to prepare its first source, which is `args[0]`."""


def total(bill: Bill) -> dict[str, float]:
    """Seconds of all stages, and images that went through a training step.

    Pairs that were only made are no training images; work beside training takes none of its time.
    """
    return {
        "seconds": sum(costs["seconds"] for stage, costs in bill.items() if stage not in BESIDE),
        "images": sum(costs["images"] for stage, costs in bill.items() if stage not in MAKING),
    }


def ignore(progress: Progress) -> None:
    """Watch nothing."""


@dataclass
class Run:
    """Budget, order of data, checkpoints and bill: all that must be the same for every method.

    `every` is the time in seconds between checkpoints (0: after each step); without `folder`
    nothing is kept. `bill` maps each stage to what it has cost so far, over all attempts.
    `augment` says that the user wants the data augmented, `micro_batch` how many rows go through
    the network at once (None: the batch, or what fits; see `fitting`), `compile` whether large
    backbones are compiled, `optimizer` what moves the weights, and `weights` the files of the
    frozen networks that losses look through, by name (see `known_weights`). With `prepare_only`,
    `batches` raises Prepared once its source is prepared. `observe` gets the points of the training
    curve; what it takes is no time of training. `rows` is the part of a batch at hand, `stepped`
    has the weights whose gradients a `Step` sums over the ranks.
    """

    budget: Budget
    folder: Path | None = None
    seed: int = 0
    device: str = "cpu"
    every: float = 20.0
    watch: Callable[[Progress], None] = ignore
    note: Callable[[str], None] = lambda text: None
    bill: Bill = field(default_factory=dict)
    name: str = "train"
    loss: Tensor | None = None
    augment: bool = False
    micro_batch: int | None = None
    compile: bool = False
    optimizer: Optimizer = DEFAULT
    weights: Mapping[str, Path] = field(default_factory=dict)
    prepare_only: bool = False
    observe: Callable[[Point], None] = lambda point: None
    rows: Rows = field(default_factory=Rows)
    stepped: set[int] = field(default_factory=set)
    losses: Log | None = field(default=None, init=False)  # of the stage at hand

    def stage(self, name: str, share: float = 1.0, begin: float = 0.0) -> "Run":
        """The run of one stage of several: its own checkpoints and `share` of the steps.

        Stages that `begin` where others end have together the whole budget.
        """
        before, behind = (round(self.budget.steps * at) for at in (begin, begin + share))
        budget = replace(self.budget, steps=max(1, behind - before))
        return replace(self, name=name, budget=budget, loss=None, stepped=set())

    @property
    def started(self) -> bool:
        """Whether a checkpoint of this stage exists, from which it will go on."""
        return ranks.decided(lambda: self._path is not None and self._path.exists())

    def log(self, loss: Tensor, rival: bool = False) -> None:
        """Hand over a step's loss; the host looks at it now and then, not at each step.

        That of a `rival` has no part in the training curve.
        """
        self.loss = loss.detach()
        if self.losses is not None and not rival:
            self.losses.add(self.loss)

    def batches(self, source: Source, /, **parts: Any) -> Iterator[tuple]:
        """Yield what `source.draw` gives until the budget is spent; a body is one step.

        `parts` (anything with `state_dict`) are saved every so often and restored at the start,
        with the random state and the order of data, so an interrupted stage goes on exactly.
        Of several ranks each gets its rows, and backward passes sum the gradients of the networks
        among `parts`. Raises Diverged when the loss or a saved weight is not finite, FlowbenchError
        for a source that cannot be augmented where that is wanted.
        """
        if self.augment and getattr(source, "augment", None) is None:
            text = f"stage {self.name} does not train on images as they are in the data, so they"
            raise FlowbenchError(f"{text} cannot be augmented: leave the augmentation out")
        generator, here = torch.Generator(), sharing.part(self.budget.batch)
        draw = drawer(source, here, self.rows)
        state, steps = ranks.decided(self._read), self.budget.steps
        step = state["step"] if state else 0
        if step < steps:
            source.prepare()  # may train a teacher, so random states are set after it
        if self.prepare_only:
            raise Prepared(source)
        spent = self._restore(state, parts, generator) if state else 0.0
        if step == 0:
            seed = int(digest([self.seed, self.name])[:12], 16)
            generator.manual_seed(seed)
            torch.manual_seed(seed)
        self.losses = self._log(state, step)
        first, start, due = step, time.monotonic(), Pace(steps)
        with sharing.gradients(parts, self.stepped, here.share, sharing.exact(self.device)):
            while step < steps:
                batch = draw(generator, step + 1 < steps)
                with self.rows.of(here):
                    yield batch
                step += 1
                now = time.monotonic()
                if self.losses is not None:
                    heard = self.losses.mark(step, spent + now - start)
                    start, now = start + heard, now + heard
                due.meet(step, now, self.every)
                if due.look:
                    self._show(step, (step - first) / max(now - start, 1e-9))
                if due.save:
                    self.charge(seconds=spent + now - start, images=step * self.budget.batch)
                    self._save(parts, generator, step)
                    due.saved(now)
                if due.stop:
                    raise KeyboardInterrupt

    def _show(self, step: int, speed: float) -> None:
        """Tell the watcher; `speed` in steps per second."""
        left = (self.budget.steps - step) / speed
        rate = speed * self.budget.batch
        self.watch(Progress(self.name, step, self.budget.steps, self._look(step), rate, left))

    def charge(self, **costs: float) -> None:
        """Set what this stage has cost so far, such as `seconds=` and `images=`."""
        self.bill[self.name] = costs

    def _look(self, step: int) -> float:
        if self.loss is None:
            return math.nan
        values = ranks.gathered(self.loss.item())  # in an author's loop that of a rank's own rows
        for value in values:
            if not math.isfinite(value):
                raise Diverged(f"the loss became {value} at step {step} of stage {self.name}")
        return values[0]

    def _log(self, state: dict[str, Any] | None, step: int) -> Log | None:
        """Where the losses of this stage go, from `step` on."""
        if self.folder is None or not ranks.first():
            return None
        log = Log(self.folder, self.name, self.budget, self.observe)
        log.begin(step, (state or {}).get("losses"))
        return log

    @property
    def _path(self) -> Path | None:
        return self.folder and self.folder / f"{self.name}.pt"

    def _save(self, parts: dict[str, Any], generator: torch.Generator, step: int) -> None:
        self._look(step)
        for name, part in parts.items():
            if isinstance(part, nn.Module) and not _finite(part):
                raise Diverged(f"{name} has weights that are not finite at step {step}")
        sharing.check(parts, self.name)
        random = ranks.told({"order": generator.get_state(), **random_state(self.device)})
        set_random_state(random, self.device)
        if self._path is None or not ranks.first():
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        facts = {"step": step, "bill": self.bill, "micro_batch": self.micro_batch}
        facts |= {"losses": self.losses.state} if self.losses else {}
        save_state(self._path, {**facts, "random": random, "parts": state})

    def _read(self) -> dict[str, Any] | None:
        """The last checkpoint, if there is one."""
        return load_state(self._path) if self._path and self._path.exists() else None

    def _restore(self, state: dict, parts: dict[str, Any], generator: torch.Generator) -> float:
        """Go back to a checkpoint; return the seconds spent until then."""
        try:
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise FlowbenchError(f"{self._path} belongs to another network; delete it") from error
        generator.set_state(state["random"]["order"])
        set_random_state(state["random"], self.device)
        sizes = [size for size in (self.micro_batch, state.get("micro_batch")) if size]
        self.micro_batch = min(sizes, default=None)
        self.bill.update(state["bill"])
        return self.bill[self.name]["seconds"]


def _finite(network: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in network.state_dict().values())
