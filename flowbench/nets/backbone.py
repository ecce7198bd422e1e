"""Chosen backbones behind the call that all networks share: net(x, t, y)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowbench.nets.settings import Network
from flowbench.records import FlowbenchError

TYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backbone(nn.Module):
    """net(x, t, y) for x (B, *shape) float32, t (B,), or (B, 2) with `times` 2; like x.

    y is None, classes (B,) int64, or (B, 1+9) float32: a class and how the image was augmented.
    -1 and None are no class. Weights stay float32; at another `precision` most of the arithmetic
    is in it. Raises FlowbenchError for data that the network does not take.
    """

    def __init__(self, settings: Network, shape: Sequence[int], classes: int = 0, times: int = 1):
        super().__init__()
        self.settings, self.classes = settings, classes
        self.model = build(settings, shape, classes, times).to(memory_format=torch.channels_last)

    @property
    def output(self) -> nn.Module:
        """The last layer, whose weight the loss balancing of CTM for CIFAR-10 looks at."""
        try:
            return self.model.get_submodule("output")
        except AttributeError:
            raise FlowbenchError(
                f"network {self.settings.name} has no submodule `output`, its last layer, which"
                " this method balances losses by: take another network"
            ) from None

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        # On CPUs and GPUs alike, convolutions are fastest with the channels last in memory.
        h = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        label, augment = self._conditions(x, y)
        told = (label, augment) if self.settings.augment else (label,)
        dtype = TYPES[self.settings.precision]
        with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
            h = self.model(h, t.to(x.dtype), *told)
        return h.to(x.dtype, memory_format=torch.contiguous_format)

    def _conditions(self, x: Tensor, y: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Classes as one-hot rows, zero where there is none, and the augment parameters."""
        augment = y[:, 1:] if y is not None and y.ndim == 2 else None
        if not self.classes:
            return None, augment
        if y is None:
            return x.new_zeros(len(x), self.classes), None
        labels = y if augment is None else y[:, 0]
        return (labels[:, None] == torch.arange(self.classes, device=y.device)).to(x.dtype), augment


def build(settings: Network, shape: Sequence[int], classes: int = 0, times: int = 1) -> nn.Module:
    """The network of these settings for data of `shape`, called as `Network.build` says.

    Raises FlowbenchError for data that it does not take, and for what is no network.
    """
    settings.check(shape)
    network = settings.build(shape, classes, times)
    if not isinstance(network, nn.Module):
        found = type(network).__name__
        raise FlowbenchError(f"build of network {settings.name} returned {found}, no nn.Module")
    return network


def compile_blocks(net: nn.Module) -> None:
    """Compile each `Backbone` inside `net` in place; names of weights and copies stay as they are.

    What is compiled runs at the next call, which takes minutes for a large network.
    """
    for module in net.modules():
        if isinstance(module, Backbone):
            module.model.compile()
