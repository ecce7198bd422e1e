"""Noise and labels by sample index: sample i is the same for every batch size and method."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def unit_noise(
    seed: int, indices: Sequence[int], shape: Sequence[int], draw: int = 0, device: str = "cpu"
) -> Tensor:
    """Unit Gaussian noise (len(indices), *shape), float32; a row depends on seed, index and draw.

    Philox is counter-based: the 64-bit key is the seed and the counter holds index and draw, so
    streams never overlap and are equal on every platform, which torch does not promise.
    """
    rows = [_row(seed, index, draw, tuple(shape)) for index in indices]
    return torch.from_numpy(np.stack(rows)).to(device)


def _row(seed: int, index: int, draw: int, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.random.Philox(key=[seed, 0], counter=[0, 0, index, draw])
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


class Stream:
    """Fresh noise for a batch of sample indices: the k-th call gives draw k of each sample."""

    def __init__(self, seed: int, indices: Sequence[int], shape: Sequence[int], device: str):
        self.seed, self.indices, self.shape, self.device = seed, indices, shape, device
        self.draws = 0

    def __call__(self) -> Tensor:
        """Unit noise (B, *shape)."""
        noise = unit_noise(self.seed, self.indices, self.shape, self.draws, self.device)
        self.draws += 1
        return noise


def balanced_labels(indices: Sequence[int], classes: int, device: str = "cpu") -> Tensor | None:
    """Class `index mod classes` for each sample, (B,) int64; None where data have no classes."""
    if not classes:
        return None
    return torch.tensor(indices, dtype=torch.int64).remainder(classes).to(device)
