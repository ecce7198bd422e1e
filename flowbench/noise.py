"""Noise and labels by sample index: sample i is the same for every batch size and method."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

# The second word of the key: what the noise is for. Data sets are drawn with 0 and 1, so no
# noise is ever a row of data, and no method is judged on the noise that it was trained on.
SAMPLES, PAIRS = 2**32, 2**32 + 1
ENOUGH = 2**18  # numbers that are worth a thread


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
    rows = np.empty((len(indices), math.prod(shape)), np.float32)
    workers = min(torch.get_num_threads(), rows.size // ENOUGH)
    if workers < 2:
        _fill(rows, [seed, use], indices, draw)
    else:
        each = -(-len(indices) // workers)
        parts = [slice(start, start + each) for start in range(0, len(indices), each)]
        with ThreadPoolExecutor(workers, "noise") as pool:
            made = [pool.submit(_fill, rows[p], [seed, use], indices[p], draw) for p in parts]
        for part in made:
            part.result()  # raises what went wrong in a thread
    return torch.from_numpy(rows).reshape(len(indices), *shape).to(device)


def _fill(rows: np.ndarray, key: list[int], indices: Sequence[int], draw: int) -> None:
    """Write the noise of each index into its row.

    One generator that is put to each counter takes a tenth of the time of a fresh one per row.
    """
    bits = np.random.Philox(key=key, counter=[0, 0, 0, draw])
    fresh, generator = bits.state, np.random.Generator(bits)
    for row, index in zip(rows, indices, strict=True):
        fresh["state"]["counter"][2] = index
        bits.state = fresh
        generator.standard_normal(out=row, dtype=np.float32)


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
