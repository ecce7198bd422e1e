"""Several networks as one, of which an evaluation uses one for each row."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Chain(nn.Module):
    """net(x, t, y, block): each row of x (B, *shape) through one of `blocks`, with its time t (B,).

    `block` is the number of the network, from 0: one for all rows, or int64 (B,). One forward is
    one evaluation for each row, and costs what that block costs.
    """

    def __init__(self, blocks: Iterable[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, block: int | Tensor = 0
    ) -> Tensor:
        if isinstance(block, int):
            return self.blocks[block](x, t, y)
        groups = [(number, (block == number).nonzero()[:, 0]) for number in block.unique().tolist()]
        if len(groups) == 1:
            return self.blocks[groups[0][0]](x, t, y)
        parts = [self.blocks[n](x[i], t[i], None if y is None else y[i]) for n, i in groups]
        return torch.cat(parts)[torch.cat([rows for _, rows in groups]).argsort()]
