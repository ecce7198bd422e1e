"""Data as every method sees it: held once on the device, drawn and scaled there."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowbench.mixtures import Mixture

CHUNK_BYTES = 4 << 20  # what a copy may hold beside the data themselves


@dataclass(frozen=True)
class Modes:
    """The known modes of a mixture: means (K, m) and std (m,) in the coordinates `dims`."""

    means: Tensor
    std: Tensor
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Arrays:
    """Decoded data on the host, perhaps memory-mapped: uint8 (N, C, H, W) images or float32 (N, D).

    `labels` and `test_labels` are integer arrays, or None where `classes` is 0; `test` is None
    where nothing is held out. `classifier` names shipped weights for `fd-clf` and `is-clf`.
    `law` is the law that vectors were drawn from, where it has a closed form.
    """

    train: Any
    test: Any = None
    labels: Any = None
    test_labels: Any = None
    classes: int = 0
    modes: Modes | None = None
    classifier: str | None = None
    law: Mixture | None = None


@dataclass(frozen=True)
class Split:
    """Rows of data where they were placed: on the device, or in (pinned) host memory."""

    values: Tensor  # (N, *shape), uint8 or float32
    labels: Tensor | None  # (N,) int64, beside the values
    device: str

    def __len__(self) -> int:
        return len(self.values)

    def prepare(self) -> None:
        """Nothing to do: the rows are here. Sources that are made on demand differ."""

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows as (x, y) on the device: x float32, images scaled from uint8 to [-1, 1]."""
        rows = rows.to(self.values.device)
        x = self.values[rows].to(self.device, non_blocking=True)
        y = None if self.labels is None else self.labels[rows].to(self.device, non_blocking=True)
        return scale(x), y

    def spread(self, n: int) -> tuple[Tensor, Tensor | None]:
        """`n` rows at equal distances, or all where there are fewer, as `draw` gives them."""
        return self.draw(spread(len(self), n))


@dataclass(frozen=True)
class Data:
    """A data set in the place where methods use it.

    `kind` is "image" or "vector"; `std` the standard deviation over all entries of the scaled
    training split (EDM's sigma_data); `sha256` the hash over all decoded rows and labels; `law`
    what the rows were drawn from, where that has a closed form.
    """

    name: str
    train: Split
    test: Split | None
    classes: int
    std: float
    sha256: str
    modes: Modes | None = None
    classifier: str | None = None
    law: Mixture | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train.values.shape[1:])

    @property
    def kind(self) -> str:
        """ "image" for uint8 data (C, H, W), else "vector"."""
        return "image" if self.train.values.dtype == torch.uint8 else "vector"

    @property
    def device(self) -> str:
        """Where batches are drawn to."""
        return self.train.device


def spread(total: int, n: int) -> Tensor:
    """`n` of `total` row numbers at equal distances: archives may be sorted by class."""
    n = min(n, total)
    return torch.arange(n) * total // n


def scale(values: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]; floats as they are."""
    return values.float() / 127.5 - 1 if values.dtype == torch.uint8 else values


def quantise(x: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8 by clamping and rounding to the nearest level."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def load(name: str, arrays: Arrays, device: str, room: int | None = None) -> Data:
    """Place `arrays` for use on `device`, reading each row once.

    `room` bounds the bytes that may lie on the device (default: 80 % of what is free there);
    a split that does not fit stays in pinned host memory and is copied batch by batch.
    """
    hasher, moments = hashlib.sha256(), Moments()
    train = _split(arrays.train, arrays.labels, device, room, hasher, moments)
    test = None
    if arrays.test is not None:
        test = _split(arrays.test, arrays.test_labels, device, room, hasher, None)
    return Data(
        name=name,
        train=train,
        test=test,
        classes=arrays.classes,
        std=moments.std,
        sha256=hasher.hexdigest(),
        modes=arrays.modes,
        classifier=arrays.classifier,
        law=arrays.law,
    )


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


def _split(values, labels, device: str, room: int | None, hasher, moments) -> Split:
    kept = _home(values.nbytes, device, room)
    placed = torch.empty(values.shape, dtype=_dtype(values), **kept)
    hasher.update(repr((tuple(values.shape), str(placed.dtype))).encode())
    for start, part in _chunks(values):
        hasher.update(part.tobytes())
        rows = torch.from_numpy(part)
        placed[start : start + len(part)].copy_(rows)
        if moments is not None:
            moments.add(rows)
    if labels is None:
        return Split(placed, None, device)
    integers = np.array(labels, dtype=np.int64)  # a copy: torch refuses read-only arrays
    hasher.update(integers.tobytes())
    return Split(placed, torch.from_numpy(integers).to(placed.device), device)


def _home(size: int, device: str, room: int | None) -> dict[str, Any]:
    """Where `size` bytes go: arguments for `torch.empty`."""
    if not device.startswith("cuda"):
        return {"device": device}
    free = int(0.8 * torch.cuda.mem_get_info(device)[0]) if room is None else room
    return {"device": device} if size <= free else {"device": "cpu", "pin_memory": True}


def _dtype(values) -> torch.dtype:
    return torch.uint8 if values.dtype == np.uint8 else torch.float32


def _chunks(values) -> Iterator[tuple[int, np.ndarray]]:
    """(start, copy of some rows), so that a memory-mapped array is never read whole."""
    rows = max(1, CHUNK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(values), rows):
        part = np.array(values[start : start + rows])
        yield start, part if part.dtype == np.uint8 else part.astype(np.float32)
