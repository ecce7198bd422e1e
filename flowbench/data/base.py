"""Data as every method sees it: held once on the device, drawn and scaled there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowbench.augment import Augment
from flowbench.data.placement import Facts, Moments, Reading, place, scale
from flowbench.mixtures import Mixture

__all__ = ["Arrays", "Data", "Facts", "Modes", "Moments", "Split", "content", "load"]
__all__ += ["measure", "quantise", "scale", "scattered", "spread"]


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
    `law` is the law that vectors were drawn from, where it has a closed form. `facts` are known
    already where an earlier look at these very rows was kept (`measure`).
    """

    train: Any
    test: Any = None
    labels: Any = None
    test_labels: Any = None
    classes: int = 0
    modes: Modes | None = None
    classifier: str | None = None
    law: Mixture | None = None
    facts: Facts | None = None


@dataclass(frozen=True)
class Split:
    """Rows of data where they were placed: on the device, or in (pinned) host memory.

    `augment` changes what training draws, and nothing else.
    """

    values: Tensor  # (N, *shape), uint8 or float32
    labels: Tensor | None  # (N,) int64, beside the values
    device: str
    augment: Augment | None = field(default=None, kw_only=True)  # so subclasses may add fields
    by_row: ClassVar[bool] = True  # what is drawn hangs on the row alone, so ranks may share it

    def __len__(self) -> int:
        return len(self.values)

    @property
    def here(self) -> bool:
        """Whether the rows lie where batches are wanted, and not on the host of a GPU."""
        return self.values.device.type == torch.device(self.device).type

    def prepare(self) -> None:
        """Nothing to do: the rows are here. Sources that are made on demand differ."""

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows and their labels as they are held, where they are held."""
        rows = rows.to(self.values.device, non_blocking=True)
        return self.values[rows], None if self.labels is None else self.labels[rows]

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows as (x, y) on the device: x float32, images scaled from uint8 to [-1, 1]."""
        x, y = self.gather(rows)
        x = x.to(self.device, non_blocking=True)
        return scale(x), None if y is None else y.to(self.device, non_blocking=True)

    def draw_for_training(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows as `draw` gives them, augmented where `augment` is set (see `vary`)."""
        return self.vary(*self.draw(rows))

    def vary(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rows (x, y) on the device, augmented where `augment` is set.

        An augmentation that the network is told of makes y (B, 1 + 9) float32: the class (-1
        where there is none) and the parameters.
        """
        if self.augment is None:
            return x, y
        x, parameters = self.augment(x)
        if parameters is None:
            return x, y
        label = x.new_full((len(x),), -1.0) if y is None else y.to(x.dtype)
        return x, torch.cat([label[:, None], parameters], 1)

    def spread(self, n: int) -> tuple[Tensor, Tensor | None]:
        """`n` rows at equal distances, or all where there are fewer, as `draw` gives them."""
        return self.draw(spread(len(self), n))


@dataclass(frozen=True)
class Data:
    """A data set in the place where methods use it.

    `kind` is "image" or "vector"; `std` the standard deviation over all entries of the scaled
    training split (EDM's sigma_data); `sha256` the hash over all decoded rows and labels; `law`
    what the rows were drawn from, where that has a closed form; `network` the settings of the
    large backbone that all methods get, None for the small networks (`nets.settings`).
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
    network: Any = None

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


def scattered(total: int, n: int) -> Tensor:
    """`n` of `total` row numbers, ascending, at random with a fixed seed.

    Labels may repeat with a period, with which rows at equal distances would all be of one class.
    """
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    return order[: min(n, total)].sort().values


def quantise(x: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8 by clamping and rounding to the nearest level."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def load(name: str, arrays: Arrays, device: str, room: int | None = None) -> Data:
    """Place `arrays` for use on `device`, reading each row once.

    `room` bounds the bytes that may lie on the device (default: 80 % of what is free there);
    a split that does not fit stays in pinned host memory and is copied batch by batch. Images in
    a memory-mapped file are used in place on the CPU; where their facts are known, nothing is
    read before it is drawn.
    """
    reading = Reading(f"data set {name}")
    used = reading if arrays.facts is None else None
    train = Split(*place(arrays.train, arrays.labels, device, room, used, True), device)
    test = None
    if arrays.test is not None:
        test = Split(*place(arrays.test, arrays.test_labels, device, room, used, False), device)
    facts = arrays.facts or reading.facts
    return Data(
        name=name,
        train=train,
        test=test,
        classes=arrays.classes,
        std=facts.std,
        sha256=facts.sha256,
        modes=arrays.modes,
        classifier=arrays.classifier,
        law=arrays.law,
    )


def content(arrays: Arrays) -> str:
    """The hash that `measure` would find, in one quick pass over all rows."""
    reading = Reading()
    for values, labels in ((arrays.train, arrays.labels), (arrays.test, arrays.test_labels)):
        if values is not None:
            for _ in reading.rows(values, counted=False):
                pass
            reading.labels(labels)
    return reading.hasher.hexdigest()


def measure(arrays: Arrays, watch: Callable[[int, int], None] | None = None) -> Facts:
    """The facts that `load` would find, in one pass that keeps nothing.

    `watch` hears (rows read, rows in all) now and then.
    """
    reading, done = Reading(), 0
    splits = [(arrays.train, arrays.labels), (arrays.test, arrays.test_labels)]
    splits = splits[: 1 if arrays.test is None else 2]
    rows = sum(len(values) for values, _ in splits)
    for number, (values, labels) in enumerate(splits):
        for _, part in reading.rows(values, counted=number == 0):
            done += len(part)
            if watch is not None:
                watch(done, rows)
        reading.labels(labels)
    return reading.facts
