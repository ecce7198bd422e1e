"""The Fréchet distance between two sets of features, by symmetric eigenvalues in float64."""

import torch
from torch import Tensor


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """|mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets (n, d), (m, d); n, m >= 2.

    The trace of the root is the nuclear norm of R1 R2 with R1, R2 the symmetric roots of the
    covariances (Dowson and Landau 1982), which stays exact where n < d. Covariances divide by
    n - 1, as in Heusel et al. 2017.
    """
    (mean1, cov1), (mean2, cov2) = moments(features), moments(reference)
    return frechet_from_moments(mean1, cov1, mean2, cov2)


def frechet_from_moments(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The same from means (d,) and covariances (d, d) in float64."""
    cross = torch.linalg.svdvals(_root(cov1) @ _root(cov2)).sum()
    total = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return total.item()


def _root(covariance: Tensor) -> Tensor:
    """The symmetric positive root, by a symmetric eigendecomposition.

    Eigenvalues that are rounding errors of 0 are set to 0: their roots would not be small.
    """
    values, vectors = torch.linalg.eigh(covariance)
    noise = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return (vectors * values.where(values > noise, 0).sqrt()) @ vectors.T


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d), in float64."""
    x = features.flatten(1).double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)
