"""The Fréchet distance between two sets of features, in float64."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowbench.metrics.statistics import Moments, Statistics

BLOCK = 4096  # rows that are held in float64 at once
LARGE = 256  # dimensions from which a symmetric eigenproblem takes the place of singular values,
ALLOWED = 1e-8  # while rounding moves the distance by less than this share of both variances


class Centred(NamedTuple):
    """Mean (d,) and centred rows (n, d) by the root of n - 1, float64: F^T F is the covariance."""

    mean: Tensor
    factor: Tensor


def frechet_distance(features: Tensor, reference: Tensor | tuple[Tensor, Tensor]) -> float:
    """|mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets (n, d), (m, d); n, m >= 2.

    The trace of the root is the nuclear norm of F1 F2^T for any F with F^T F = C (Dowson and
    Landau 1982). Where n <= d, F are the centred rows themselves, so nothing is lost to a
    covariance that has no full rank. Covariances divide by n - 1, as in Heusel et al. 2017.
    `reference` may be given by its moments. NaN where a feature is not finite.
    """
    other = _side(reference) if isinstance(reference, Tensor) else _known(*reference)
    return _distance(_side(features), other)


def frechet_from_moments(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The same from means (d,) and covariances (d, d)."""
    return _distance(_known(mean1, cov1), _known(mean2, cov2))


def moments(features: Tensor) -> Moments:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d), in float64."""
    x = features.flatten(1)
    seen = Statistics.empty(x.shape[1], x.device)
    for part in x.split(BLOCK):
        seen.add(part)
    return seen.moments


def _side(features: Tensor) -> Moments | Centred:
    """What a distance needs of a set of features."""
    x = features.flatten(1)
    if len(x) > x.shape[1]:
        return moments(x)
    x = x.double()
    mean = x.mean(0)
    return Centred(mean, (x - mean) / (len(x) - 1) ** 0.5)


def _known(mean: Tensor, covariance: Tensor) -> Moments:
    return Moments(mean.double(), covariance.double())


def _distance(one: Moments | Centred, other: Moments | Centred) -> float:
    apart = (one.mean - other.mean.to(one.mean)).square().sum()
    if isinstance(one, Moments) and isinstance(other, Moments) and len(one.mean) >= LARGE:
        left = _left(one.covariance, other.covariance)
        if left is not None:
            return apart.item() + left
    factor1, factor2 = _factor(one), _factor(other)
    product = (factor1 @ factor2.to(factor1).T).cpu()  # this size is LAPACK's, not a GPU's
    if not product.isfinite().all():
        return math.nan
    spreads = factor1.square().sum() + factor2.square().sum().to(factor1)
    return (apart + spreads).item() - 2 * torch.linalg.svdvals(product).sum().item()


def _left(covariance1: Tensor, covariance2: Tensor) -> float | None:
    """tr(C1 + C2 - 2 (C1 C2)^(1/2)) from the eigenvalues of L^T C1 L, where C2 = L L^T.

    They are the squares of the singular values, so those that are small lose digits: None where
    there may be too many of those, where C2 has no Cholesky factor L, or a value is not finite.
    """
    from scipy.linalg import LinAlgError, eigh

    c1, c2 = (c.cpu().numpy() for c in (covariance1, covariance2))
    if not (np.isfinite(c1).all() and np.isfinite(c2).all()):
        return None
    try:  # the driver gv takes half the time of the others, which are made for eigenvectors
        values = eigh(c1, c2, type=2, driver="gv", eigvals_only=True, check_finite=False)
    except LinAlgError:
        return None
    spreads = float(c1.trace() + c2.trace())
    noise = np.finfo(values.dtype).eps * values[-1]  # what rounding may add to an eigenvalue
    if not (noise / np.sqrt(values.clip(noise))).sum() < ALLOWED * spreads:  # and to its root
        return None
    return spreads - 2 * float(np.sqrt(values.clip(0)).sum())


def _factor(side: Moments | Centred) -> Tensor:
    """Any F with F^T F = C: the Cholesky factor, or the root where C has no full rank."""
    if isinstance(side, Centred):
        return side.factor
    if not side.covariance.isfinite().all():
        return side.covariance
    lower, failed = torch.linalg.cholesky_ex(side.covariance)
    return _root(side.covariance) if failed else lower.T


def _root(covariance: Tensor) -> Tensor:
    """The symmetric positive root, by a symmetric eigendecomposition.

    Eigenvalues that are rounding errors of 0 are set to 0: their roots would not be small.
    """
    values, vectors = torch.linalg.eigh(covariance)
    noise = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return (vectors * values.where(values > noise, 0).sqrt()) @ vectors.T
