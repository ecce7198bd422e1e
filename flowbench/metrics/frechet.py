"""The Fréchet distance between two sets of features, as a nuclear norm in float64."""

import math

import torch
from torch import Tensor

from flowbench.metrics.statistics import Moments, Statistics

BLOCK = 4096  # rows that are held in float64 at once


def frechet_distance(features: Tensor, reference: Tensor | tuple[Tensor, Tensor]) -> float:
    """|mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets (n, d), (m, d); n, m >= 2.

    The trace of the root is the nuclear norm of F1 F2^T for any F with F^T F = C (Dowson and
    Landau 1982). Where n <= d, F are the centred rows themselves, so nothing is lost to a
    covariance that has no full rank. Covariances divide by n - 1, as in Heusel et al. 2017.
    `reference` may be given by its moments. NaN where a feature is not finite.
    """
    other = _side(reference) if isinstance(reference, Tensor) else _known(*reference)
    return _distance(*_side(features), *other)


def frechet_from_moments(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The same from means (d,) and covariances (d, d)."""
    return _distance(*_known(mean1, cov1), *_known(mean2, cov2))


def moments(features: Tensor) -> Moments:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d), in float64."""
    x = features.flatten(1)
    seen = Statistics.empty(x.shape[1], x.device)
    for part in x.split(BLOCK):
        seen.add(part)
    return seen.moments


def _distance(mean1: Tensor, factor1: Tensor, mean2: Tensor, factor2: Tensor) -> float:
    product = (factor1 @ factor2.to(factor1).T).cpu()  # this size is LAPACK's, not a GPU's
    if not product.isfinite().all():
        return math.nan
    apart = (mean1 - mean2.to(mean1)).square().sum()
    spreads = factor1.square().sum() + factor2.square().sum().to(factor1)
    return (apart + spreads).item() - 2 * torch.linalg.svdvals(product).sum().item()


def _side(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and F of a set of features."""
    x = features.flatten(1)
    if len(x) > x.shape[1]:
        return _known(*moments(x))
    x = x.double()
    mean = x.mean(0)
    return mean, (x - mean) / (len(x) - 1) ** 0.5


def _known(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and F of a covariance: its Cholesky factor, or its root where it has no full rank."""
    mean, covariance = mean.double(), covariance.double()
    if not covariance.isfinite().all():
        return mean, covariance
    lower, failed = torch.linalg.cholesky_ex(covariance)
    return mean, _root(covariance) if failed else lower.T


def _root(covariance: Tensor) -> Tensor:
    """The symmetric positive root, by a symmetric eigendecomposition.

    Eigenvalues that are rounding errors of 0 are set to 0: their roots would not be small.
    """
    values, vectors = torch.linalg.eigh(covariance)
    noise = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return (vectors * values.where(values > noise, 0).sqrt()) @ vectors.T
