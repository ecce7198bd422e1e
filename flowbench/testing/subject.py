"""A method under examination, and what several checks need of it: networks, samples, a teacher."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowbench import meters, options, planning, plugins, resolution
from flowbench.coordinates import Field
from flowbench.data.base import Data
from flowbench.noise import Stream, unit_noise
from flowbench.records import Budget, FlowbenchError
from flowbench.teacher import Teacher
from flowbench.testing import surroundings
from flowbench.testing.toys import BUDGET, Ledger, Watched, corners, steps_into, toy
from flowbench.training import Run

ROWS = range(6)
TRIED = (1, 2, 3, 4, 5, 8, 16)  # numbers of evaluations, of which the first few are taken


class Counted(Stream):
    """Fresh noise that knows whether it was asked for."""

    asked = 0

    def __call__(self) -> Tensor:
        self.asked += 1
        return super().__call__()


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Samples, the evaluations that each has cost, and whether fresh noise went into them."""

    samples: Tensor
    nfe: float
    fresh: bool


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training returned, its run, whose folder is kept, and what global state it changed."""

    network: nn.Module
    run: Watched
    changed: tuple[str, ...]


@dataclasses.dataclass
class Subject:
    """The method that `load` gives, with the options `words`; made on `folder`, on `kind` of data.

    `given` is an instance in the place of both. `nfes` are the evaluations that it is tried with
    (none: the first that it takes), `order` is that of its solver, and `exact(law, data)` gives
    the network that is right for a `laws.Affine`, where no known form fits.
    """

    load: Callable[[], Any]
    folder: Path
    name: str = ""
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    given: Any = None
    kind: str = "vector"
    nfes: tuple[int, ...] = ()
    order: float = 1.0
    exact: Callable[[Any, Data], nn.Module] | None = None
    watched: Ledger = dataclasses.field(default_factory=Ledger)  # of the training at hand

    @cached_property
    def cls(self) -> Any:
        """The class; raises whatever its import raises."""
        return self.load() if self.given is None else type(self.given)

    @cached_property
    def method(self) -> Any:
        """The instance."""
        if self.given is not None:
            return self.given
        return plugins.instance(self.name, self.cls, self.words)

    @cached_property
    def hook(self) -> Any:
        """The method's hooks, its evaluations counted."""
        return plugins.manager(self.method, meters).hook

    @property
    def data(self) -> Data:
        """What it learns from."""
        return toy(self.kind)

    def refuses(self, nfe: int | None) -> bool:
        """Whether it does not sample with so many evaluations; only some know None, adaptive."""
        return bool(resolution.refusal(self.method, nfe))

    @cached_property
    def evaluations(self) -> tuple[int | None, ...]:
        """Numbers of evaluations that it samples with, ascending; (None,) where it adapts them."""
        if self.nfes:
            return tuple(sorted(self.nfes))
        found = [nfe for nfe in TRIED if not self.refuses(nfe)][:3]
        return tuple(found) if found else (None,)

    @cached_property
    def base(self) -> Trained:
        """A few steps of training, after which nobody changes the network."""
        run = Watched(BUDGET, self.folder / "base")
        before = surroundings.state()
        try:
            network = self.trained(run)
            changed = surroundings.changed(before)
        finally:
            surroundings.restore(before)
        return Trained(network, run, changed)

    @property
    def network(self) -> nn.Module:
        """The network after these steps."""
        return self.base.network

    def trained(self, run: Watched, data: Data | None = None, teacher: Any = None) -> Any:
        """What training over `run` returns, as the host calls it."""
        teacher = teacher or self.teacher
        torch.manual_seed(0)
        self.watched = run.ledger
        with steps_into(run.ledger):
            return self.hook.train(data=data or self.data, run=run, teacher=teacher, meter={})

    @cached_property
    def teacher(self) -> Teacher | None:
        """Its teacher after a few steps on the same data, if it has one."""
        return self.taught(self.data, BUDGET)

    def taught(self, data: Data, budget: Budget) -> Teacher | None:
        """Its default teacher, trained within `budget` when it is first used."""
        teacher = self.teacher_method
        if teacher is None:
            return None
        hook = plugins.manager(teacher, meters).hook

        def make() -> nn.Module:
            torch.manual_seed(1)  # like the host, it leaves another random state behind
            run = Run(budget, self.folder / f"teacher-{data.name}")
            self.watched.paused = True
            try:
                with torch.enable_grad():  # whoever asks for it first
                    return hook.train(data=data, run=run, teacher=None, meter={})
            finally:
                self.watched.paused = False

        return Teacher(make, hook.velocity, getattr(teacher, "interval", (0.0, 1.0)))

    @cached_property
    def teacher_method(self) -> Any:
        """An instance of the method that it learns from by default, or None."""
        name = getattr(self.method, "teacher", None)
        if name is None:
            return None
        usual = options.values(self.cls())
        changed = {n: v for n, v in options.values(self.method).items() if v != usual[n]}
        return plugins.method(name, planning.teacher_options(name, self.method, changed))

    def drawn(
        self,
        network: nn.Module | None = None,
        nfe: int | None = -1,
        rows: Sequence[int] = ROWS,
        seed: int = 0,
        labels: Tensor | None = None,
        noise: Tensor | None = None,
        data: Data | None = None,
    ) -> Drawn:
        """Samples of these indices, at the most of `evaluations` unless `nfe` says otherwise."""
        shape, known = (data or self.data).shape, (data or self.data).classes
        meter: dict[str, float] = {}
        rng = Counted(seed, rows, shape, "cpu")
        samples = self.hook.sample(
            network=self.network if network is None else network,
            noise=unit_noise(seed, rows, shape) if noise is None else noise,
            labels=torch.tensor(rows) % 2 if labels is None and known else labels,
            nfe=self.evaluations[-1] if nfe == -1 else nfe,
            rng=rng,
            meter=meter,
        )
        return Drawn(samples, meter["nfe"], rng.asked > 0)

    def copied(self) -> nn.Module:
        """A copy of the network, for checks after which it may be another one."""
        return copy.deepcopy(self.network)

    def points(self) -> Data | None:
        """Points of the plane around four corners, or None where it does not learn from such."""
        data = corners()
        if getattr(self.method, "refuses_data", lambda data: None)(data):
            return None
        try:
            if hasattr(self.method, "network"):
                self.method.network(data)
        except FlowbenchError:
            return None
        return data

    def roomy(self) -> "Subject":
        """The same method with a network of the usual width."""
        usual = {f.name: f.default for f in dataclasses.fields(self.method) if f.name == "width"}
        method = dataclasses.replace(self.method, **usual)
        folder = self.folder / "roomy"
        return dataclasses.replace(self, given=method, folder=folder, watched=Ledger())

    @property
    def interval(self) -> tuple[float, float] | None:
        """The canonical times between which its field is defined; None: it has none."""
        if not self.hook.velocity.get_hookimpls():
            return None
        return getattr(self.method, "interval", (0.0, 1.0))

    def field(self, network: nn.Module) -> Field:
        """Its canonical field."""
        return lambda z, t, y: self.hook.velocity(network=network, z=z, t=t, labels=y)
