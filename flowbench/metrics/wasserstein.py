"""Wasserstein-2 distances: exact by POT, and sliced."""

import warnings

import torch
from torch import Tensor

from flowbench.records import RunFailed

EXACT_ROWS = 2000  # cost grows like n^2.2; every exact W2 of flowbench states this n or less
DIRECTIONS = 500


def exact(samples: Tensor, reference: Tensor) -> float:
    """Exact W2 between two point sets (n, d), (m, d) of equal weights each, in float64.

    Raises RunFailed if the solver stops before the optimum: POT itself only warns.
    """
    import ot

    a, b = samples.flatten(1).double().cpu(), reference.flatten(1).double().cpu()
    cost = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            squared = float(ot.emd2([], [], cost, numItermax=10**7))
        except UserWarning as error:
            raise RunFailed(f"exact W2 was not solved: {error}") from error
    return max(squared, 0.0) ** 0.5


def sliced(samples: Tensor, reference: Tensor, directions: int = DIRECTIONS) -> float:
    """Sliced W2 over fixed seeded directions, of as many rows as both sets have, in float64."""
    n = min(len(samples), len(reference))
    a, b = samples[:n].flatten(1).double(), reference[:n].flatten(1).double()
    generator = torch.Generator().manual_seed(0)
    lines = torch.randn(a.shape[1], directions, generator=generator, dtype=torch.float64)
    lines = (lines / lines.norm(dim=0)).to(a.device)
    gaps = (a @ lines).sort(dim=0).values - (b @ lines).sort(dim=0).values
    return gaps.square().mean().sqrt().item()
