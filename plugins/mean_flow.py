"""Mean flows (Geng et al. 2025, arXiv:2505.13447): the average velocity between two times, learned
without a teacher, from its own derivative along the path."""

import warnings
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from flowbench import FlowbenchError, hookimpl, nets, training
from flowbench.coordinates import like


def derivative(function, place, direction):
    """The value of `function` at the tensors `place`, and its derivative along `direction`.

    Both come from one forward, so they share their dropout. The kernels of attention that are
    fused know no forward derivative; plain ones do.
    """
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        # Where torch first loads its formulas for this, it warns of a function of its own.
        warnings.filterwarnings("ignore", ".*torch.jit")
        return torch.func.jvp(function, place, direction)


@dataclass(frozen=True)
class MeanFlow:
    """Learn the average velocity between any two times: one jump leads from noise to data."""

    ratio: float = 0.5  # share of rows whose two times differ; the paper: 0.75 on CIFAR-10
    mean: float = 0.0  # of the logit of both times; the paper: 2 on CIFAR-10, 0.4 on ImageNet
    std: float = 2.0  # of the logit of both times; the paper: 2 on CIFAR-10, 1 on ImageNet
    power: float = 0.0  # p of the weight 1/(error + constant)^p; the paper: 0.75, biased in 2-D
    constant: float = 1e-3  # of that weight, the paper's value; its error is a sum over entries
    time_scale: float = 0.2  # of times told to the network: fast waves make its derivative rough
    lr: float = 2e-3  # Adam's step size; the paper, with a network 100 times larger: 6e-4
    ema: float = 0.999  # decay of the weight average; the paper: 0.99995
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    def __post_init__(self):
        if not 0 <= self.ratio <= 1 or self.std < 0:
            raise FlowbenchError("ratio goes from 0 to 1, and std is not negative")
        if self.power < 0 or self.constant <= 0 or self.time_scale <= 0:
            raise FlowbenchError("power is not negative, constant and time_scale are above 0")

    def refuses_data(self, data):
        """Why this method cannot learn from `data`, or None."""
        if getattr(data.network, "precision", "float32") != "float32":
            return "it differentiates its network along the path, which needs --precision fp32"
        return None

    def network(self, data):
        """The untrained u(z, (a, b - a), y)."""
        return nets.default(data, width=self.width, times=2).to(data.device)

    def average(self, network, z, begin, end, y=None):
        """The average velocity between two times (B,) of the path through `z` at `begin`.

        Like the paper's, the network is told the first time and the distance to the second.
        """
        return network(z, self.time_scale * torch.stack([begin, end - begin], 1), y)

    def draw_times(self, n, device):
        """Times begin <= end of one batch, (n,) each; equal in all but `ratio` of the rows."""
        first, second = torch.sigmoid(self.mean + self.std * torch.randn(2, n, device=device))
        begin, end = torch.minimum(first, second), torch.maximum(first, second)
        return begin, torch.where(torch.rand(n, device=device) < self.ratio, end, begin)

    def identity(self, network, z, begin, end, velocity, y=None):
        """The average velocity twice: what the network says, and what follows from its derivative.

        Where u is right, u = v + (end - begin) du/d begin along the path. The mean of the data's
        `velocity` at `z` is v, and the derivative is linear in it. The second is a constant.
        """
        place, direction = (z, begin), (velocity, torch.ones_like(begin))

        def told(z, begin):
            return self.average(network, z, begin, end, y)

        average, change = derivative(told, place, direction)
        return average, (velocity + like(end - begin, z) * change).detach()

    def error(self, average, target):
        """The squared error of each row, weighted by what it is itself, (B,).

        The paper's loss up to a factor: here the sums over entries are means.
        """
        squares = (average - target).square().flatten(1)
        error, constant = squares.mean(1), self.constant / squares.shape[1]
        return error / (error.detach() + constant) ** self.power

    @hookimpl
    def train(self, data, run):
        net = self.network(data)

        def loss(x, y):
            begin, end = self.draw_times(len(x), x.device)
            noise = torch.randn_like(x)
            z = torch.lerp(noise, x, like(begin, x))
            return self.error(*self.identity(net, z, begin, end, x - noise, y)).mean()

        return training.fit(net, loss, data.train, run, lr=self.lr, ema=self.ema)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        z = noise
        for begin, end in pairwise(i / nfe for i in range(nfe + 1)):
            now, then = (z.new_full((len(z),), time) for time in (begin, end))
            z = z + (end - begin) * self.average(network, z, now, then, labels)
        return z

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        return "it has no adaptive solver" if nfe is None else None

    @hookimpl
    def velocity(self, network, z, t, labels):
        return self.average(network, z, t, t, labels)
