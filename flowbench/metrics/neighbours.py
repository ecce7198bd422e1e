"""Whether samples are copies of training examples: exact distances to the nearest of them."""

from typing import NamedTuple

import torch
from torch import Tensor

RATIO = 1 / 3
BLOCK = 512  # samples, and
TRAINING_BLOCK = 4096  # training rows, whose distances exist at once
SHORTLIST = 8  # rows whose distance is computed again, without cancellation


class Neighbours(NamedTuple):
    """The two nearest training rows of each sample."""

    distances: Tensor  # (n, 2) float64, ascending
    rows: Tensor  # (n, 2) int64


def nearest(samples: Tensor, training: Tensor, block: int = BLOCK) -> Neighbours:
    """The two nearest of the rows `training` (m, ...) to each of `samples` (n, ...); m >= 2.

    Rows are images in uint8 or features, both sides in one scale; only blocks become float64, so
    `training` may be large, and stay in host memory. A matrix product proposes candidates and
    their distances are then computed from differences, because its rounding hides exact copies.
    """
    parts = [_nearest(part.flatten(1).double(), training) for part in samples.split(block)]
    return Neighbours(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _nearest(x: Tensor, training: Tensor) -> Neighbours:
    rows = _candidates(x, training)
    candidates = training[rows.to(training.device)].to(x).flatten(2)
    distances, order = (candidates - x[:, None]).norm(dim=2).sort(1)
    return Neighbours(distances[:, :2], rows.gather(1, order[:, :2]))


def _candidates(x: Tensor, training: Tensor) -> Tensor:
    """The row numbers of the nearest training rows, up to rounding and in no order."""
    count = min(SHORTLIST, len(training))
    distances, rows = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.long).to(x.device)
    for start in range(0, len(training), TRAINING_BLOCK):
        block = training[start : start + TRAINING_BLOCK].flatten(1).to(x)
        numbers = torch.arange(start, start + len(block), device=x.device).expand(len(x), -1)
        distances = torch.cat([distances, torch.cdist(x, block)], 1)
        best = distances.topk(min(count, distances.shape[1]), largest=False)
        distances, rows = best.values, torch.cat([rows, numbers], 1).gather(1, best.indices)
    return rows


def memorised(samples: Tensor, training: Tensor, ratio: float = RATIO) -> float:
    """Share of samples much nearer to one training example than to any other.

    Much nearer: the distance to the nearest is below `ratio` times that to the second nearest
    (Yoon et al. 2023). Needs at least two training examples.
    """
    distances = nearest(samples, training).distances
    return (distances[:, 0] < ratio * distances[:, 1]).double().mean().item()


def authentic(samples: Tensor, training: Tensor) -> float:
    """Share of samples farther from their nearest training row than that is from its own.

    Alaa et al. 2022. Near 1/2 for fresh draws of the training law, 0 for copies.
    """
    near = nearest(samples, training)
    closest = near.rows[:, 0].to(training.device)
    own = nearest(training[closest], training).distances[:, 1].to(near.distances)
    return (near.distances[:, 0] > own).double().mean().item()
