"""The exponential moving average of weights: what is examined, and a target to learn from."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

Ramp = Literal["count", "edm", "warmup", "none"]
Lists = tuple[list[Tensor], list[Tensor]]


def decay_at(step: int, decay: float, ramp: Ramp = "count", warmup: int = 0) -> float:
    """The decay at `step`, counted from 1.

    "count": at most (1+k)/(10+k) (Song et al.'s code); "edm": a half-life of at most a twentieth of
    the steps so far (Karras et al. 2022); "warmup": 0 for `warmup` steps (Xu et al.'s code).
    """
    if ramp == "count":
        return min(decay, (1 + step) / (10 + step))
    if ramp == "edm":
        return min(decay, 0.5 ** (20 / step))
    return 0.0 if ramp == "warmup" and step <= warmup else decay


class Average:
    """The exponential moving average of a network, with a ramp (see `decay_at`).

    Without a ramp a short run's average still holds its random start (after 390 steps at
    0.999 two thirds of it). The count is a Python number, so no step waits for the device.
    """

    def __init__(self, net: nn.Module, decay: float = 0.999):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0
        self.ramp: Ramp = "count"
        self.warmup = 0
        self._found: tuple[nn.Module, Lists, Lists] | None = None

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards `net`; buffers are copied."""
        self.steps += 1
        weight = 1 - decay_at(self.steps, self.decay, self.ramp, self.warmup)
        weights, buffers = self._tensors(net)
        torch._foreach_lerp_(*weights, weight)
        if buffers[0]:  # the operator takes no empty list
            torch._foreach_copy_(*buffers)

    def _tensors(self, net: nn.Module) -> tuple[Lists, Lists]:
        """Weights and buffers, mine and those of `net`; walking through both takes longer."""
        if self._found is None or self._found[0] is not net:
            weights: Lists = list(self.net.parameters()), list(net.parameters())
            self._found = net, weights, (list(self.net.buffers()), list(net.buffers()))
        return self._found[1], self._found[2]

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "net": self.net.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.net.load_state_dict(state["net"])
