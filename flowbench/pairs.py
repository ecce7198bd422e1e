"""Pairs (noise, sample) that a teacher's sampler makes once, kept and reused by key.

Small sets are held on the device in float32. Large ones stay on the disk: their samples are
float16, and noise is not stored but drawn again, as it is fixed by seed and index.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowbench import noise_levels, ranks, solvers
from flowbench.checkpoints import read_tensors
from flowbench.data.base import spread
from flowbench.data.rows import Clock
from flowbench.memory import fewer
from flowbench.metrics.modes import share_within
from flowbench.noise import PAIRS, balanced_labels, unit_noise
from flowbench.pair_files import Held, Made, Mapped, Shards, map_tensors, parts
from flowbench.records import Diverged, FlowbenchError, digest
from flowbench.training import Run

BATCH = 125  # above this, the activations of the U-Net leave the cache of a CPU
GPU_BATCH = 500
TEACHER_SHARE = 0.8
LIMIT = 2**30  # bytes of noise and samples in float32, above which a set is large
FILE, LARGE_FILE = (1000, 2**22), (8192, 2**26)  # at most so many pairs, and numbers of samples
LOOKED_AT = 4096  # samples of a large set that are held against the known modes
CHECKED = 4  # pairs of a large set that the teacher makes again when they are found
ROUNDING, WRONG = 0.01, 0.1  # how far off, over their root mean square: a note, an error
Sampler = Callable[[Tensor, Tensor | None], Tensor]
Start = Callable[[range], tuple[Tensor, Tensor | None]]


class Pairs:
    """A source of (noise, sample, label) batches for `Run.batches`.

    `sample(noise, labels)` maps unit noise to data; `facts()` names everything the pairs depend
    on besides `n` and the seed (the teacher's hash, the sampler and its steps): their key. Pairs
    are made in shards, each written when it is done: an interrupted making goes on, and processes
    that make the same pairs share the work. They are neither clipped nor rounded to pixels: that
    would teach the student the rounding.

    Ranks share the work in the same way, through files that all of them see.

    `start(indices)` gives other states to start from than noise, with their labels; with
    `inverse`, those are data and `sample` finds the noise that they came from.
    """

    by_row = True

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
        self.numbers = max(1, torch.Size(self.shape).numel())
        self.large = run.folder is not None and 8 * n * self.numbers > LIMIT
        self.redrawn = self.large and start is None  # noise that is not stored
        most, size = LARGE_FILE if self.large else FILE
        self.shard = max(1, min(n, most, size // self.numbers))
        self.batch = GPU_BATCH if self.device.startswith("cuda") else BATCH
        self.modes = data.modes
        self.held: Any = None  # Held or Mapped, once they are prepared
        self.files: Shards | None = None

    def __len__(self) -> int:
        return self.n

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(noise, sample, label) of the given pairs, on the device."""
        return self.held.draw(rows)

    def expect(self, rows: Tensor) -> None:
        """Begin to read these rows, which will be drawn next, where reading takes time."""
        self.held.expect(rows)

    def prepare(self) -> None:
        """Make what is missing, then hold all pairs on the device, or map them.

        Raises FlowbenchError where the disk has no room for them, or where pairs that were found
        do not fit to their noise or their teacher; Diverged for samples that are not finite.
        """
        if self.held is not None:
            return
        if self.run.folder is None:
            clock = Clock("pairs", self.run.watch)
            made = [self._make(part, clock, part.start) for part in parts(self.n, self.shard)]
        else:
            self.files = self._files(self.run.folder.parent)
            own = sum(ranks.agreed(self._share))
            made = self.files.load(map_tensors if self.large else read_tensors)
        self._hold([tensors for tensors, _ in made])
        if self.large and self.files:
            self._check(self.files, [facts for _, facts in made], alien=own < len(made))
        self.run.charge(seconds=sum(facts["seconds"] for _, facts in made), images=self.n)
        self._look()

    def _share(self) -> int:
        """Make what is missing, beside the other ranks; returns how many files were made."""
        assert self.files is not None
        return self._fill(self.files)

    def _files(self, folder: Path) -> Shards:
        """The files of these pairs, in a folder that is named after all they depend on."""
        facts = {**self.facts(), "n": self.n, "seed": self.run.seed, "shard": self.shard}
        facts |= {"dtype": "float16"} if self.large else {}
        facts = json.loads(json.dumps(facts))  # as the header of a file gives it back
        folder = folder / f"pairs-{digest(facts)[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        return Shards(folder, facts, self.n, self.shard, self.run.note)

    def _fill(self, files: Shards) -> int:
        """Make what is missing, together with other processes; returns how many files were made."""
        each = 2 if self.redrawn else 6 if self.large else 8
        files.require_room(self.numbers * each + 8 * bool(self.classes))
        clock = Clock("pairs", self.run.watch, first=files.done)

        def make(part: range) -> Made:
            return self._make(part, clock, files.done)

        return files.fill(make, lambda: clock(files.done, self.n))

    def _hold(self, shards: list[dict[str, Tensor]]) -> None:
        names = ("noise", "sample", "label") if self.classes else ("noise", "sample")
        if not self.large:
            self.held = Held(shards, names, self.device)
        else:
            noise = self._redraw if self.redrawn else None
            self.held = Mapped(shards, names, self.device, self.shard, noise)

    def _noise(self, indices: range) -> tuple[Tensor, Tensor | None]:
        """Unit noise of these indices and balanced labels."""
        noise = unit_noise(self.run.seed, indices, self.shape, device=self.device, use=PAIRS)
        return noise, balanced_labels(indices, self.classes, self.device)

    def _redraw(self, indices: list[int]) -> Tensor:
        """The noise that these pairs were made of, on the host."""
        return unit_noise(self.run.seed, indices, self.shape, use=PAIRS)

    def _make(self, part: range, clock: Clock, done: int) -> Made:
        """The tensors of a shard on the host, and what it has cost; `done` pairs are there."""
        begun = time.monotonic()
        states, labels = self.start(part)
        ends = self._ends(states, labels, lambda n: clock(min(done + n, self.n), self.n))
        first, second = ("sample", "noise") if self.inverse else ("noise", "sample")
        tensors = {second: ends}
        if not self.redrawn:
            tensors[first] = states.cpu()
        if labels is not None:
            tensors["label"] = labels.cpu()
        facts: dict[str, Any] = {"seconds": time.monotonic() - begun}
        if self.redrawn:
            facts["noise"] = self._checksum(part)
        return tensors, facts

    def _ends(self, states: Tensor, labels: Tensor | None, watch: Callable[[int], None]) -> Tensor:
        """What the teacher makes of `states`, on the host in the type of the files."""
        ends: list[Tensor] = []
        done = 0
        while done < len(states):
            rows = slice(done, done + self.batch)
            try:
                some = self.sample(states[rows], None if labels is None else labels[rows])
            except torch.OutOfMemoryError:
                self.batch = fewer(self.batch, "pair", "make", "made", self.run.note)
                continue
            ends.append((some.half() if self.large else some).cpu())
            if not ends[-1].isfinite().all():
                raise Diverged("the teacher's samples are not finite, so they make no pairs")
            done += len(ends[-1])
            watch(done)
        return torch.cat(ends)

    def _checksum(self, part: range) -> str:
        """What the first noises of a shard hash to here."""
        first = self._redraw(list(part[:CHECKED]))
        return hashlib.sha256(first.numpy().tobytes()).hexdigest()[:16]

    def _check(self, files: Shards, headers: list[Mapping[str, Any]], alien: bool) -> None:
        """Raise FlowbenchError where the noise that is drawn, or the teacher, does not fit."""
        for part, header in zip(files.parts, headers, strict=True):
            if self.redrawn and header.get("noise") != self._checksum(part):
                path, folder = files.path(part), files.folder
                raise FlowbenchError(f"{path} was made of other noise than here: delete {folder}")
        if not alien:
            return
        noise, x, labels = self.draw(spread(self.n, CHECKED))
        states, ends = (x, noise) if self.inverse else (noise, x)
        off = (self.sample(states, labels) - ends).flatten(1).square().mean(1).sqrt().max()
        error = (off / ends.square().mean().sqrt()).item()
        if not error <= WRONG:
            raise FlowbenchError(
                f"these pairs do not come from this teacher: delete {files.folder}"
            )
        if error > ROUNDING:
            self.run.note(
                f"the teacher makes pairs here that are {error:.1%} off those of the files"
            )

    def _look(self) -> None:
        """Say so if the teacher has missed the modes of the data, where those are known.

        Undertrained teachers fit one Gaussian to a mixture; Frechet distance does not show it.
        """
        if self.modes is None or self.inverse:
            return
        x = self.draw(spread(self.n, LOOKED_AT if self.large else self.n))[1]
        share = share_within(x, self.modes) if x.shape[1:] == self.shape else 1.0
        if share < TEACHER_SHARE:
            self.run.note(
                f"only {share:.0%} of the teacher's samples lie within 3 standard deviations of"
                " a mode: it is trained too little, and its student will not be better"
            )


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
