"""The exponential moving average of weights: what is examined, and a target to learn from."""

import copy
from typing import Any

import torch
from torch import nn


class Average:
    """The exponential moving average of a network, with a ramp: decay min(`decay`, (1+k)/(10+k)).

    Without the ramp a short run's average still holds its random start (after 390 steps at
    0.999 two thirds of it). The count is a Python number, so no step waits for the device.
    """

    def __init__(self, net: nn.Module, decay: float = 0.999):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards `net`; buffers are copied."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.net.parameters()), list(net.parameters()), weight)
        for mine, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "net": self.net.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.net.load_state_dict(state["net"])
