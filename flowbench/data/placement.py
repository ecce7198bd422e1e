"""Rows of data on their way to where they are used: read in chunks, measured once, placed once."""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowbench.records import FlowbenchError

CHUNK_BYTES = 4 << 20  # what a copy may hold beside the data themselves


@dataclass(frozen=True)
class Facts:
    """What only a look at every row can tell: the hash of data and labels, and sigma_data."""

    sha256: str
    std: float


def scale(values: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]; floats as they are."""
    return values.float() / 127.5 - 1 if values.dtype == torch.uint8 else values


class Moments:
    """Running mean and variance over all entries, so that no second pass is needed."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        x = scale(values).double()
        self.count += x.numel()
        self.total += x.sum().item()
        self.squares += x.square().sum().item()

    @property
    def std(self) -> float:
        mean = self.total / self.count
        return max(self.squares / self.count - mean * mean, 0.0) ** 0.5


class Reading:
    """One pass over the splits of a data set, training first, that measures what it reads."""

    def __init__(self, name: str = "the data") -> None:
        self.name, self.hasher, self.moments = name, hashlib.sha256(), Moments()

    def rows(self, values, counted: bool) -> Iterator[tuple[int, Tensor]]:
        """(start, some rows) of a split, in order; `counted` ones make up the mean and std.

        Raises FlowbenchError that names the first row with an entry that is not finite.
        """
        self.hasher.update(repr((tuple(values.shape), str(dtype_of(values)))).encode())
        for start, part in chunks(values):
            self.hasher.update(part.tobytes())
            rows = torch.from_numpy(part)
            self._require_finite(start, rows)
            if counted:
                self.moments.add(rows)
            yield start, rows

    def labels(self, labels) -> None:
        """Let the hash see the labels of the split whose rows were read last.

        Raises FlowbenchError that names the first label that is no whole number.
        """
        if labels is None:
            return
        with np.errstate(invalid="ignore"):
            whole = integers(labels)
        broken = np.flatnonzero(whole != np.asarray(labels))
        if len(broken):
            raise FlowbenchError(
                f"{self.name}: label {labels[broken[0]]} of row {broken[0]} is no whole number"
            )
        self.hasher.update(whole.tobytes())

    def _require_finite(self, start: int, rows: Tensor) -> None:
        if not rows.is_floating_point() or rows.isfinite().all():
            return
        row = int((~rows.flatten(1).isfinite().all(1)).nonzero()[0])
        value = rows[row][~rows[row].isfinite()][0].item()
        raise FlowbenchError(
            f"{self.name}: row {start + row} holds {value}: mend such rows or leave them out"
        )

    @property
    def facts(self) -> Facts:
        """What was found, when all splits are read."""
        return Facts(self.hasher.hexdigest(), self.moments.std)


def place(
    values, labels, device: str, room: int | None, reading: Reading | None, counted: bool
) -> tuple[Tensor, Tensor | None]:
    """(values, labels) of a split as tensors where they stay; `reading` None measures nothing."""
    # What does not fit on a GPU is copied ahead from pinned buffers, so a map stays a map.
    where = home(values.nbytes, device, room)
    placed = mapped(values) if where["device"] == "cpu" else None
    if placed is not None:
        for _ in reading.rows(values, counted) if reading else ():
            pass
    else:
        placed = torch.empty(values.shape, dtype=dtype_of(values), **where)
        for start, rows in reading.rows(values, counted) if reading else tensors(values):
            placed[start : start + len(rows)].copy_(rows)
    if reading:
        reading.labels(labels)
    if labels is None:
        return placed, None
    return placed, torch.from_numpy(integers(labels)).to(placed.device)


def mapped(values) -> Tensor | None:
    """A memory-mapped file of images as a tensor that shares its pages; None for other arrays.

    Pages are read when they are needed and can be dropped again: the data take no memory of
    their own. The map is copy-on-write, because torch knows no read-only tensors; what would
    write into it could not change the file.
    """
    if not isinstance(values, np.memmap) or values.dtype != np.uint8 or not values.size:
        return None
    if not values.flags.c_contiguous:
        return None
    if not values.flags.writeable or values.mode != "c":
        root = values
        while isinstance(root.base, np.memmap):
            root = root.base
        if root.filename is None or not isinstance(root.base, mmap.mmap):
            return None
        offset = root.offset + values.ctypes.data - root.ctypes.data
        values = np.memmap(root.filename, np.uint8, "c", offset, values.shape)
    return torch.from_numpy(values)


def home(size: int, device: str, room: int | None) -> dict[str, Any]:
    """Where `size` bytes go: arguments for `torch.empty`."""
    if not device.startswith("cuda"):
        return {"device": device}
    free = int(0.8 * torch.cuda.mem_get_info(device)[0]) if room is None else room
    return {"device": device} if size <= free else {"device": "cpu", "pin_memory": True}


def dtype_of(values) -> torch.dtype:
    """How rows are held: images as uint8, all else as float32."""
    return torch.uint8 if values.dtype == np.uint8 else torch.float32


def integers(labels) -> np.ndarray:
    """Labels as int64, a copy: torch refuses read-only arrays."""
    return np.array(labels, dtype=np.int64)


def chunks(values) -> Iterator[tuple[int, np.ndarray]]:
    """(start, copy of some rows), so that a memory-mapped array is never read whole."""
    rows = max(1, CHUNK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(values), rows):
        part = np.array(values[start : start + rows])
        yield start, part if part.dtype == np.uint8 else part.astype(np.float32)


def tensors(values) -> Iterator[tuple[int, Tensor]]:
    """(start, copy of some rows) as tensors."""
    for start, part in chunks(values):
        yield start, torch.from_numpy(part)
