"""The backbone for vectors: a residual MLP modulated by time, with a gate on its input."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from flowbench.nets.embedding import Embedding, Gate


class Block(nn.Module):
    """h + W2 silu(FiLM(W1 h)), zero at the start."""

    def __init__(self, width: int):
        super().__init__()
        self.input = nn.Linear(width, width)
        self.film = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb).chunk(2, 1)
        return h + self.output(nn.functional.silu(self.input(h) * (1 + scale) + shift))


class MLP(nn.Module):
    """net(x, t, y) for x (B, *shape), t (B,), y (B,) int64 or None; 0.27 M parameters at 128.

    With `times` 2, t is (B, 2).
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        width: int = 128,
        blocks: int = 3,
        times: int = 1,
    ):
        super().__init__()
        size = prod(shape)
        self.embedding = Embedding(width, classes, times=times)
        self.input = nn.Linear(size, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.output = nn.Linear(width, size)
        self.gate = Gate(width)
        with torch.no_grad():
            self.output.weight.mul_(0.1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.embedding(t, y)
        flat = x.flatten(1)
        h = self.input(flat)
        for block in self.blocks:
            h = block(h, emb)
        return (self.output(h) + self.gate(flat, emb)).view_as(x)
