"""Precision, recall, density and coverage: which rows lie in balls around the other set's rows."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowbench.records import FlowbenchError

BLOCK = 1024  # rows of a distance matrix that exist at once
NEAR = 3  # Kynkäänniemi et al. 2019
DENSE = 5  # Naeem et al. 2020


@dataclass(frozen=True)
class Manifold:
    """Shares in [0, 1]; density may be above 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(features: Tensor, reference: Tensor, near: int = NEAR, dense: int = DENSE) -> Manifold:
    """The four of features (n, d) against a reference (m, d), in float64.

    A ball reaches to the k-th neighbour within its own set: k = `near` and d <= r for precision
    and recall, k = `dense` and d < r for density and coverage, each as in its paper. All NaN
    where a feature is not finite. Raises FlowbenchError for sets of at most k rows.
    """
    fewest = min(len(features), len(reference))
    if fewest <= max(near, dense):
        raise FlowbenchError(f"precision and coverage need more than {max(near, dense)} rows")
    if not (features.isfinite().all() and reference.isfinite().all()):
        return Manifold(*[math.nan] * 4)
    reference = reference.to(features.device)
    real, fake = _radii(reference, near, dense), _radii(features, near, dense)
    inside, balls = 0, 0
    reached = real.new_zeros(len(reference), dtype=torch.bool)
    nearest = real.new_full((len(reference),), math.inf)
    for part, radii in zip(features.split(BLOCK), fake[0].split(BLOCK), strict=True):
        d = _distances(part, reference)
        inside += int((d <= real[0]).any(1).sum())
        balls += int((d < real[1]).sum())
        reached |= (d <= radii[:, None]).any(0)
        nearest = nearest.minimum(d.amin(0))
    n, m = len(features), len(reference)
    covered = int((nearest < real[1]).sum())
    return Manifold(inside / n, int(reached.sum()) / m, balls / (dense * n), covered / m)


def _radii(x: Tensor, *ks: int) -> Tensor:
    """Distance (len(ks), n) of each row to its k-th nearest other row."""
    blocks, most = x.split(BLOCK), max(ks) + 1
    nearest = [x.new_empty(len(block), 0, dtype=torch.float64) for block in blocks]
    for i, block in enumerate(blocks):
        for j in range(i + 1):  # what lies on the other side of the diagonal is the same
            d = _distances(block, blocks[j])
            nearest[i] = _least(nearest[i], d, most)
            if j < i:
                nearest[j] = _least(nearest[j], d.T, most)
    return torch.cat(nearest)[:, list(ks)].T  # the row itself is number 0


def _least(known: Tensor, more: Tensor, count: int) -> Tensor:
    """The `count` least of each row of both, ascending."""
    some = more.topk(min(count, more.shape[1]), largest=False).values
    both = torch.cat([known, some], 1)
    return both.topk(min(count, both.shape[1]), largest=False).values


def _distances(part: Tensor, x: Tensor) -> Tensor:
    """Euclidean distances (len(part), n)."""
    rows = part.double()
    return torch.cat([_block(rows, block.to(rows)) for block in x.split(BLOCK)], 1)


def _block(x: Tensor, y: Tensor) -> Tensor:
    """The same of float64 rows by one product, which takes less memory than `cdist`."""
    squares = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)
    return squares.add_(x.square().sum(1)[:, None]).clamp_(min=0).sqrt_()
