"""The contract that every method keeps, as a class of tests to inherit.

class TestMine(MethodContract):
    method = Mine(width=16)
"""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowbench import meters, plugins
from flowbench.coordinates import Field
from flowbench.data.base import Arrays, Data, load
from flowbench.mixtures import gaussian
from flowbench.noise import Stream, unit_noise
from flowbench.records import Budget
from flowbench.teacher import Teacher
from flowbench.training import Run

BUDGET = Budget(steps=8, batch=16)


@cache
def toy(kind: str = "image") -> Data:
    """64 rows in two classes: 8x8 images, or 6-dimensional vectors."""
    rng = np.random.Generator(np.random.Philox(key=1))
    labels = np.arange(64) % 2
    if kind == "image":
        rows: Any = rng.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)
    else:
        rows = rng.standard_normal((64, 6), dtype=np.float32)
    law = gaussian(6) if kind == "vector" else None
    return load(kind, Arrays(rows, rows[:16], labels, labels[:16], classes=2, law=law), "cpu")


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


class MethodContract:
    """Set `method` to an instance; `nfes` to what it can sample with."""

    method: Any
    kind: ClassVar[str] = "image"
    nfes: ClassVar[tuple[int, ...]] = (1, 2, 5)

    @property
    def hook(self) -> Any:
        return plugins.manager(self.method, meters).hook

    def trained(self, run: Run | None = None) -> nn.Module:
        """A network after a few steps on the toy data."""
        torch.manual_seed(0)
        run = run or Run(BUDGET)
        return self.hook.train(data=toy(self.kind), run=run, teacher=self.taught(), meter={})

    def taught(self) -> Teacher | None:
        """The teacher, if the method has one."""
        return toy_teacher() if getattr(self.method, "teacher", None) else None

    def sampled(self, network: nn.Module, nfe: int | None = None, rows: range = range(6)):
        """Samples of the given indices, and the evaluations counted; at the highest of `nfes`."""
        shape = toy(self.kind).shape
        meter: dict[str, float] = {}
        noise = unit_noise(0, rows, shape)
        kept = noise.clone()
        samples = self.hook.sample(
            network=network,
            noise=noise,
            labels=torch.tensor(rows) % 2,
            nfe=nfe or max(self.nfes),
            rng=Stream(0, rows, shape, "cpu"),
            meter=meter,
        )
        assert torch.equal(noise, kept), "sample() must leave its noise as it was"
        return samples, meter["nfe"]

    def field(self, network: nn.Module) -> Field:
        """The canonical field of the method."""
        return lambda z, t, y: self.hook.velocity(network=network, z=z, t=t, labels=y)

    def test_it_is_a_frozen_dataclass_with_defaults(self) -> None:
        cls = type(self.method)
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert cls() is not None

    def test_samples_look_like_the_data(self) -> None:
        samples, _ = self.sampled(self.trained())
        assert samples.shape == (6, *toy(self.kind).shape)
        assert samples.dtype == torch.float32
        assert samples.isfinite().all()
        assert not samples.requires_grad

    def test_it_spends_exactly_the_evaluations_asked_for(self) -> None:
        network = self.trained()
        for nfe in self.nfes:
            assert self.sampled(network, nfe)[1] == nfe

    def test_same_seed_same_samples(self) -> None:
        network = self.trained()
        assert torch.equal(self.sampled(network)[0], self.sampled(network)[0])

    def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(self) -> None:
        network = self.trained()
        together, _ = self.sampled(network)
        alone = torch.cat([self.sampled(network, rows=range(i, i + 1))[0] for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_labels_and_noise_reach_the_network(self) -> None:
        network = self.trained()
        first = self.sampled(network)[0]
        assert not torch.allclose(first[0], first[2]), "two noises gave one sample"

    def test_sampling_leaves_the_weights_alone(self) -> None:
        network = self.trained()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        self.sampled(network)
        for name, value in network.state_dict().items():
            assert torch.equal(before[name], value), name

    def test_interrupted_training_equals_continuous(self, tmp_path: Path) -> None:
        with pytest.raises(Stop):
            self.trained(Killed(BUDGET, tmp_path / "run", every=0))
        resumed = self.trained(Run(BUDGET, tmp_path / "run", every=0))
        continuous = self.trained()
        for a, b in zip(resumed.parameters(), continuous.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_a_finished_run_is_restored_without_training(self, tmp_path: Path) -> None:
        first = self.trained(Run(BUDGET, tmp_path / "run"))
        again = self.trained(Run(BUDGET, tmp_path / "run"))
        for a, b in zip(first.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_the_field_is_finite_where_it_is_defined(self) -> None:
        if not self.hook.velocity.get_hookimpls():
            pytest.skip("no velocity: its columns stay empty")
        interval = getattr(self.method, "interval", (0.0, 1.0))
        if interval is None:
            pytest.skip("no field with these options")
        begin, end = interval
        z, network = unit_noise(0, range(4), toy(self.kind).shape), self.trained()
        for t in (begin, (begin + end) / 2, end):
            with torch.no_grad():
                field = self.field(network)(z, torch.full((4,), t), torch.arange(4) % 2)
            assert field.shape == z.shape
            assert field.isfinite().all()

    def test_what_it_measures_of_itself_are_numbers(self, tmp_path: Path) -> None:
        run, data, network = Run(BUDGET, tmp_path / "run"), toy(self.kind), self.trained()
        found = self.hook.measure(network=network, data=data, run=run, teacher=self.taught())
        for name, value in (found or {}).items():
            assert isinstance(name, str) and isinstance(value, float), name
