"""Files of pairs, made by any number of processes together, and how batches are drawn from them."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from flowbench.checkpoints import read_facts, save_tensors, verify
from flowbench.disk import writing
from flowbench.meters import gib
from flowbench.records import FlowbenchError

POLL = 0.2  # seconds between looks at the shards that other processes make
Tensors = dict[str, Tensor]
Drawn = tuple[Tensor, Tensor, Tensor | None]
Made = tuple[Tensors, Mapping[str, Any]]  # rows of a shard, and what it has cost


def parts(total: int, size: int) -> list[range]:
    """The row numbers of each shard of `size` rows; the last one may be shorter."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def map_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """What `checkpoints.save_tensors` stored, its tensors as maps of the file.

    Pages are read when they are needed and take no memory of their own. Raises FlowbenchError
    for another file.
    """
    from safetensors import safe_open

    facts = read_facts(path)
    with safe_open(path, "pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, facts


@dataclass(frozen=True)
class Shards:
    """The files of `total` pairs in `folder`, `size` to a file.

    A file belongs to the set where its header holds `facts`. `note` hears of damage.
    """

    folder: Path
    facts: Mapping[str, Any]
    total: int
    size: int
    note: Callable[[str], None]

    def path(self, part: range) -> Path:
        """The file of the shard with these rows."""
        return self.folder / f"{part.start:09d}.safetensors"

    @property
    def parts(self) -> list[range]:
        """The rows of each file."""
        return parts(self.total, self.size)

    @property
    def done(self) -> int:
        """How many rows lie in files, whoever made them."""
        there = set(self.folder.glob("*.safetensors"))
        return sum(len(part) for part in self.parts if self.path(part) in there)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def require_room(self, each: int) -> None:
        """Raise FlowbenchError where the missing rows, of `each` bytes, do not fit on the disk."""
        missing = self.total - self.done
        free = shutil.disk_usage(self.folder).free
        if missing * each > free:
            raise FlowbenchError(
                f"{missing} pairs need {gib(missing * each)}, {gib(free)} are free in"
                f" {self.folder}: give --runs FOLDER on a larger disk, or fewer -o pairs=N"
            )

    def fill(self, make: Callable[[range], Made], wait: Callable[[], None]) -> int:
        """Make the shards that are missing, or wait for who makes them; returns how many were made.

        Each is made under a lock of its own, so processes that do this at the same time share the
        work; what one of them leaves behind when it is killed is made by the others. `wait` is
        called now and then while others are at work.
        """
        waiting, made, told = self.parts, 0, False
        while waiting:
            outcomes = {part: self._settle(part, make) for part in waiting}
            made += sum(outcome == "made" for outcome in outcomes.values())
            waiting = [part for part, outcome in outcomes.items() if outcome == "busy"]
            if waiting:
                if not told:
                    self.note(f"waiting for {len(waiting)} files of pairs that others make")
                told = True
                wait()
                time.sleep(POLL)
        return made

    def load(self, read: Callable[[Path], Made]) -> list[Made]:
        """Every shard as `read` gives it, in order."""
        return [read(self.path(part)) for part in self.parts]

    def _settle(self, part: range, make: Callable[[range], Made]) -> str:
        """See to it that a shard is there: "found" or "made", "busy" where another has its lock."""
        path = self.path(part)
        try:
            with writing(path):
                held = FileLock(path.with_suffix(".lock")).acquire(timeout=0)
        except Timeout:
            return "busy"
        with held:
            if self._found(path):
                return "found"
            for left in self.folder.glob(f"{path.name}.*.part"):  # of a process that was killed
                left.unlink(missing_ok=True)
            tensors, facts = make(part)
            save_tensors(path, tensors, {"facts": self.facts, **facts})
            return "made"

    def _found(self, path: Path) -> bool:
        if not path.exists():
            return False
        try:
            verify(path)
            return read_facts(path).get("facts") == self.facts
        except FlowbenchError as error:
            self.note(f"{error}; it is made anew")
            return False


class Held:
    """Pairs in the memory of a device; `names`: noise, sample and, with classes, label."""

    def __init__(self, shards: Sequence[Tensors], names: Sequence[str], device: str):
        self.device = device
        self.tensors = [torch.cat([shard[name] for shard in shards]).to(device) for name in names]

    def draw(self, rows: Tensor) -> Drawn:
        """(noise, sample, label) of the given pairs, on the device."""
        rows = rows.to(self.device)
        noise, sample, *label = (tensor[rows] for tensor in self.tensors)
        return noise, sample, label[0] if label else None

    def expect(self, rows: Tensor) -> None:
        """Nothing to do: the rows are there."""


class Mapped:
    """Pairs that stay on the disk, `size` to a shard; `names` as of `Held`.

    `noise(rows)` draws noise (len(rows), *shape) where it is not stored.
    """

    def __init__(
        self,
        shards: Sequence[Tensors],
        names: Sequence[str],
        device: str,
        size: int,
        noise: Callable[[list[int]], Tensor] | None,
    ):
        self.names, self.device, self.size, self.noise = names, device, size, noise
        self.shards = [{name: t.numpy() for name, t in shard.items()} for shard in shards]
        self.pool = ThreadPoolExecutor(1, "pairs")
        self.coming: tuple[Tensor, Future[list[Tensor]]] | None = None

    def draw(self, rows: Tensor) -> Drawn:
        """(noise, sample, label) of the given pairs, on the device, noise and sample float32."""
        coming, self.coming = self.coming, None
        ahead = coming is not None and torch.equal(coming[0], rows)
        read = coming[1].result() if coming and ahead else self._read(rows)
        noise, sample, *label = (t.to(self.device, non_blocking=True) for t in read)
        return noise.float(), sample.float(), label[0] if label else None

    def expect(self, rows: Tensor) -> None:
        """Read these rows in a thread while the caller computes: they are drawn next."""
        self.coming = rows, self.pool.submit(self._read, rows)

    def _read(self, rows: Tensor) -> list[Tensor]:
        """Copies of these rows as they are stored, where a GPU can copy them from by itself."""
        numbers = rows.tolist()
        read = [self._rows(name, numbers) for name in self.names]
        return [t.pin_memory() for t in read] if self.device.startswith("cuda") else read

    def _rows(self, name: str, rows: list[int]) -> Tensor:
        if name == "noise" and self.noise is not None:
            return self.noise(rows)
        places = [divmod(row, self.size) for row in rows]
        return torch.from_numpy(np.stack([self.shards[n][name][row] for n, row in places]))
