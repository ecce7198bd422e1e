"""The trained model that a distilling method learns from, made only when it is needed."""

from collections.abc import Callable
from functools import cached_property

from torch import Tensor, nn

from flowbench.checkpoints import weights_hash
from flowbench.coordinates import Field, denoiser_of


class Teacher:
    """A trained network with its method's canonical field.

    `make` trains it, or finds it where that was done before; nothing happens until the network
    is first used, so a student whose training is finished never asks for it. `interval` are the
    canonical times between which its field is defined: (0, 1) for a flow.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        velocity: Callable[..., Tensor],
        interval: tuple[float, float] = (0.0, 1.0),
    ):
        self._make, self._velocity, self.interval = make, velocity, interval

    @cached_property
    def network(self) -> nn.Module:
        """The network, in evaluation mode and without gradients."""
        return self._make().eval().requires_grad_(False)

    @cached_property
    def key(self) -> str:
        """SHA-256 over the weights."""
        return weights_hash(self.network)

    def velocity(self, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The canonical field dz/dt at `z` (B, *shape) and `t` (B,)."""
        return self._velocity(network=self.network, z=z, t=t, labels=labels)

    @property
    def denoiser(self) -> Field:
        """The same as a denoiser (x, sigma, labels) -> clean data."""
        return denoiser_of(self.velocity)
