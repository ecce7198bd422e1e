"""The methods that came after the first ones keep the contract, on images and on vectors."""

from types import MappingProxyType

import torch
from flowbench_plugins.mean_flow import MeanFlow
from flowbench_plugins.shortcut import Shortcut
from torch import nn

from flowbench.testing import MethodContract


class MeanFlowLaw(nn.Module):
    """The average velocity of a law; times come scaled, the second as the distance to it."""

    def __init__(self, law, scale):
        super().__init__()
        self.law, self.scale = law, scale

    def forward(self, x, t, y=None):
        begin, length = (t.double() / self.scale).unbind(1)
        return self.law.average(x, begin, begin + length).to(x.dtype)


class ShortcutLaw(nn.Module):
    """The velocity of a law for the smallest steps, its average velocity for all others."""

    def __init__(self, law, finest):
        super().__init__()
        self.law, self.finest = law, finest

    def forward(self, x, t, y=None):
        begin, level = t[:, 0].double(), (t[:, 1].double() * self.finest).round()
        length = torch.where(level == self.finest, 0.0, 0.5**level)
        return self.law.average(x, begin, begin + length).to(x.dtype)


class TestMeanFlow(MethodContract):
    method = MeanFlow(width=16)
    nfes = (1, 2, 5, 16)

    @staticmethod
    def exact(law, data):
        return MeanFlowLaw(law, MeanFlow().time_scale)


class TestMeanFlowVectors(MethodContract):
    method = MeanFlow(power=0.75, ratio=0.75, std=1.0)
    kind = "vector"
    quick = True
    exact = TestMeanFlow.exact
    skips = MappingProxyType({"T02": "the weight divides each loss by what it is"})


class TestShortcut(MethodContract):
    method = Shortcut(width=16)
    nfes = (1, 2, 5, 16)

    @staticmethod
    def exact(law, data):
        return ShortcutLaw(law, Shortcut().finest)


class TestShortcutVectors(MethodContract):
    method = Shortcut(grid=8, share=0.5, target="live", clip=4.0)
    kind = "vector"
    nfes = (1, 3, 8)
    quick = True
    skips = MappingProxyType({"K01": "its smallest steps are Euler's, and the larger ones exact"})

    @staticmethod
    def exact(law, data):
        return ShortcutLaw(law, 3)
