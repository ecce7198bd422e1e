"""OpenAI's U-Net (Dhariwal and Nichol 2021), which torchcfm and the consistency models use."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.nets.settings import OpenAI
from flowbench.records import FlowbenchError

Layer = TypeVar("Layer", bound=nn.Module)
GROUPS = 32  # of every normalisation, whatever the width


class GuidedUNet(nn.Module):
    """net(x, t, onehot, augment) with the state-dict keys of guided-diffusion.

    x is (B, C, H, W), t (B,) or with `times` 2 (B, 2), onehot (B, classes) or None; `augment` is
    there because all backbones take it, and ignored. `qkv_first` is the order of attention's rows
    in the release of the consistency models: (qkv, head, channel) instead of (head, qkv, channel).
    What reads the second time adds zero at the start.
    """

    def __init__(
        self,
        settings: OpenAI,
        shape: Sequence[int],
        classes: int = 0,
        times: int = 1,
        qkv_first: bool = False,
    ):
        super().__init__()
        self.settings, self.times, self.qkv_first = settings, times, qkv_first
        width = 4 * settings.channels
        self.time_embed = _mapping(settings.channels, width)
        if times == 2:
            self.time_embed_second = _mapping(settings.channels, width)
        if classes:
            self.label_emb = nn.Embedding(classes, width)
        top = settings.channels * settings.mult[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(shape[0], top, 3, padding=1))])
        skips = self._descend(shape[-1], top)
        low = skips[-1]
        middle = [self._block(low, low), self._attention(low), self._block(low, low)]
        self.middle_block = Stage(*middle)
        self.output_blocks = nn.ModuleList()
        self._ascend(shape[-1], skips)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, top), nn.SiLU(), zeroed(nn.Conv2d(top, shape[0], 3, padding=1))
        )

    def _descend(self, side: int, width: int) -> list[int]:
        """Build the encoder; returns the widths of its outputs, which the decoder reads."""
        widths = [width]
        for level, factor in enumerate(self.settings.mult):
            if level:
                self.input_blocks.append(Stage(self._resampling(width, "down")))
                widths.append(width)
            for _ in range(self.settings.blocks):
                layers = [self._block(width, self.settings.channels * factor)]
                width = self.settings.channels * factor
                if side >> level in self.settings.attention:
                    layers.append(self._attention(width))
                self.input_blocks.append(Stage(*layers))
                widths.append(width)
        return widths

    def _ascend(self, side: int, skips: list[int]) -> None:
        """Build the decoder; what enlarges an image is the last layer of the level below."""
        width = skips[-1]
        for level, factor in reversed(list(enumerate(self.settings.mult))):
            for i in range(self.settings.blocks + 1):
                layers = [self._block(width + skips.pop(), self.settings.channels * factor)]
                width = self.settings.channels * factor
                if side >> level in self.settings.attention:
                    layers.append(self._attention(width))
                if level and i == self.settings.blocks:
                    layers.append(self._resampling(width, "up"))
                self.output_blocks.append(Stage(*layers))

    def _block(self, inputs: int, outputs: int, resample: str = "") -> nn.Module:
        return ResBlock(inputs, outputs, self.settings, self.times, resample)

    def _attention(self, width: int) -> nn.Module:
        size = self.settings.head_channels
        heads = max(1, width // size) if size > 0 else self.settings.heads
        if width % heads:
            raise FlowbenchError(
                f"network openai cannot split {width} channels into {heads} heads of attention:"
                " choose other channels or heads"
            )
        return Attention(width, heads, self.qkv_first)

    def _resampling(self, width: int, resample: str) -> nn.Module:
        if self.settings.resblock_updown:
            return self._block(width, width, resample)
        return Upsample(width) if resample == "up" else Downsample(width)

    @property
    def output(self) -> nn.Module:
        """The last convolution."""
        return self.out[2]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        onehot: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # times need more digits than features
            emb, other = self._embeddings(t, onehot)
        h, skips = x, []
        for stage in self.input_blocks:
            h = stage(h, emb, other)
            skips.append(h)
        h = self.middle_block(h, emb, other)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], 1), emb, other)
        return self.out(h)

    def _embeddings(self, t: Tensor, onehot: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the blocks read of the first time and the class, and of the second time."""
        size, times = self.settings.channels, t * self.settings.time_scale
        emb = self.time_embed(waves(times[:, 0] if self.times == 2 else times, size))
        if onehot is not None and hasattr(self, "label_emb"):
            emb = emb + onehot.to(emb) @ self.label_emb.weight
        if self.times == 1:
            return emb, None
        # Kim et al. (2024) tell this network the class with the first time only.
        return emb, self.time_embed_second(waves(times[:, 1], size))


class Stage(nn.Sequential):
    """Layers in a row, of which the residual blocks read the embeddings of the times."""

    def forward(self, h: Tensor, emb: Tensor, other: Tensor | None) -> Tensor:  # type: ignore[override]
        for layer in self:
            h = layer(h, emb, other) if isinstance(layer, ResBlock) else layer(h)
        return h


class ResBlock(nn.Module):
    """A residual block, zero at the start; `resample` "up" or "down" also changes the side."""

    def __init__(self, inputs: int, outputs: int, settings: OpenAI, times: int, resample: str = ""):
        super().__init__()
        self.scale_shift, self.resample = settings.scale_shift, resample
        width, told = 4 * settings.channels, outputs * (2 if settings.scale_shift else 1)
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, told))
        if times == 2:
            self.emb_layers_second = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, told)))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outputs),
            nn.SiLU(),
            nn.Dropout(settings.dropout),
            zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )
        same = inputs == outputs
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor, other: Tensor | None) -> Tensor:
        h = self.in_layers[2](self._resized(self.in_layers[:2](x)))
        told = self.emb_layers(emb)
        if other is not None:
            told = told + self.emb_layers_second(other)
        told = told.to(h.dtype)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + told)
        return self.skip_connection(self._resized(x)) + h

    def _resized(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return functional.interpolate(x, scale_factor=2, mode="nearest")
        return functional.avg_pool2d(x, 2) if self.resample == "down" else x


class Attention(nn.Module):
    """Self-attention over all pixels, channels last for fused kernels; zero at the start."""

    def __init__(self, width: int, heads: int, qkv_first: bool):
        super().__init__()
        self.heads, self.qkv_first = heads, qkv_first
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = zeroed(nn.Conv1d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, pixels, width)
        qkv = _pointwise(self.qkv, pixels)
        order, at = ((3, self.heads, -1), 2) if self.qkv_first else ((self.heads, 3, -1), 3)
        parts = qkv.unflatten(2, order).unbind(at)
        q, k, v = (part.transpose(1, 2) for part in parts)  # (B, heads, pixels, channels)
        h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + _pointwise(self.proj_out, h).transpose(1, 2).unflatten(2, x.shape[2:])


def _pointwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of kernel 1 over x (B, pixels, channels), as a linear layer."""
    return functional.linear(x, layer.weight[:, :, 0], layer.bias)


class Downsample(nn.Module):
    """Halves the side with a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Doubles the side by repeating pixels, then convolves."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))


def _mapping(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def zeroed(layer: Layer) -> Layer:
    """`layer` with all parameters at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def waves(t: Tensor, size: int) -> Tensor:
    """Cosines, then sines, of `t` (B,) at size/2 frequencies from 1 down to 1/10000, (B, size)."""
    half = size // 2
    steps = torch.arange(half, device=t.device, dtype=torch.float32) / half
    angles = t.float()[:, None] * torch.exp(-math.log(10_000) * steps)
    return torch.cat([angles.cos(), angles.sin()], 1)
