"""What only known modes can tell: the share of samples inside them, and how good each one is.

Moments cannot: a single Gaussian with a mixture's mean and covariance has Fréchet distance 0.
"""

import math

from torch import Tensor

from flowbench.data.base import Modes
from flowbench.metrics import wasserstein

ROWS = 500  # per mode


def _nearest(samples: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """Distance to the nearest mode in its standard deviations, and that mode, each (n,)."""
    means, std = modes.means.to(samples.device), modes.std.to(samples.device)
    x = samples.flatten(1)[:, list(modes.dims)]
    distances = ((x[:, None] - means) / std).norm(dim=2)
    return distances.min(dim=1)


def share_within(samples: Tensor, modes: Modes, radius: float = 3.0) -> float:
    """Share of samples within `radius` standard deviations of a mode, in the modes' coordinates."""
    return (_nearest(samples, modes)[0] <= radius).double().mean().item()


def per_mode_w2(samples: Tensor, reference: Tensor, modes: Modes) -> float:
    """Mean over modes of the exact W2 between samples and reference of that mode.

    In the modes' coordinates, at most 500 rows of each; infinite if a mode has no samples.
    Unlike a plain W2 it does not see how many samples fell to each mode by chance.
    """
    dims = list(modes.dims)
    mine, theirs = _nearest(samples, modes)[1], _nearest(reference, modes)[1]
    distances = []
    for mode in range(len(modes.means)):
        a = samples.flatten(1)[mine == mode][:ROWS, dims]
        b = reference.flatten(1)[theirs == mode][:ROWS, dims]
        distances.append(wasserstein.exact(a, b) if len(a) and len(b) else math.inf)
    return sum(distances) / len(distances)
