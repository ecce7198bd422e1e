"""Improved consistency training (Song and Dhariwal 2023, arXiv:2310.14189) and easy consistency
tuning (Geng, Pokle, Luo, Lin and Kolter 2024, arXiv:2406.14548): consistency models of data alone.
"""

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import ClassVar, Literal

import torch

from flowbench import FlowbenchError, coordinates, fitting, hookimpl, nets, noise_levels, training
from flowbench.coordinates import like
from flowbench.teacher import copy_weights

OF_ONE = {"ict": ("s0", "s1", "sigma_min"), "ect": ("q", "k", "b", "stages", "start")}
HUBER = {"ict": 0.00054, "ect": 0.03}  # c / sqrt(d)
SPREAD = {"ict": 3.0, "ect": 2.0}  # p_std; ect's weight at low levels bears no more
LEAST = 1e-8  # in place of 0: of c, whose root has a slope, and of a level, which has a logarithm


@dataclass(frozen=True)
class ICT:
    """Learn one end for two noise levels of the same row and noise: no teacher's path is needed."""

    sampling_options: ClassVar = ("nodes", "levels")  # no part in training: they share a network

    variant: Literal["ict", "ect"] = "ict"  # ect: starts from an edm teacher and comes ever nearer
    s0: int = 10  # ict: levels at the start, less one; the paper's value
    s1: int = 1280  # ict: at the end, after doublings at equal distances; the paper's value
    q: float = 2.0  # ect: by which each stage divides the gap between levels; the paper: 2 or 4
    k: float = 8.0  # ect: how much wider the gap is at low levels, the paper's value
    b: float = 1.0  # ect: how fast that falls with the level, the paper's value
    stages: int = 8  # ect: at equal distances; the paper's value for CIFAR-10
    p_mean: float = -0.5  # mean of ln(sigma) in training; the papers: -1.1, for many more steps
    p_std: float | None = None  # its standard deviation; None: 3, ect 2; the papers: 2
    huber: float | None = None  # c / sqrt(d) of the loss; None: 0.00054, ect 0.03; ECT: 0
    start: Literal["teacher", "random"] = "teacher"  # ect: weights at the start; ict: random
    nodes: Literal["uniform", "karras"] = "uniform"  # sampled levels: at equal times, or EDM's
    levels: tuple[float, ...] = ()  # sampled levels after sigma_max, such as 0.821 for NFE 2
    sigma_min: float = 0.002  # ict: lowest level, the paper's value; ect: 0
    sigma_max: float = 80.0  # highest level, the papers' value
    lr: float = 2e-3  # Adam's step size; the papers, with networks 100 times larger: 1e-4
    ema: float = 0.999  # decay of the weight average that is examined; the papers: 0.9999 and more
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    def __post_init__(self):
        other = "ect" if self.variant == "ict" else "ict"
        for field in fields(self):
            if field.name in OF_ONE[other] and getattr(self, field.name) != field.default:
                raise FlowbenchError(f"{field.name} is an option of -o variant={other} only")
        if not 1 <= self.s0 <= self.s1:
            raise FlowbenchError("s0 is at least 1, and s1 at least s0")
        if self.q <= 1 or self.k < 0 or self.b < 0 or self.stages < 1:
            raise FlowbenchError("q is above 1, k and b not negative, and stages at least 1")
        if self.spread <= 0 or (self.huber or 0) < 0:
            raise FlowbenchError("p_std is above 0, and huber is not negative")
        path = [self.sigma_max, *self.levels, self.sigma_min, 0.0]
        if sorted(set(path), reverse=True) != path:
            raise FlowbenchError("levels fall, from below sigma_max to above sigma_min > 0")

    @property
    def teacher(self):
        """The method whose weights training starts from, or None."""
        return "edm" if self.variant == "ect" and self.start == "teacher" else None

    @property
    def spread(self):
        """The standard deviation of ln(sigma) in training."""
        return SPREAD[self.variant] if self.p_std is None else self.p_std

    @property
    def low(self):
        """The level at which f(x, low) = x."""
        return self.sigma_min if self.variant == "ict" else 0.0

    def network(self, data):
        """The untrained f(x, t, y)."""
        net = nets.default(data, width=self.width)
        if self.variant == "ect":
            return nets.Denoiser(net, data.std).to(data.device)
        return nets.Denoiser(net, data.std, "cm", sigma_min=self.low).to(data.device)

    @hookimpl
    def train(self, data, run, teacher):
        net = self.network(data)
        if self.teacher and not run.started:
            copy_weights(teacher.network, net)
        average = training.Average(net, self.ema)  # it counts the steps, over all attempts

        def loss(x, y):
            t, r = self.draw(len(x), x.device, average.steps, run.budget.steps)
            return self.consistency(net, x, y, t, r)

        return training.fit(net, loss, data.train, run, lr=self.lr, average=average)

    def draw(self, n, device, step, steps):
        """Levels t > r of one training batch, both (n,), at `step` of `steps`."""
        if self.variant == "ict":
            grid = self.grid(self.size(step, steps))
            rows = self.chances(grid).multinomial(n, replacement=True)
            return grid[rows + 1].to(device, torch.float32), grid[rows].to(device, torch.float32)
        t = noise_levels.draw_log_normal(n, self.p_mean, self.spread, device)
        return t, t * self.nearness(t, step * self.stages // steps)

    def size(self, step, steps):
        """The number of levels N(k) at `step` of `steps` (iCT, section 3.4)."""
        every = max(1, math.floor(steps / (math.log2(self.s1 // self.s0) + 1)))
        return min(self.s0 * 2 ** (step // every), self.s1) + 1

    def grid(self, size):
        """`size` levels from `sigma_min` up to `sigma_max`, float64."""
        return noise_levels.karras(size, self.sigma_min, self.sigma_max).flip(0)

    def chances(self, grid):
        """How likely each pair of neighbours is: a log-normal law in bins (iCT, section 3.5)."""
        edges = torch.special.erf((grid.log() - self.p_mean) / (math.sqrt(2) * self.spread))
        return edges.diff() / (edges[-1] - edges[0])

    def nearness(self, t, stage):
        """r / t at levels t (n,): 0 is far, 1 is near (ECT, section 3)."""
        gap = (1 + self.k * torch.sigmoid(-self.b * t)) / self.q ** (stage + 1)
        return (1 - gap).clamp(min=0)

    def consistency(self, net, x, y, t, r):
        """The weighted mean distance of f at t from f at r < t, for the same noise and dropout."""
        noise = torch.randn_like(x)
        before = fitting.random_state(str(x.device))
        with torch.no_grad():
            near = net(x + like(r, x) * noise, r.clamp(min=LEAST), y)
            target = torch.where(like(r, x) > 0, near, x)
        fitting.set_random_state(before, str(x.device))
        end = net(x + like(t, x) * noise, t, y)
        weight = 1 / (t - r) if self.variant == "ict" else net.weight(t)
        return (weight * self.distance(end, target)).mean()

    def distance(self, end, target):
        """sqrt(|end - target|^2 + c^2) - c of each row, (B,), in a form that loses no digits."""
        share = HUBER[self.variant] if self.huber is None else self.huber
        c = max(share * math.sqrt(end[0].numel()), LEAST)
        total = (end - target).square().flatten(1).sum(1)
        return total / ((total + c**2).sqrt() + c)

    @hookimpl
    def sample(self, network, noise, labels, nfe, rng):
        x, path = self.sigma_max * noise, self.path(nfe)
        for level, following in pairwise(path):
            x = network(x, x.new_full((len(x),), level), labels)
            if following > self.low:
                x = x + math.sqrt(following**2 - self.low**2) * rng()
        return x

    def path(self, nfe):
        """The nfe + 1 levels of the sampler, from `sigma_max` to `low`."""
        low, high = self.low, self.sigma_max
        if self.levels and nfe == len(self.levels) + 1:
            return [high, *self.levels, low]
        if self.nodes == "karras":
            nodes = noise_levels.karras(nfe + 1, low, high)
        else:
            times = torch.linspace(1 / (1 + high), 1 / (1 + low), nfe + 1, dtype=torch.float64)
            nodes = coordinates.sigma(times)
        return [high, *nodes[1:-1].tolist(), low]

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        if nfe is None:
            return "it has no adaptive solver"
        if self.levels and nfe not in (1, len(self.levels) + 1):
            return f"levels makes it 1 or {len(self.levels) + 1} evaluations"
        return None
