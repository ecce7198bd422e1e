"""The making of reference statistics, shard by shard, so that a crash costs few images."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowbench import ranks
from flowbench.checkpoints import find_tensors, save_tensors
from flowbench.data.base import Split, spread
from flowbench.metrics.statistics import Statistics
from flowbench.records import RunFailed
from flowbench.training import Progress

KEPT = 50_000  # rows whose features are kept
BLOCK = 250  # images on their way through the extractor
SHARD = 2000  # images between two writes at least
SHARDS = 32  # files at most: each holds two covariances, 66 MB for Inception
PARTS = ("pool", "spatial")  # features that statistics are made of, where an extractor has them

Note = Callable[[str], None]


@dataclass
class Building:
    """One reference in the making, shard by shard."""

    split: Split
    rows: Tensor  # (n,) row numbers in the split
    extractor: Any
    folder: Path
    watch: Callable[[Progress], None]
    note: Note
    done: int = 0
    made: int = 0  # of those done, by this process
    start: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.kept = torch.zeros(len(self.rows), dtype=torch.bool)
        self.kept[spread(len(self.rows), KEPT)] = True

    def whole(self) -> dict[str, Tensor]:
        """Statistics over all rows, and all features that are kept."""
        sums: dict[str, Statistics] = {}
        features, n = [], len(self.rows)
        size = max(SHARD, -(-n // SHARDS))
        parts = [(first, min(first + size, n)) for first in range(0, n, size)]
        if ranks.count() > 1:  # each makes the files of some, and then all are read
            ranks.shared(parts, self._settle)
        for first, last in parts:
            tensors = self.shard(first, last)
            features.append(tensors["features"])
            for name in PARTS:
                if f"{name}.n" in tensors:
                    part = Statistics.from_tensors(tensors, name)
                    sums.setdefault(name, Statistics.empty(len(part.mean))).merge(part)
        return pack(sums, features)

    def _settle(self, part: tuple[int, int]) -> None:
        """See to it that the file of these rows is there: tensors are too large to hand over."""
        self.shard(*part)

    def shard(self, first: int, last: int) -> dict[str, Tensor]:
        """The same over the rows from `first` to `last`, from the file of an earlier process."""
        path = self.folder / f"rows-{first:08d}-{last:08d}.safetensors"
        tensors = intact(path, self.note)
        if tensors is None:
            tensors = self.make(first, last)
            save(path, tensors, {})
        else:
            self.tell(last - first, made=0)
        return tensors

    def make(self, first: int, last: int) -> dict[str, Tensor]:
        """The same, from the images."""
        sums: dict[str, Statistics] = {}
        features = []
        for start in range(first, last, BLOCK):
            stop = min(start + BLOCK, last)
            found = self.extract(start, stop)
            for name, values in self.parts(found):
                if name not in sums:
                    sums[name] = Statistics.empty(values.shape[1], values.device)
                sums[name].add(values)
            features.append(found.pool.float().cpu()[self.kept[start:stop]])
            self.tell(stop - start, made=stop - start)
        return pack(sums, features)

    def parts(self, found: Any) -> Iterator[tuple[str, Tensor]]:
        """The features that statistics are made of; raises RunFailed where they are not finite."""
        for name in PARTS:
            values = getattr(found, name)
            if values is None:
                continue
            if not torch.isfinite(values).all():
                raise RunFailed(f"{self.extractor.name} gives {name} features that are not finite")
            yield name, values

    def extract(self, start: int, stop: int) -> Any:
        """Features of one block of images."""
        from flowbench.metrics.extractors import extract

        values = self.split.values
        images = values[self.rows[start:stop].to(values.device)].to(self.split.device)
        return extract(self.extractor, images)

    def tell(self, rows: int, made: int) -> None:
        """Count rows that are done, and say how far this is."""
        self.done, self.made = self.done + rows, self.made + made
        rate = self.made / max(time.monotonic() - self.start, 1e-9)
        left = (len(self.rows) - self.done) / rate if rate else 0.0
        self.watch(Progress("reference", self.done, len(self.rows), rate=rate, seconds_left=left))


def pack(sums: Mapping[str, Statistics], features: list[Tensor]) -> dict[str, Tensor]:
    """What a file holds: statistics by name, and kept pool features (m, d)."""
    packed = {"features": torch.cat(features)}
    for name, statistics in sums.items():
        packed |= statistics.tensors(name)
    return packed


def save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Store what `pack` gave, with a checksum in the header."""
    save_tensors(path, tensors, header | {"checksum": checksum(tensors)})


def intact(path: Path, note: Note) -> dict[str, Tensor] | None:
    """What `save` wrote, or None where it has to be made; `note` hears of damage."""
    found = find_tensors(path, note)
    if found is None:
        return None
    tensors, header = found
    if header.get("checksum") != checksum(tensors):
        note(f"{path} is damaged; it is made anew")
        return None
    return tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes: safetensors itself has no checksum."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode())
        hasher.update(tensors[name].detach().cpu().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()
