"""Stored samples of a section, row by row and NFE by NFE, all from the same noise."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from flowbench.comparison.view import Group, Section
from flowbench.report import files

LARGEST = 2**34  # bytes of a file of samples: 50 000 images of 256 pixels a side
SIDE = 512  # pixels of an image, at most
FORM = re.compile(r"samples-nfe(\d+|auto)-n(\d+)-s(\d+)\.safetensors")

Paths = Mapping[int, Path]  # by NFE, 0 for an adaptive solver


@dataclass(frozen=True)
class Samples:
    """The first samples of each row and NFE, of one training seed and one noise stream.

    `cells` are (n, H, W, C) uint8 images or (n, 2) vectors by label and NFE, with equal shapes;
    `absent` are the labels of which nothing was found.
    """

    seed: int
    stream: int
    cells: Mapping[tuple[str, int], np.ndarray]
    absent: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (H, W, C), or (2,)."""
        return next(iter(self.cells.values())).shape[1:]

    @property
    def labels(self) -> list[str]:
        """Every row that has samples."""
        return list(dict.fromkeys(label for label, _ in self.cells))

    @property
    def nfes(self) -> list[int]:
        """Every number of evaluations, ascending, adaptive last."""
        return sorted({nfe for _, nfe in self.cells}, key=lambda nfe: nfe or float("inf"))


def read(store: Any, section: Section, folder: Path, count: int) -> Samples | None:
    """The first `count` samples of each row at each NFE; None where there are none.

    They are those of the first training seed that all rows have, or else of that which most have.
    Files that are damaged or hold something else are left out.
    """
    stream = section.streams[0]
    paths = {
        group.label: {seed: _paths(store, run, folder, section) for seed, run in group.runs.items()}
        for group in section.groups
    }
    seeds = Counter(seed for some in paths.values() for seed, found in some.items() if found)
    if not seeds:
        return None
    seed = min(seeds, key=lambda one: (-seeds[one], one))
    cells = {
        (label, nfe): values
        for label, some in paths.items()
        for nfe, path in some.get(seed, {}).items()
        if (values := load(path, count)) is not None
    }
    cells = _alike(cells)
    absent = [group.label for group in section.groups if not _has(cells, group)]
    return Samples(seed, stream, cells, tuple(absent)) if cells else None


def _has(cells: Mapping[tuple[str, int], np.ndarray], group: Group) -> bool:
    return any(label == group.label for label, _ in cells)


def _paths(store: Any, run: str, folder: Path, section: Section) -> Paths:
    """The files of samples of a run that were made as the section says."""
    place = (str(section.n), str(section.streams[0]))
    found = {}
    for role, paths in files.found(store, run, folder, LARGEST).items():
        for path in paths:
            form = FORM.fullmatch(path.name)
            if form and role == f"samples-nfe{form[1]}" and form.groups()[1:] == place:
                found[0 if form[1] == "auto" else int(form[1])] = path
    return {nfe: path for nfe, path in found.items() if nfe in section.nfes}


def load(path: Path, count: int) -> np.ndarray | None:
    """The first `count` samples of a file: images, or vectors in their first two coordinates.

    None if the file is damaged or holds neither.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            part = file.get_slice("samples")
            shape = part.get_shape()
            if not _drawable(shape):
                return None
            some = min(count, shape[0])
            return images(part[:some]) if len(shape) == 4 else part[:some, :2].astype(np.float64)
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError):
        return None


def _drawable(shape: list[int]) -> bool:
    """Whether samples are images of one or three channels, or vectors of two numbers or more."""
    if not shape or shape[0] < 1:
        return False
    if len(shape) == 4:
        return shape[1] in (1, 3) and all(0 < side <= SIDE for side in shape[2:])
    return len(shape) == 2 and shape[1] >= 2


def images(samples: np.ndarray) -> np.ndarray:
    """Images (n, C, H, W) as uint8 (n, H, W, C); floats go from -1 to 1, NaN becomes black."""
    if samples.dtype != np.uint8:
        levels = (np.nan_to_num(samples.astype(np.float64), nan=-1.0).clip(-1, 1) + 1) * 127.5
        samples = levels.round().astype(np.uint8)
    return samples.transpose(0, 2, 3, 1)


def _alike(cells: dict[tuple[str, int], np.ndarray]) -> dict[tuple[str, int], np.ndarray]:
    """Those of the shape that most have."""
    shapes = Counter(values.shape for values in cells.values())
    usual = max(shapes, key=lambda shape: shapes[shape], default=())
    return {place: values for place, values in cells.items() if values.shape == usual}
