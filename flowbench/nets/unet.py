"""The backbone for small images, 8x8 to 32x32: a convolutional U-Net modulated by time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.nets.embedding import Embedding, Gate


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, modulated by the embedding, zero at the start."""

    def __init__(self, channels: int, width: int, embedding: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width)
        self.skip = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, 1)
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class UNet(nn.Module):
    """net(x, t, y) for x (B, C, H, W), t (B,), y (B,) int64 or None.

    `width` channels at the top and twice as many below; the image is halved until its side is
    below 8 (a side of 8 has 2 levels, 28 has 3, 32 has 4). With `times` 2, t is (B, 2).
    """

    def __init__(self, shape: Sequence[int], classes: int = 0, width: int = 32, times: int = 1):
        super().__init__()
        channels, side = shape[0], shape[-1]
        levels = 1 + max(1, (side // 4).bit_length() - 1)
        widths = [width] + [2 * width] * (levels - 1)
        self.embedding = Embedding(4 * width, classes, times=times)
        self.input = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            Block(widths[max(i - 1, 0)], widths[i], 4 * width) for i in range(levels)
        )
        self.middle = Block(widths[-1], widths[-1], 4 * width)
        self.narrow = nn.ModuleList(
            nn.Conv2d(widths[min(i + 1, levels - 1)], widths[i], 1) for i in reversed(range(levels))
        )
        self.up = nn.ModuleList(
            Block(widths[i], widths[i], 4 * width) for i in reversed(range(levels))
        )
        self.norm = nn.GroupNorm(8, width)
        self.output = nn.Conv2d(width, channels, 3, padding=1)
        self.gate = Gate(4 * width)
        with torch.no_grad():
            self.output.weight.mul_(0.1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.embedding(t, y)
        # On CPUs and GPUs alike, convolutions are fastest with the channels last in memory.
        h, skips = self.input(x.contiguous(memory_format=torch.channels_last)), []
        for i, block in enumerate(self.down):
            h = block(functional.avg_pool2d(h, 2) if i else h, emb)
            skips.append(h)
        h = self.middle(h, emb)
        for narrow, block in zip(self.narrow, self.up, strict=True):
            h, skip = narrow(h), skips.pop()
            if h.shape[-1] != skip.shape[-1]:
                h = functional.interpolate(h, size=skip.shape[-2:])
            h = block(h + skip, emb)  # a sum, not a concatenation: a quarter less arithmetic
        return self.output(functional.silu(self.norm(h))) + self.gate(x, emb)
