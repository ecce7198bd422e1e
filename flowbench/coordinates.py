"""Canonical time (t = 0 noise, 1 data; z = (1-t) noise + t data) and its link to noise levels.

A variance-exploding state x = data + sigma noise is z = x / (1 + sigma) at t = 1 / (1 + sigma).
"""

from collections.abc import Callable

from torch import Tensor

Field = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def like(t: Tensor, x: Tensor) -> Tensor:
    """`t` (B,) reshaped to (B, 1, ..., 1), so that it broadcasts over `x`."""
    return t.reshape(-1, *[1] * (x.ndim - 1))


def time(sigma: Tensor) -> Tensor:
    """Canonical time of a noise level."""
    return 1 / (1 + sigma)


def sigma(t: Tensor) -> Tensor:
    """Noise level of a canonical time; infinite at t = 0."""
    return (1 - t) / t


def velocity_of(denoiser: Field) -> Field:
    """The canonical field (D - z) / (1 - t) of a denoiser D(x, sigma, labels); 0 < t < 1."""

    def velocity(z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        clean = denoiser(z / like(t, z), sigma(t), labels)
        return (clean - z) / like(1 - t, z)

    return velocity


def denoiser_of(velocity: Field) -> Field:
    """The denoiser z + (1 - t) v of a canonical field v(z, t, labels)."""

    def denoiser(x: Tensor, level: Tensor, labels: Tensor | None) -> Tensor:
        t = time(level)
        z = x * like(t, x)
        return z + like(1 - t, z) * velocity(z, t, labels)

    return denoiser
