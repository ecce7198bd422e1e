"""The trained model that a distilling method learns from, made only when it is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from flowbench.checkpoints import weights_hash
from flowbench.coordinates import Field, denoiser_of
from flowbench.data.base import Split
from flowbench.records import FlowbenchError


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


@dataclass(frozen=True)
class Taught(Split):
    """Rows of data, drawn when `teacher` is there.

    Made only inside the first loss, it would spend the student's random numbers.
    """

    teacher: Teacher | None = None

    def prepare(self) -> None:
        """Train the teacher, or find it."""
        _ = self.teacher and self.teacher.network


def copy_weights(source: nn.Module, net: nn.Module, new: str = "") -> None:
    """Start `net`, a student's denoiser, from its teacher's network `source`.

    Weights with `new` in their names may be missing there, and stay as they are. Raises
    FlowbenchError where the networks differ, or predict something else.
    """
    try:
        if source.form != "edm" or net.form not in ("edm", "cm"):  # "cm" differs by sigma_min only
            raise RuntimeError("another preconditioning")
        missing, others = net.load_state_dict(source.state_dict(), strict=False)
        if others or not all(new and new in name for name in missing):
            raise RuntimeError("another network")
    except (AttributeError, RuntimeError) as error:
        raise FlowbenchError(
            "start=teacher needs an edm teacher of the same network and width; else add"
            " -o start=random"
        ) from error
