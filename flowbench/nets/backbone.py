"""Large backbones behind the call that all networks share: net(x, t, y)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowbench.nets.dhariwal import DhariwalUNet
from flowbench.nets.settings import ADM, OpenAI, Settings
from flowbench.nets.song import SongUNet
from flowbench.records import FlowbenchError

TYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backbone(nn.Module):
    """net(x, t, y) for x (B, C, H, W) float32, t (B,), or (B, 2) with `times` 2; like x.

    y is None, classes (B,) int64, or (B, 1+9) float32: a class and how the image was augmented.
    -1 and None are no class. Weights stay float32; at another `precision` most of the arithmetic
    is in it. Raises FlowbenchError for images that the network cannot halve.
    """

    def __init__(self, settings: Settings, shape: Sequence[int], classes: int = 0, times: int = 1):
        super().__init__()
        self.settings, self.classes = settings, classes
        self.model = build(settings, shape, classes, times).to(memory_format=torch.channels_last)

    @property
    def output(self) -> nn.Module:
        """The last convolution, whose weight the loss balancing of CTM for CIFAR-10 looks at."""
        return self.model.get_submodule("output")

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        # On CPUs and GPUs alike, convolutions are fastest with the channels last in memory.
        h = x.contiguous(memory_format=torch.channels_last)
        label, augment = self._conditions(x, y)
        dtype = TYPES[self.settings.precision]
        with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
            h = self.model(h, t.to(x.dtype), label, augment)
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


def check(settings: Settings, shape: Sequence[int]) -> None:
    """Raise FlowbenchError for images that the network of these settings cannot halve."""
    side, unit = shape[-1], 2 ** (len(settings.mult) - 1)
    if len(shape) != 3 or shape[1] != side or side % unit:
        size = "x".join(map(str, shape))
        raise FlowbenchError(
            f"network {settings.name} needs square images whose side is a multiple of {unit}, "
            f"not {size}: shorten mult or take another network"
        )


def build(settings: Settings, shape: Sequence[int], classes: int = 0, times: int = 1) -> nn.Module:
    """The network of these settings for images of `shape`, called as net(x, t, label, augment).

    `label` is None or one-hot, `augment` None or (B, 9); its `output` is its last convolution.
    Raises FlowbenchError for images that it cannot halve.
    """
    check(settings, shape)
    if isinstance(settings, OpenAI):
        from flowbench.nets.guided import GuidedUNet

        return GuidedUNet(settings, shape, classes, times)
    kind = DhariwalUNet if isinstance(settings, ADM) else SongUNet
    return kind(settings, shape, classes, times)


def compile_blocks(net: nn.Module) -> None:
    """Compile each `Backbone` inside `net` in place; names of weights and copies stay as they are.

    What is compiled runs at the next call, which takes minutes for a large network.
    """
    for module in net.modules():
        if isinstance(module, Backbone):
            module.model.compile()
