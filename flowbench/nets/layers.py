"""The parts that EDM's U-Nets are made of: embeddings, convolutions, attention, blocks.

Names of children are those of EDM's published checkpoints, so that their keys fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.nets.settings import groups

Resample = Literal["", "up", "down"]


@dataclass(frozen=True)
class Init:
    """How a layer starts: a uniform law, with factors on its weight and on its bias."""

    law: Literal["xavier", "kaiming"]
    weight: float = 1.0
    bias: float = 0.0

    def fill(self, layer: nn.Module, inputs: int, outputs: int) -> None:
        """Draw the parameters of a layer with these numbers of inputs and outputs (fans)."""
        bound = (6 / (inputs + outputs) if self.law == "xavier" else 3 / inputs) ** 0.5
        for name, parameter in layer.named_parameters():
            width = bound * (self.weight if name == "weight" else self.bias)
            nn.init.uniform_(parameter, -width, width)


@dataclass(frozen=True)
class Style:
    """In what networks differ, block by block.

    `embedding`: its width. `times`: 2 where blocks also get the embedding of a second time.
    `adaptive`: the embedding scales and shifts, instead of being added. `project`: shortcuts that
    resample have a 1x1 convolution. `head`: channels of one head of attention; 0 makes one head.
    `everywhere`: all blocks of a decoder's level attend, instead of the last. `residual`: the
    encoder also gets the image itself at each level. `taps`: the filter of resampling.
    """

    embedding: int
    dropout: float
    times: int
    init: Init
    zero: Init  # of layers whose output starts at (nearly) zero
    attention: Init
    eps: float
    skip_scale: float
    adaptive: bool
    project: bool
    head: int
    everywhere: bool
    residual: bool = False
    taps: tuple[float, ...] = (1.0, 1.0)

    def heads(self, width: int) -> int:
        """The heads of attention over `width` channels, one at least."""
        return max(1, width // self.head) if self.head else 1


def linear(inputs: int, outputs: int, init: Init, bias: bool = True) -> nn.Linear:
    """A linear layer that starts as `init` says."""
    layer = nn.Linear(inputs, outputs, bias)
    init.fill(layer, inputs, outputs)
    return layer


def norm(width: int, eps: float) -> nn.GroupNorm:
    """Group normalisation in 32 groups, or in groups of 4 channels where these are fewer."""
    return nn.GroupNorm(groups(width), width, eps)


def resample(x: Tensor, kernel: Tensor, direction: Resample) -> Tensor:
    """Twice or half the resolution of x (B, C, H, W), filtered by `kernel` (1, 1, m, m)."""
    if kernel.shape[-1] == 2:  # two equal taps are nearest neighbours and means, which are faster
        if direction == "up":
            return functional.interpolate(x, scale_factor=2)
        return functional.avg_pool2d(x, 2)
    channels, padding = x.shape[1], (kernel.shape[-1] - 1) // 2
    each = kernel.expand(channels, 1, -1, -1)
    if direction == "up":
        return functional.conv_transpose2d(x, 4 * each, None, 2, padding, groups=channels)
    return functional.conv2d(x, each, None, 2, padding, groups=channels)


class Conv2d(nn.Module):
    """A convolution that keeps the resolution, behind a resampling; a `kernel` of 0 leaves it out.

    With `fused` the resampling comes last, on borders that the convolution has widened.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        init: Init,
        direction: Resample = "",
        taps: Sequence[float] = (1.0, 1.0),
        fused: bool = False,
    ):
        super().__init__()
        self.direction, self.fused, self.kernel = direction, fused, kernel
        self.padding = kernel // 2 + ((len(taps) - 1) // 2 if fused else 0)
        if kernel:
            self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(outputs))
            init.fill(self, inputs * kernel**2, outputs * kernel**2)
        if direction:
            line = torch.tensor(taps) / sum(taps)
            self.register_buffer("resample_filter", line.outer(line)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        if self.direction and not self.fused:
            x = resample(x, self.resample_filter, self.direction)
        if self.kernel:
            x = functional.conv2d(x, self.weight, self.bias, padding=self.padding)
        if self.fused:  # the wider borders stand for the padding that `resample` would add
            kernel = self.resample_filter.expand(x.shape[1], 1, -1, -1)
            x = functional.conv2d(x, kernel, stride=2, groups=x.shape[1])
        return x


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Attention within each image: (B, 3C, H, W), with channels (head, channel, qkv), to C."""
    batch, width, *sides = qkv.shape
    parts = qkv.reshape(batch, heads, width // heads // 3, 3, math.prod(sides))
    # The fused kernels of GPUs need the channels of a head next to each other.
    q, k, v = parts.permute(3, 0, 1, 4, 2).contiguous().unbind()
    attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return attended.reshape(batch, *sides, width // 3).permute(0, 3, 1, 2)


class UNetBlock(nn.Module):
    """A residual block (B, inputs, H, W) -> (B, outputs, H', W') with or without attention.

    The embedding (B, E) modulates it; what that of a second time adds is zero at the start.
    """

    def __init__(
        self,
        style: Style,
        inputs: int,
        outputs: int,
        direction: Resample = "",
        attention: bool = False,
    ):
        super().__init__()
        self.style, self.heads = style, style.heads(outputs) if attention else 0
        self.norm0 = norm(inputs, style.eps)
        self.conv0 = Conv2d(inputs, outputs, 3, style.init, direction, style.taps)
        self.affine = self._affine(outputs, style.init)
        if style.times == 2:
            self.affine_second = self._affine(outputs, Init("xavier", weight=0.0))
        self.norm1 = norm(outputs, style.eps)
        self.conv1 = Conv2d(outputs, outputs, 3, style.zero)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs or direction:
            kernel = 1 if inputs != outputs or style.project else 0
            self.skip = Conv2d(inputs, outputs, kernel, style.init, direction, style.taps)
        if attention:
            self.norm2 = norm(outputs, style.eps)
            self.qkv = Conv2d(outputs, 3 * outputs, 1, style.attention)
            self.proj = Conv2d(outputs, outputs, 1, style.zero)

    def _affine(self, outputs: int, init: Init) -> nn.Linear:
        return linear(self.style.embedding, outputs * (2 if self.style.adaptive else 1), init)

    def forward(self, x: Tensor, embedding: Tensor, second: Tensor | None = None) -> Tensor:
        modulation = self.affine(embedding)
        if second is not None:
            modulation = modulation + self.affine_second(second)
        h = self._modulate(self.conv0(functional.silu(self.norm0(x))), modulation[:, :, None, None])
        h = self.conv1(functional.dropout(h, self.style.dropout, self.training))
        h = (self.skip(x) + h) * self.style.skip_scale
        if not self.heads:
            return h
        return (self.proj(attend(self.qkv(self.norm2(h)), self.heads)) + h) * self.style.skip_scale

    def _modulate(self, h: Tensor, modulation: Tensor) -> Tensor:
        if not self.style.adaptive:
            return functional.silu(self.norm1(h + modulation))
        scale, shift = modulation.chunk(2, 1)
        return functional.silu(self.norm1(h) * (1 + scale) + shift)


def positional(t: Tensor, width: int, endpoint: bool) -> Tensor:
    """Cosines, then sines of t (B,) at log-spaced frequencies from 1 to 1/10000: (B, width).

    The lowest frequency is one of them with `endpoint`, else it would come next.
    """
    half = width // 2
    steps = torch.arange(half, device=t.device, dtype=t.dtype) / (half - 1 if endpoint else half)
    angles = t[:, None] * 10000**-steps
    return torch.cat([angles.cos(), angles.sin()], 1)


class Fourier(nn.Module):
    """Cosines, then sines of t (B,) at random frequencies N(0, 16^2): (B, width)."""

    freqs: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(width // 2))

    def forward(self, t: Tensor) -> Tensor:
        angles = 2 * math.pi * t[:, None] * self.freqs
        return torch.cat([angles.cos(), angles.sin()], 1)
