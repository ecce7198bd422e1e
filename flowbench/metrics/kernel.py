"""The kernel distance (KID): an unbiased squared MMD with the cubic kernel (x y / d + 1)^3."""

import math

import numpy as np
from torch import Tensor

from flowbench.records import FlowbenchError

BLOCK = 1024  # rows of a kernel matrix that exist at once
SUBSETS, SIZE = 100, 1000  # Bińkowski et al. 2018
SEED = 2020  # of the subsets, torch-fidelity's


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """The unbiased estimate from all rows (n, d), (m, d); in float64.

    Nothing is drawn at random, so this is the value to rank by. It may be below 0, and is
    NaN for a single row. The kernel grows with the sixth power of the features: it is meant for
    Inception's.
    """
    reference = reference.to(features.device)
    n, m = len(features), len(reference)
    if min(n, m) < 2:
        return math.nan
    within = _off_diagonal(features) / (n * (n - 1))
    other = _off_diagonal(reference) / (m * (m - 1))
    return within + other - 2 * _sum(features, reference) / (n * m)


def subset_kernel_distance(
    features: Tensor, reference: Tensor, subsets: int = SUBSETS, size: int = SIZE, seed: int = SEED
) -> tuple[float, float]:
    """Mean and standard deviation over random subsets, with torch-fidelity's random numbers.

    The protocol of most papers. Raises FlowbenchError where a side has fewer rows than `size`.
    """
    fewest = min(len(features), len(reference))
    if fewest < size:
        raise FlowbenchError(f"KID of subsets of {size} rows needs as many rows, not {fewest}")
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        mine = random.choice(len(features), size, replace=False)
        theirs = random.choice(len(reference), size, replace=False)
        values.append(kernel_distance(features[mine], reference[theirs]))
    return float(np.mean(values)), float(np.std(values))


def _off_diagonal(x: Tensor) -> float:
    """Sum of k(x_i, x_j) over i != j."""
    blocks = x.split(BLOCK)
    total = 0.0
    for number, block in enumerate(blocks):
        squares = block.double().square().sum(1) / x.shape[1]
        total += _sum(block, block) - _cubes(squares)
        if number:  # k is symmetric: what lies on the other side of the diagonal is the same
            total += 2 * _sum(block, x[: number * BLOCK])
    return total


def _sum(x: Tensor, y: Tensor) -> float:
    """Sum of k(x_i, y_j) over all pairs."""
    total = 0.0
    for a in x.split(BLOCK):
        rows = a.double() / x.shape[1]
        for b in y.split(BLOCK):
            total += _cubes(rows @ b.to(rows).T)
    return total


def _cubes(products: Tensor) -> float:
    """Sum of (p + 1)^3, in the memory of p."""
    return products.add_(1).pow_(3).sum().item()
