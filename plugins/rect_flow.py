"""Rectified flow (Liu, Gong and Liu 2022, arXiv:2209.03003): a flow straightened on its own pairs,
then distilled; with options of 2-RF++ (Lee, Lin and Fanti 2024, arXiv:2405.20320)."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from flowbench import FlowbenchError, coordinates, hookimpl, nets, solvers, training
from flowbench.metrics.modes import share_within
from flowbench.noise import balanced_labels, unit_noise
from flowbench.pairs import Pairs, heun_pairs

FLOW = (0.0, 1.0)  # the interval of a teacher that is a flow and no denoiser
STEEPNESS = 4.0  # of the U-shaped law of times (2-RF++)
HUBER = 0.00054  # the pseudo-Huber constant over the dimension (2-RF++)
STEPS = 20  # Heun's, along a teacher's ODE
ROWS = 500  # endpoints behind a drift
# What only a flow with pairs has; the teachers of a later one have the same.
PAIRED = ("pairs", "pair_solver", "pair_steps", "inverse", "start")
SHARED = (*PAIRED, "times", "loss", "tolerance")


@dataclass(frozen=True)
class RectFlow:
    """Straighten a flow k - 1 times on pairs of noise and the sample made of it; distil if asked.

    k = 1 learns from data. Each later one, and each distilled one, learns from a teacher: the flow
    before it, trained with the same seed and budget, unless another one is named.
    """

    k: int = 2  # rectifications; 1: independent noise, no pairs; the paper: 1 to 3
    distil: int = 0  # steps that the k-th flow is distilled to; 0: not distilled
    pairs: int | None = None  # how many; none: 40 000 vectors, 4000 images; the paper: 1 M or more
    pair_solver: Literal["heun", "dopri5"] = "heun"  # of the teacher's ODE; the paper: RK45, 1e-5
    pair_steps: int | None = None  # Heun's; none: 20, for an edm teacher 40 vectors, 18 images
    inverse: float = 0.0  # share of the pairs that start from data, back along the teacher's ODE
    times: Literal["uniform", "u-shaped"] = "uniform"  # u-shaped: e^4t + e^4(1-t), 2-RF++'s
    loss: Literal["squared", "huber"] = "squared"  # of the velocity; huber: 2-RF++'s, c = 0.00054 d
    start: Literal["teacher", "random"] = "teacher"  # weights at the start; teacher: its average
    solver: Literal["euler", "midpoint", "heun", "dopri5"] = "euler"  # dopri5 needs --nfe auto
    tolerance: float = 1e-5  # dopri5: relative and absolute, the paper's value
    lr: float = 2e-3  # Adam's step size; the paper, with networks 100 times larger: 2e-4
    ema: float = 0.999  # decay of the weight average; the paper: 0.999999, later flows 0.9999
    width: int | None = None  # of the network; none: 128 for vectors, 32 for images

    def __post_init__(self):
        if self.k < 1 or self.distil < 0:
            raise FlowbenchError("k counts rectifications from 1, distil counts steps from 0")
        counts = [n for n in (self.pairs, self.pair_steps) if n is not None]
        if min(counts, default=1) < 1 or not 0 <= self.inverse < 1:
            raise FlowbenchError("pairs and pair_steps are at least 1, inverse is in [0, 1)")
        if self.distil and (self.times, self.solver) != ("uniform", "euler"):
            raise FlowbenchError("distil trains Euler's own steps: leave times and solver out")
        for name in PAIRED if self.teacher is None else ():
            if getattr(self, name) != getattr(type(self), name):
                raise FlowbenchError(
                    f"k=1 learns from data, not pairs: leave {name} out, or -o k=2"
                )

    @property
    def teacher(self):
        """The method that makes the pairs; None where there are none."""
        return "rect-flow" if self.k > 1 or self.distil else None

    @property
    def teacher_options(self):
        """The flow that this one straightens, or distils."""
        k = self.k if self.distil else self.k - 1
        names = ("lr", "ema", "width") + (SHARED if k > 1 else ())
        return {"k": k} | {name: getattr(self, name) for name in names}

    @property
    def interval(self):
        """All times; None where only those of the distilled steps are trained."""
        return None if self.distil else FLOW

    def network(self, data):
        """The untrained velocity v(z, t, y)."""
        return nets.default(data, width=self.width).to(data.device)

    @hookimpl
    def train(self, data, run, teacher):
        net = self.network(data)
        source = data.train if teacher is None else self.make_pairs(data, run, teacher)

        def loss(*batch):  # (x, y) of the data, or (noise, x, y) of pairs
            noise, x, y = batch if teacher else (torch.randn_like(batch[0]), *batch)
            t = self.draw_times(len(x), x.device)
            z = torch.lerp(noise, x, coordinates.like(t, x))
            return self.norm((net(z, t, y) - (x - noise)).flatten(1)).mean()

        if teacher and self.start == "teacher" and not run.started:
            copy_weights(teacher, net)
        return training.fit(net, loss, source, run, lr=self.lr, ema=self.ema)

    def draw_times(self, n, device):
        """Canonical times of one training batch, (n,); of a distilled flow, its own steps."""
        if self.distil:
            return torch.randint(self.distil, (n,), device=device) / self.distil
        t = torch.rand(n, device=device)
        if self.times == "uniform":
            return t
        t = torch.log1p(t * math.expm1(STEEPNESS)) / STEEPNESS
        return torch.where(torch.rand(n, device=device) < 0.5, t, 1 - t)

    def norm(self, error):
        """The loss of each row of velocity errors (B, D), over D; the same weight at all times."""
        if self.loss == "squared":
            return error.square().mean(1)
        dim = error.shape[1]
        return ((error.square().sum(1) + (HUBER * dim) ** 2).sqrt() - HUBER * dim) / dim

    def make_pairs(self, data, run, teacher):
        """Pairs of noise and sample, made when training first draws from them."""
        n = self.pairs or (4000 if data.kind == "image" else 40_000)
        inverse = min(round(self.inverse * n), n - 1)
        forward = self.forward_pairs(data, run, teacher, n - inverse)
        if not inverse:
            return forward
        return Joined(forward, self.inverse_pairs(data, run, teacher, inverse))

    def forward_pairs(self, data, run, teacher, n):
        """From noise to sample; of a denoising teacher the same pairs that LMM learns from."""
        if teacher.interval == FLOW:
            follow = partial(self.follow, teacher.velocity)
            return Pairs(follow, partial(self.facts, teacher), data, n, run)
        if self.pair_solver != "heun":
            raise FlowbenchError("a teacher that denoises makes pairs by pair_solver=heun only")
        levels = self.pair_steps or (18 if data.kind == "image" else 40)
        # Rounded: 1 / (1 / 1.002) - 1 is not 0.002, and equal levels are to share their pairs.
        high, low = (round(1 / t - 1, 9) for t in teacher.interval)
        return heun_pairs(teacher, data, run, n, levels, low, high)

    def inverse_pairs(self, data, run, teacher, n):
        """From rows of data to the noise that the teacher's flow would make them of."""
        generator = torch.Generator().manual_seed(run.seed)
        order = torch.randperm(len(data.train), generator=generator)

        def start(indices):
            return data.train.draw(order[torch.tensor(indices) % len(order)])

        def facts():
            return self.facts(teacher) | {"inverse": data.sha256}

        return Pairs(partial(self.invert, teacher), facts, data, n, run, start, inverse=True)

    def invert(self, teacher, x, y):
        """Noise (B, *shape) that the teacher's ODE leads to `x`."""
        begin, end = teacher.interval
        return self.follow(teacher.velocity, end * x, y, end, begin) / (1 - begin)

    def follow(self, velocity, z, y, begin=0.0, end=1.0):
        """The end of the ODE from `z` (B, *shape), by the solver of the pairs."""
        if self.pair_solver == "dopri5":
            return solvers.dopri5(velocity, z, y, self.tolerance, self.tolerance, begin, end)
        return solvers.heun(velocity, z, y, 2 * (self.pair_steps or STEPS), begin, end)

    def facts(self, teacher):
        """What the pairs depend on."""
        accuracy = self.tolerance if self.pair_solver == "dopri5" else self.pair_steps or STEPS
        return {"teacher": teacher.key, "sampler": self.pair_solver, "accuracy": accuracy}

    @hookimpl
    def measure(self, network, data, run, teacher):
        """How far it moves samples, and how far from where its teacher does; of new noise.

        "transport": mean square of end - noise per coordinate. "drift": root mean square per
        coordinate of its end - its teacher's, mean over noises. "pairs-in-mode" and "pairs-scale"
        (root mean square over the data's): how good the teacher's ends are. "inverse-std":
        standard deviation of the noise found for data, 1 at best.
        """
        noise = unit_noise(0, range(ROWS), data.shape, device=data.device)
        y = balanced_labels(range(ROWS), data.classes, data.device)
        if self.distil:
            ends = solvers.euler(network, noise, y, self.distil)
        else:
            ends = self.follow(network, noise, y)
        scores = {"transport": (ends - noise).square().mean().item()}
        if teacher is not None:
            target = self.forward_pairs(data, run, teacher, ROWS).sample(noise, y)
            drift = (ends - target).flatten(1).square().mean(1).sqrt().mean()
            scores |= {"drift": drift.item(), **self.measure_pairs(target, data, teacher)}
        return scores

    def measure_pairs(self, ends, data, teacher):
        """What there is to know of the teacher's `ends` (B, *shape), and of noise for data."""
        x, y = data.train.spread(ROWS)
        scores = {"pairs-scale": (ends.square().mean() / x.square().mean()).sqrt().item()}
        if data.modes is not None:
            scores["pairs-in-mode"] = share_within(ends, data.modes)
        if self.inverse:
            scores["inverse-std"] = self.invert(teacher, x, y).std().item()
        return scores

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        if nfe is None:
            return solvers.dopri5(network, noise, labels, self.tolerance, self.tolerance)
        rule = {"euler": solvers.euler, "midpoint": solvers.midpoint, "heun": solvers.heun}
        return rule[self.solver](network, noise, labels, nfe)

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        if self.distil and nfe != self.distil:
            return f"it is distilled to {self.distil}: take --nfe {self.distil}, or -o distil=0"
        if (nfe is None) == (self.solver == "dopri5"):
            return None
        return "only --nfe auto goes with solver=dopri5, and only solver=dopri5 with --nfe auto"

    @hookimpl
    def velocity(self, network, z, t, labels):
        return network(z, t, labels)


class Joined:
    """Two sets of pairs as one."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def __len__(self):
        return len(self.first) + len(self.second)

    def prepare(self):
        """Make what is missing of both."""
        self.first.prepare()
        self.second.prepare()

    def draw(self, rows):
        """(noise, sample, label) of the given pairs: those of the first set come first."""
        n = len(self.first)
        mine, others = self.first.draw(rows[rows < n]), self.second.draw(rows[rows >= n] - n)
        return tuple(
            None if a is None else torch.cat([a, b]) for a, b in zip(mine, others, strict=True)
        )


def copy_weights(teacher, net):
    """Start from the teacher's weights; raises FlowbenchError where the networks differ."""
    try:
        if teacher.interval != FLOW:
            raise RuntimeError("a denoiser")
        net.load_state_dict(teacher.network.state_dict())
    except RuntimeError as error:
        raise FlowbenchError(
            "start=teacher needs a flow of the same network as teacher: add -o start=random"
        ) from error
