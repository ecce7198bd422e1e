"""Consistency trajectory models (Kim et al. 2024, arXiv:2310.02279) and their case s = 0,
consistency distillation (Song et al. 2023, arXiv:2303.01469)."""

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import ClassVar, Literal

import torch

from flowbench import FlowbenchError, coordinates, hookimpl, nets, noise_levels, solvers, training
from flowbench.coordinates import like
from flowbench.losses import build
from flowbench.losses.adversarial import adaptive_weight, generator_loss
from flowbench.teacher import Taught, copy_weights

OF_ONE = {"ctm": ("kmax", "dsm", "adaptive", "gamma", "adversarial"), "cd": ("weight",)}


def squared(end, target):
    """The squared distance of each row of two batches, per entry, (B,)."""
    return (end - target).square().flatten(1).mean(1)


@dataclass(frozen=True)
class CTM:
    """Jump along a teacher's path from any noise level to any lower one, or straight to data."""

    teacher: ClassVar[str] = "edm"
    sampling_options: ClassVar = ("gamma", "nodes", "levels")  # no part in training: share networks

    variant: Literal["ctm", "cd"] = "ctm"  # cd: consistency distillation, which jumps to data only
    grid: int = 18  # training levels N; the papers: 18 for CIFAR-10, 40 for ImageNet
    kmax: int = 4  # ctm: most teacher steps in a jump; the paper: 17, which costs 3 times as much
    target: Literal["live", "ema"] = "live"  # weights of the target's first jump; live: as released
    dsm: float = 0.1  # ctm: weight of denoising; 1 drowns the jumps on digits, 0.01 the denoiser
    adaptive: bool = False  # ctm: dsm as in the paper, by gradients; on small data it fades to 0.01
    weight: Literal["edm", "none"] = "edm"  # cd: of each level; none, the paper's, fails on mog128
    distance: Literal["squared", "lpips"] = "squared"  # of two ends; lpips: of images, the papers'
    size: int = 224  # pixels of lpips and of the adversarial loss, the papers' value
    adversarial: float = 0.0  # ctm: last share of the steps that has the adversarial loss
    gan: Literal["hinge", "bce"] = "hinge"  # adversarial: its form; hinge: as released
    features: tuple[str, ...] = ("deit", "efficientnet")  # through which the discriminator looks
    disc_lr: float = 2e-3  # RAdam's step size for the discriminator, as released
    start: Literal["teacher", "random"] = "teacher"  # weights at the start of training
    gamma: float = 0.0  # ctm: share of fresh noise in sampling, 0 to 1; the paper's numbers: 0
    nodes: Literal["auto", "karras", "uniform"] = "auto"  # auto: cd uniform; ctm karras, the paper
    levels: tuple[float, ...] = ()  # sampled levels after sigma_max, such as 1.382 for NFE 2
    sigma_min: float = 0.002  # lowest level, the papers' value
    sigma_max: float = 80.0  # highest level, the papers' value
    lr: float = 2e-3  # Adam's step size; the papers, with networks 100 times larger: 4e-4
    ema: float = 0.999  # decay of the weight average, which is the target too; the paper's value
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    def __post_init__(self):
        other = "cd" if self.variant == "ctm" else "ctm"
        for field in fields(self):
            if field.name in OF_ONE[other] and getattr(self, field.name) != field.default:
                raise FlowbenchError(f"{field.name} is an option of -o variant={other} only")
        most = self.kmax if self.variant == "ctm" else 1
        if not 1 <= most < self.grid:
            raise FlowbenchError(f"grid={self.grid} has no room for jumps of {most} steps")
        if not 0 <= self.gamma <= 1 or self.dsm < 0 or not 0 <= self.adversarial < 1:
            raise FlowbenchError("gamma and adversarial go from 0 to 1, and dsm is not negative")
        path = [self.sigma_max, *self.levels, self.sigma_min, 0.0]
        if self.adversarial:
            build.check(self.features, self.size)
        if sorted(set(path), reverse=True) != path:
            raise FlowbenchError("levels fall, from below sigma_max to above sigma_min > 0")

    @property
    def interval(self):
        """The canonical times over which the field is defined; cd has no field."""
        if self.variant == "cd":
            return None
        return 1 / (1 + self.sigma_max), 1 / (1 + self.sigma_min)

    @property
    def needs_weights(self):
        """The pretrained networks that the losses look through."""
        vgg = ("vgg16",) if self.distance == "lpips" else ()
        return vgg + (self.features if self.adversarial else ())

    def refuses_data(self, data):
        """Why this method cannot learn from `data`, or None."""
        if self.needs_weights and data.kind != "image":
            return "distance=lpips and adversarial are for images"
        return None

    def network(self, data):
        """The untrained g(x, t, y, s), or for cd the untrained f(x, t, y)."""
        if self.variant == "ctm":
            net = nets.default(data, width=self.width, times=2)
            return nets.Jumps(net, data.std).to(data.device)
        net = nets.default(data, width=self.width)
        return nets.Denoiser(net, data.std, "cm", sigma_min=self.sigma_min).to(data.device)

    def jump(self, network, x, t, s, y=None):
        """From `x` at noise levels `t` (B,) along the path to `s` (B,) <= t; cd ignores `s`."""
        if self.variant == "cd":
            return network(x, t, y)
        keep = like(s / t, x)
        return keep * x + (1 - keep) * network(x, t, y, s)

    @hookimpl
    def train(self, data, run, teacher):
        net = self.network(data)
        if self.start == "teacher" and not run.started and not run.stage("consistency").started:
            copy_weights(teacher.network, net, new="second")
        average = training.Average(net, self.ema)
        measure = self.measure(data, run)
        if not self.adversarial:
            return self.fit(net, average, data, run, teacher, measure)
        first, judge = (
            1 - self.adversarial,
            build.discriminator(data, run, self.features, self.size),
        )
        self.fit(net, average, data, run.stage("consistency", first), teacher, measure)
        stage = run.stage("adversarial", self.adversarial, first)
        return self.fit(net, average, data, stage, teacher, measure, judge)

    def fit(self, net, average, data, run, teacher, measure, judge=None):
        """Train `net` for one stage, whose averaged weights are a target."""
        objective = self.distillation if self.variant == "cd" else self.matching

        def loss(x, y):
            return objective(net, average.net, teacher, x, y, measure, judge)

        def both(x, y):
            levels, s = (part.to(x) for part in self.draw_jumps(len(x), x.device, self.kmax))
            noisy = x + like(levels[0], x) * torch.randn_like(x)
            with torch.no_grad():
                return (x, y), (self.estimate(net, average.net, noisy, levels[0], s, y), y)

        rows = Taught(data.train.values, data.train.labels, data.device, teacher)
        rival = judge and build.rival(judge, both, run, self.disc_lr, self.gan)
        return training.fit(net, loss, rows, run, lr=self.lr, average=average, rival=rival)

    def measure(self, data, run):
        """The distance of each row of two batches."""
        if self.distance == "lpips":
            return build.distance("lpips", data, run, self.size)
        return squared

    def distillation(self, net, averaged, teacher, x, y, measure=squared, judge=None):
        """Equal ends from neighbouring levels of a path (Song et al., Algorithm 2)."""
        levels = self.draw_jumps(len(x), x.device)[0].to(x)
        noisy = x + like(levels[0], x) * torch.randn_like(x)
        with torch.no_grad():
            after = solvers.heun_paths(teacher.denoiser, noisy, y, levels)
            target = (averaged if self.target == "ema" else net)(after, levels[1], y)
        error = measure(net(noisy, levels[0], y), target)
        return (error * net.weight(levels[0])).mean() if self.weight == "edm" else error.mean()

    def matching(self, net, averaged, teacher, x, y, measure=squared, judge=None):
        """Soft consistency matching, denoising, and the adversarial loss where it has begun."""
        end, target = self.ends(net, averaged, teacher, x, y)
        consistency, denoising = measure(end, target).mean(), self.denoising(net, x, y)
        last = nets.last_weight(net)
        balanced = adaptive_weight(consistency, denoising, last, 0, 1e4) if self.adaptive else None
        factor = self.dsm if balanced is None else balanced
        total = consistency + factor * denoising
        if judge is None:
            return total
        fooled = generator_loss(judge(end, y), self.gan)
        return total + adaptive_weight(consistency, fooled, last) * fooled

    def ends(self, net, averaged, teacher, x, y):
        """Ends of a jump from t to s, and of the teacher's steps to u, then a jump to s."""
        levels, s = (part.to(x) for part in self.draw_jumps(len(x), x.device, self.kmax))
        noisy = x + like(levels[0], x) * torch.randn_like(x)
        with torch.no_grad():
            after = solvers.heun_paths(teacher.denoiser, noisy, y, levels)
            inner = averaged if self.target == "ema" else net
            target = self.estimate(inner, averaged, after, levels[-1], s, y)
        return self.estimate(net, averaged, noisy, levels[0], s, y), target

    def estimate(self, net, averaged, noisy, t, s, y):
        """A jump of `net` from t to s, and from there one of the averaged network to the data.

        The averaged weights are constants, but a gradient passes through their network.
        """
        low = torch.full_like(s, self.sigma_min)
        return self.jump(averaged, self.jump(net, noisy, t, s, y), s, low, y)

    def denoising(self, net, x, y):
        """EDM's loss of g(x, t, t), half of it at high levels, as Kim et al. released it."""
        n, device = len(x), x.device
        usual = noise_levels.draw_log_normal(n // 2, -1.2, 1.2, device)
        place = 0.7 * torch.rand(n - n // 2, device=device)
        high = noise_levels.warp(place, self.sigma_min, self.sigma_max)
        sigma = torch.cat([usual, high]).to(x)
        noisy = x + like(sigma, x) * torch.randn_like(x)
        error = (net(noisy, sigma, y) - x).square().flatten(1).mean(1)
        return (net.weight(sigma) * error).mean()

    def draw_jumps(self, n, device, most=1):
        """Levels (k + 1, n) of a teacher's k steps, and ends s (n,): s <= u < t in each row.

        k is one for the batch, with P(k) ~ k up to `most`; where they leave room, the places i
        of t and j of s on the grid are uniform for each row.
        """
        k = int(torch.arange(1.0, most + 1).multinomial(1)) + 1
        i = torch.randint(self.grid - k, (n,), device=device)
        j = i + k + (torch.rand(n, device=device) * (self.grid - k - i)).long()
        grid = noise_levels.karras(self.grid, self.sigma_min, self.sigma_max).to(device)
        return grid[i + torch.arange(k + 1, device=device)[:, None]], grid[j]

    @hookimpl
    def sample(self, network, noise, labels, nfe, rng):
        low, gamma = self.sigma_min, 1.0 if self.variant == "cd" else self.gamma
        x, path = self.sigma_max * noise, self.path(nfe)
        for level, following in pairwise(path):
            s = low + math.sqrt(1 - gamma**2) * (following - low)
            t, end = x.new_full((len(x),), level), x.new_full((len(x),), s)
            x = self.jump(network, x, t, end, labels)
            if gamma and following > low:
                x = x + math.sqrt(following**2 - s**2) * rng()
        return x

    def path(self, nfe):
        """The nfe + 1 levels of the sampler, from `sigma_max` to `sigma_min`."""
        low, high = self.sigma_min, self.sigma_max
        if self.levels and nfe == len(self.levels) + 1:
            return [high, *self.levels, low]
        if self.nodes == "karras" or (self.nodes == "auto" and self.variant == "ctm"):
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

    @hookimpl
    def velocity(self, network, z, t, labels):
        return coordinates.velocity_of(network)(z, t, labels)
