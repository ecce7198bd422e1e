"""Noise and labels by sample index: sample i is the same for every batch size and method."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# The second word of the key: what the noise is for. Data sets are drawn with 0 and 1, so no
# noise is ever a row of data, and no method is judged on the noise that it was trained on.
SAMPLES, PAIRS = 2**32, 2**32 + 1


def unit_noise(
    seed: int,
    indices: Sequence[int],
    shape: Sequence[int],
    draw: int = 0,
    device: str = "cpu",
    use: int = SAMPLES,
) -> Tensor:
    """Unit Gaussian noise (len(indices), *shape), float32, fixed by seed, index, draw and use.

    Philox is counter-based: the key is seed and use and the counter holds index and draw, so
    streams never overlap and are equal on every platform, which torch does not promise.
    """
    rows = [_row([seed, use], index, draw, tuple(shape)) for index in indices]
    return torch.from_numpy(np.stack(rows)).to(device)


def _row(key: list[int], index: int, draw: int, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.random.Philox(key=key, counter=[0, 0, index, draw])
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


class Stream:
    """Fresh noise for a batch of sample indices: the k-th call gives draw k of each sample."""

    def __init__(self, seed: int, indices: Sequence[int], shape: Sequence[int], device: str):
        self.seed, self.indices, self.shape, self.device = seed, indices, shape, device
        self.draws = 1  # draw 0 is the noise that sampling starts from

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
