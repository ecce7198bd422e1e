"""Pairs (noise, sample) that a teacher's sampler makes once, kept and reused by key."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from flowbench import noise_levels, solvers
from flowbench.checkpoints import find_tensors, save_tensors
from flowbench.metrics.modes import share_within
from flowbench.noise import PAIRS, balanced_labels, unit_noise
from flowbench.records import digest
from flowbench.training import Progress, Run

BATCH = 125  # above this, the activations of the U-Net leave the cache of a CPU
GPU_BATCH = 500
TEACHER_SHARE = 0.8
Sampler = Callable[[Tensor, Tensor | None], Tensor]
Start = Callable[[range], tuple[Tensor, Tensor | None]]


class Pairs:
    """A source of (noise, sample, label) batches for `Run.batches`.

    `sample(noise, labels)` maps unit noise to data; `facts()` names everything the pairs depend
    on besides `n` and the seed (the teacher's hash, the sampler and its steps): their key. Pairs
    are made in shards, each written when it is done, so an interrupted making goes on. They are
    float32 and not clipped: rounding them to pixels would teach the student the rounding.

    `start(indices)` gives other states to start from than noise, with their labels; with
    `inverse`, those are data and `sample` finds the noise that they came from.
    """

    def __init__(
        self,
        sample: Sampler,
        facts: Callable[[], Mapping[str, Any]],
        data,
        n: int,
        run: Run,
        start: Start | None = None,
        inverse: bool = False,
    ):
        self.sample, self.facts, self.n = sample, facts, n
        self.start, self.inverse = start or self._noise, inverse
        self.run = run.stage("inverse-pairs" if inverse else "pairs")
        self.shape, self.classes, self.device = data.shape, data.classes, data.device
        self.shard = max(1, min(n, 2**22 // max(1, torch.Size(self.shape).numel()), 1000))
        self.modes = data.modes
        self.tensors: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self.n

    def _noise(self, indices: range) -> tuple[Tensor, Tensor | None]:
        """Unit noise of these indices and balanced labels."""
        noise = unit_noise(self.run.seed, indices, self.shape, device=self.device, use=PAIRS)
        return noise, balanced_labels(indices, self.classes, self.device)

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(noise, sample, label) of the given pairs, on the device."""
        rows = rows.to(self.device)
        label = self.tensors["label"][rows] if self.classes else None
        return self.tensors["noise"][rows], self.tensors["sample"][rows], label

    def prepare(self) -> None:
        """Make what is missing, then hold all pairs on the device."""
        if self.tensors:
            return
        facts = {**self.facts(), "n": self.n, "seed": self.run.seed, "shard": self.shard}
        facts = json.loads(json.dumps(facts))  # as the header of a file gives it back
        folder = self.run.folder and self.run.folder.parent / f"pairs-{digest(facts)[:16]}"
        if folder is None:
            shards = [self._make(start) for start in self._starts]
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                shards = [self._find(folder, start, facts) for start in self._starts]
        names = ("noise", "sample", "label") if self.classes else ("noise", "sample")
        self.tensors = {
            name: torch.cat([tensors[name] for tensors, _ in shards]).to(self.device)
            for name in names
        }
        self.run.charge(seconds=sum(seconds for _, seconds in shards), images=self.n)
        self._look()

    def _look(self) -> None:
        """Say so if the teacher has missed the modes of the data, where those are known.

        Undertrained teachers fit one Gaussian to a mixture; Frechet distance does not show it.
        """
        flat = self.tensors["sample"].shape[1:] == self.shape
        if self.modes is not None and flat and not self.inverse:
            share = share_within(self.tensors["sample"], self.modes)
            if share < TEACHER_SHARE:
                self.run.note(
                    f"only {share:.0%} of the teacher's samples lie within 3 standard deviations of"
                    " a mode: it is trained too little, and its student will not be better"
                )

    @property
    def _starts(self) -> range:
        return range(0, self.n, self.shard)

    def _find(self, folder: Path, start: int, facts: dict) -> tuple[dict[str, Tensor], float]:
        path = folder / f"{start:09d}.safetensors"
        tensors, header = find_tensors(path, self.run.note) or ({}, {})
        if header.get("facts") == facts:
            return tensors, header["seconds"]
        tensors, seconds = self._make(start)
        save_tensors(path, tensors, {"facts": facts, "seconds": seconds})
        return tensors, seconds

    def _make(self, start: int) -> tuple[dict[str, Tensor], float]:
        begun = time.monotonic()
        indices = range(start, min(start + self.shard, self.n))
        states, labels = self.start(indices)
        ends = torch.cat([self.sample(*some) for some in _parts(states, labels)])
        first, second = ("sample", "noise") if self.inverse else ("noise", "sample")
        tensors = {first: states, second: ends}
        if labels is not None:
            tensors["label"] = labels
        seconds = time.monotonic() - begun
        rate = len(indices) / max(seconds, 1e-9)
        left = (self.n - indices.stop) / rate
        self.run.watch(Progress("pairs", indices.stop, self.n, rate=rate, seconds_left=left))
        return {name: tensor.cpu() for name, tensor in tensors.items()}, seconds


def _parts(noise: Tensor, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of a size at which processors are fastest."""
    size = GPU_BATCH if noise.is_cuda else BATCH
    for start in range(0, len(noise), size):
        rows = slice(start, start + size)
        yield noise[rows], None if labels is None else labels[rows]


def heun_pairs(teacher, data, run: Run, n: int, levels: int, low: float, high: float) -> Pairs:
    """`n` pairs of a denoising teacher, by EDM's Heun sampler on `levels` from `high` to `low`.

    Every method that asks with equal numbers gets the same files.
    """

    def sample(noise: Tensor, labels: Tensor | None) -> Tensor:
        grid = noise_levels.karras(levels, low, high)
        return solvers.sigma_heun(teacher.denoiser, high * noise, labels, grid)

    def facts() -> dict[str, Any]:
        return {"teacher": teacher.key, "sampler": "heun", "levels": [levels, low, high]}

    return Pairs(sample, facts, data, n, run)
