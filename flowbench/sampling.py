"""Samples of a trained network: drawn once for each NFE, counted, and kept."""

import gc
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowbench import ranks
from flowbench.checkpoints import find_tensors, save_tensors, weights_hash
from flowbench.data.base import quantise, scale
from flowbench.memory import fewer
from flowbench.noise import Stream, balanced_labels, unit_noise
from flowbench.planning import Plan, Setup
from flowbench.records import ADAPTIVE, RunFailed
from flowbench.training import Progress

BATCH = 500  # samples that are drawn together
SHARD = 5000  # samples that a crash may cost
ROWS = 8  # of which a batch is filled up to a multiple: a few rows more or less round otherwise


@dataclass
class Sampler:
    """Draws from one trained network; what it drew before lies in `folder`."""

    plan: Plan
    setup: Setup
    folder: Path
    hook: Any
    network: nn.Module
    batch: int = BATCH

    def path(self, nfe: int) -> Path:
        """Where the samples at `nfe` are kept."""
        n, seed = self.plan.protocol.samples, self.plan.protocol.seed
        return self.folder / f"samples-nfe{nfe or 'auto'}-n{n}-s{seed}.safetensors"

    def samples(self, nfe: int) -> tuple[Tensor, dict[str, Any]]:
        """The samples at `nfe` as metrics see them, and facts of how they were made.

        They are drawn once and kept. Images are quantised to uint8: pixels are what is judged.
        """
        path = self.path(nfe)
        kept = ranks.decided(lambda: self._kept(path))
        if kept is None:
            raw, counted = self._draw(nfe)
            bad = int((~raw.flatten(1).isfinite().all(1)).sum())
            facts = {"nfe": counted, "not_finite": bad, "clipped": 0.0, "weights": self.weights}
            if self.plan.data.kind == "image" and not bad:
                facts["clipped"] = (raw.abs() > 1).sum().item() / raw.numel()
                raw = quantise(raw)
            kept = raw, facts
            ranks.decided(lambda: save_tensors(path, {"samples": raw}, facts))
        for part in path.parent.glob(f"{path.stem}.*.part"):  # also of a process that was killed
            part.unlink(missing_ok=True)
        return scale(kept[0]).to(self.plan.data.device), kept[1]

    @cached_property
    def weights(self) -> str:
        """The hash of the network that is examined."""
        return weights_hash(self.network)

    def _kept(self, path: Path) -> tuple[Tensor, dict[str, Any]] | None:
        """Samples that this very network made before; what is damaged is made anew."""
        tensors, facts = find_tensors(path, self.setup.note) or ({}, {})
        return (tensors["samples"], facts) if facts.get("weights") == self.weights else None

    def _draw(self, nfe: int) -> tuple[Tensor, float]:
        """All samples at `nfe`, on the host, and the evaluations counted per sample.

        Where they are many, each shard is kept as soon as it is drawn; ranks draw as many together.
        """
        n = self.plan.protocol.samples
        shards = [range(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]
        known = {rows: self._known(rows, nfe) for rows in shards}
        drawn = {rows: kept for rows, kept in known.items() if kept is not None}
        missing = [rows for rows in shards if rows not in drawn]
        for first in range(0, len(missing), ranks.count()):
            some = missing[first : first + ranks.count()]
            for rows, made in zip(some, self._shards(some, nfe), strict=True):
                drawn[rows] = made
                self._keep(rows, nfe, *made)
        return _joined(range(n), [drawn[rows] for rows in shards])

    def _known(self, rows: range, nfe: int) -> tuple[Tensor, float] | None:
        """A shard that was kept, and its evaluations; None where it has to be drawn."""
        path = self._part(nfe, rows.start)
        if self.plan.protocol.samples <= SHARD:
            return None
        kept = ranks.decided(partial(self._kept, path))
        return None if kept is None else (kept[0], kept[1]["nfe"])

    def _keep(self, rows: range, nfe: int, samples: Tensor, spent: float) -> None:
        """Write a shard, where there are several."""
        if self.plan.protocol.samples > SHARD and ranks.first():
            facts = {"nfe": spent, "weights": self.weights}
            save_tensors(self._part(nfe, rows.start), {"samples": samples}, facts)

    def _part(self, nfe: int, start: int) -> Path:
        return self.path(nfe).with_suffix(f".{start:08d}.part")

    def _shards(self, shards: list[range], nfe: int) -> list[tuple[Tensor, float]]:
        """The samples of each shard, of which each rank draws some batches, and the evaluations.

        Batches are those of one process: kernels for other numbers of rows round otherwise, and the
        steps of an adaptive solver hang on the batch.
        """
        if ranks.count() == 1:
            return [self._piece(rows, nfe) for rows in shards]
        size = ranks.told(self.batch)
        batches = [rows[at : at + size] for rows in shards for at in range(0, len(rows), size)]
        own = ranks.part(len(batches))
        made = ranks.agreed(lambda: [self._piece(rows, nfe) for rows in batches[own.rows]])
        found = iter([drawn for some in made for drawn in some])
        return [_joined(rows, [next(found) for _ in range(0, len(rows), size)]) for rows in shards]

    def _piece(self, rows: range, nfe: int) -> tuple[Tensor, float]:
        """The samples of these indices, as many at once as the device has room for."""
        parts, counted, done = [torch.empty(0, *self.plan.data.shape)], 0.0, rows.start
        while done < rows.stop:
            indices = range(done, min(done + self.batch, rows.stop))
            drawn = self._try(indices, nfe)
            if drawn is None:  # outside of `except`, which would keep what the try has used
                size = len(indices)
                self.batch = fewer(size, "sample", "draw", "drawn", self.setup.note)
                continue
            samples, spent = drawn
            parts.append(samples.cpu())
            done = indices.stop
            counted += spent * len(indices) / len(rows)
            self.setup.watch(
                Progress(f"samples at NFE {nfe or 'auto'}", done, self.plan.protocol.samples)
            )
            if nfe != ADAPTIVE and spent != nfe:
                method = self.plan.spec.method
                raise RunFailed(
                    f"{method} spent {spent:g} evaluations where {nfe} were asked for: see"
                    f" flowbench check {method}"
                )
        return torch.cat(parts), counted

    def _try(self, indices: range, nfe: int) -> tuple[Tensor, float] | None:
        """One batch of samples and its evaluations, or None where the device has no room.

        Kernels for other numbers of rows add in another order, so that a sample would hang on the
        batch that it is drawn in. An adaptive solver's steps hang on it anyhow.
        """
        more = 0 if nfe == ADAPTIVE else -len(indices) % ROWS
        for rows in dict.fromkeys((len(indices) + more, len(indices))):
            filled = range(indices.start, indices.start + rows)
            with suppress(torch.OutOfMemoryError):
                samples, spent = self.call(self.noise(filled), filled, nfe)
                return samples[: len(indices)], spent
        return None

    def fitting(self, rows: int, nfe: int) -> int:
        """Up to `rows`, as many samples as the device has room to draw together."""
        while rows > 1 and self._try(range(rows), nfe) is None:
            gc.collect()
            rows //= 2
        return rows

    def call(self, noise: Tensor, indices: range, nfe: int) -> tuple[Tensor, float]:
        """One batch of samples, and the evaluations that each has cost."""
        meter: dict[str, float] = {}
        samples = self.hook.sample(
            network=self.network,
            noise=noise,
            labels=self.labels(indices),
            nfe=None if nfe == ADAPTIVE else nfe,
            rng=Stream(self.plan.protocol.seed, indices, self.plan.data.shape, self.setup.device),
            meter=meter,
        )
        if samples.shape != noise.shape:
            raise RunFailed(
                f"samples of {self.plan.spec.method} are {tuple(samples.shape)},"
                f" noise is {tuple(noise.shape)}: they must be alike"
            )
        return samples.float(), meter["nfe"]

    def noise(self, indices: range) -> Tensor:
        """What the samples of these indices start from."""
        seed, shape = self.plan.protocol.seed, self.plan.data.shape
        return unit_noise(seed, indices, shape, device=self.setup.device)

    def labels(self, indices: range) -> Tensor | None:
        """Their classes, or None."""
        return balanced_labels(indices, self.plan.data.classes, self.setup.device)


def _joined(rows: range, made: list[tuple[Tensor, float]]) -> tuple[Tensor, float]:
    """The samples of all batches or shards of these rows, and the evaluations."""
    counted = 0.0
    for samples, spent in made:  # in the order of one process, which rounds the sum
        counted += spent * len(samples) / len(rows)
    return torch.cat([samples for samples, _ in made]), counted
