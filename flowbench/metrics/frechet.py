"""The Fréchet distance between two sets of features, by symmetric eigenvalues in float64."""

import torch
from torch import Tensor


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """|mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets (n, d), (m, d); n, m >= 2.

    The trace of the root is the sum of square roots of the eigenvalues of R C2 R with R the
    symmetric root of C1, found by symmetric eigendecompositions (Dowson and Landau 1982;
    covariances divide by n - 1, as in Heusel et al. 2017).
    """
    (mean1, cov1), (mean2, cov2) = moments(features), moments(reference)
    return frechet_from_moments(mean1, cov1, mean2, cov2)


def frechet_from_moments(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The same from means (d,) and covariances (d, d) in float64."""
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ cov2 @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    total = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return total.item()


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d), in float64."""
    x = features.flatten(1).double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)
