"""The Fréchet distance of two means and covariances, against the matrix root that others take."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from benchmarks.speed.harness import Result, alternate, repeat
from flowbench.metrics.frechet import frechet_distance, frechet_from_moments, moments

AGAINST = f"scipy {scipy.__version__} sqrtm"
ROWS = 5000
SIZES = {64: "", 256: "", 2048: "at least 10 times as fast"}


def measure(quick: bool) -> Iterator[Result]:
    """From moments at three numbers of dimensions; then from features, as their number grows."""
    sizes = {16: "", 64: ""} if quick else SIZES
    for dims, goal in sizes.items():
        yield moments_alone(dims, 400 if quick else ROWS, goal, 3 if quick else 7)
    dims = 64 if quick else 2048
    for n in (32, 128) if quick else (500, 2000, 4000, 8000):
        sets = [features(n, dims, seed) for seed in (1, 2)]
        times = repeat(partial(frechet_distance, *sets), 3, warmup=0)
        case = f"Fréchet distance, {n} and {n} rows of {dims}"
        yield Result(case, "", times, facts={"rows": n, "dims": dims})


def moments_alone(dims: int, rows: int, goal: str, repeats: int) -> Result:
    """Both routes from the same means and covariances, of more rows than dimensions."""
    sets = [moments(features(rows, dims, seed)) for seed in (1, 2)]
    arrays = [(mean.numpy(), covariance.numpy()) for mean, covariance in sets]
    found = frechet_from_moments(*sets[0], *sets[1])
    expected = by_root(*arrays[0], *arrays[1])
    times = alternate(
        lambda: frechet_from_moments(*sets[0], *sets[1]),
        lambda: by_root(*arrays[0], *arrays[1]),
        repeats,
        seconds=40,
    )
    facts = {"dims": dims, "rows": rows, "relative difference": abs(found / expected - 1)}
    return Result(f"Fréchet distance, d = {dims}", AGAINST, *times, "ms", goal, facts=facts)


def features(n: int, dims: int, seed: int) -> Tensor:
    """Rows (n, dims) as a pool gives them: positive, correlated, of decaying variances."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=torch.Generator().manual_seed(9)) / dims**0.5
    rows = torch.randn(n, dims, generator=generator) * torch.linspace(2, 0.1, dims) @ mixing
    return (rows + 0.1 * seed).relu() + 0.1 * torch.rand(n, dims, generator=generator)


def by_root(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """The formula as clean-fid, EDM and pytorch-fid compute it."""
    root = scipy.linalg.sqrtm(cov1 @ cov2)
    apart = np.square(mean1 - mean2).sum()
    return float(apart + np.trace(cov1) + np.trace(cov2) - 2 * np.trace(root).real)
