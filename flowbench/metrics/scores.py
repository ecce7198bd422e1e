"""Scores of a classifier's logits alone, which need no reference: the inception score."""

import math
from itertools import pairwise

import numpy as np
from torch import Tensor

SPLITS = 10  # Salimans et al. 2016
SEED = 2020  # of the shuffle, torch-fidelity's


def inception_score(logits: Tensor) -> float:
    """exp of the mean KL divergence of p(y|x) from p(y), over all rows at once, in float64."""
    log_p = logits.double().log_softmax(1)
    marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - marginal)).sum(1).mean().exp().item()


def split_inception_score(
    logits: Tensor, splits: int = SPLITS, seed: int | None = SEED
) -> tuple[float, float]:
    """Mean and standard deviation of the score over `splits` parts of the shuffled rows.

    The protocol of most papers, with torch-fidelity's shuffle; `seed` None keeps the order of the
    rows. The deviation is that between parts, not a standard error. NaN for fewer rows than parts.
    """
    count = len(logits)
    if count < splits:
        return math.nan, math.nan
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(count)]
    ends = [i * count // splits for i in range(splits + 1)]
    parts = [inception_score(logits[a:b]) for a, b in pairwise(ends)]
    return float(np.mean(parts)), float(np.std(parts))
