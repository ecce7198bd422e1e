"""Whether samples are copies of training examples."""

import torch
from torch import Tensor

RATIO = 1 / 3


def memorised(samples: Tensor, training: Tensor, ratio: float = RATIO) -> float:
    """Share of samples much nearer to one training example than to any other.

    Much nearer: the distance to the nearest is below `ratio` times that to the second nearest
    (Yoon et al. 2023). In float64 and without the matrix-product trick, whose rounding would
    hide exact copies. Needs at least two training examples.
    """
    train = training.flatten(1).double()
    count = 0
    for part in samples.flatten(1).double().split(256):
        distances = torch.cdist(part, train, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(2, largest=False).values
        count += int((nearest[:, 0] < ratio * nearest[:, 1]).sum())
    return count / len(samples)
