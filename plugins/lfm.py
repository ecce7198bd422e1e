"""Local Flow Matching (Xu, Cheng and Xie 2024, arXiv:2410.02548): a chain of small flows."""

from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate, pairwise
from math import exp, expm1, pi, sqrt
from typing import Literal

import torch
from torch.distributions import Beta

from flowbench import FlowbenchError, coordinates, hookimpl, nets, solvers, training
from flowbench.data.pushed import ROWS, Pushed, drift
from flowbench.metrics.straightness import straightness
from flowbench.nets.chain import Chain
from flowbench.noise import balanced_labels, unit_noise
from flowbench.pairs import Pairs

RULES = {"euler": solvers.euler, "midpoint": solvers.midpoint, "heun": solvers.heun}
INSIDE = 1e-6  # how far from a jump the teacher's field is evaluated


def interpolate(path, begin, end, tau):
    """The point at `tau` in [0, 1] (broadcast) of a path from `begin` to `end`, and its slope."""
    if path == "linear":
        return torch.lerp(begin, end, tau), end - begin
    cosine, sine = torch.cos(pi / 2 * tau), torch.sin(pi / 2 * tau)
    return cosine * begin + sine * end, pi / 2 * (cosine * end - sine * begin)


@dataclass(frozen=True)
class LFM:
    """Carry data to noise through small flows, one after the other; sample by the way back.

    Each but the last learns an Ornstein-Uhlenbeck step of what it is given, the last one the rest
    of the way. Together they have the parameters of one flow of the other methods.
    """

    blocks: int = 4  # K, the last of which ends in pure noise; the paper: 4 for images
    c: float = 0.1  # Ornstein-Uhlenbeck time of the first block; the paper: 0.025 to 0.5
    rho: float = 1.5  # factor from one block's time to the next; the paper: 1 to 1.5
    path: Literal["linear", "trig"] = "linear"  # interpolant; the paper has both
    last: Literal["same", "linear", "trig"] = "same"  # interpolant of the last block
    coupling: Literal["dependent", "shuffled", "independent"] = "dependent"  # of the ends; paper's
    times: tuple[float, float] = (1.0, 1.0)  # Beta law of block times; the paper: 1,1 and 1,0.5
    warm: bool = True  # each block starts with the weights of the one before, as in the paper
    schedule: Literal["front", "even"] = "front"  # steps of blocks: 1, 1/2, 1/4, 1/4; paper: even
    push: int = 4  # midpoint steps that carry the data through a block; the paper: dopri5
    distil: int = 0  # jumps that the chain is distilled to, 1 to K; 0: not distilled
    pairs: int | None = None  # distil: how many; none: 40 000 vectors, 4000 images
    pair_steps: int = 10  # distil: midpoint steps in each block behind a pair
    solver: Literal["euler", "midpoint", "heun", "dopri5"] = "midpoint"  # dopri5: --nfe auto
    tolerance: float = 1e-5  # dopri5: relative and absolute; the paper: 1e-5 to 1e-3
    lr: float = 2e-3  # Adam's step size; the paper, with networks 100 times larger: 1e-4
    ema: float = 0.999  # decay of the weight average; the paper, with longer training: 0.9999
    width: int | None = None  # of each network; none: together they have one flow's parameters

    def __post_init__(self):
        if self.blocks < 1 or self.push < 1 or self.pair_steps < 1 or (self.pairs or 1) < 1:
            raise FlowbenchError("blocks, push, pairs and pair_steps are at least 1")
        if self.c <= 0 or self.rho <= 0 or min(self.times) <= 0:
            raise FlowbenchError("c, rho and both numbers of times are above 0")
        if not 0 <= self.distil <= self.blocks:
            raise FlowbenchError(f"distil is 0 or a number of jumps up to blocks={self.blocks}")

    @property
    def teacher(self):
        """Whom jumps learn from: a chain with otherwise equal options."""
        return "lfm" if self.distil else None

    @property
    def teacher_options(self):
        """The options of that chain, where they are not the defaults."""
        names = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return {n: getattr(self, n) for n in names if n not in ("distil", "pairs", "pair_steps")}

    @property
    def signals(self):
        """(alpha, beta), left of the data and added of noise, behind 0 to K blocks."""
        totals = accumulate((self.c * self.rho**n for n in range(self.blocks - 1)), initial=0.0)
        return [*((exp(-total), sqrt(-expm1(-2 * total))) for total in totals), (0.0, 1.0)]

    @property
    def edges(self):
        """The canonical times alpha / (alpha + beta) of the blocks' ends, from noise to data."""
        return tuple(alpha / (alpha + beta) for alpha, beta in reversed(self.signals))

    @property
    def knots(self):
        """The canonical times at which blocks meet."""
        return () if self.distil else self.edges[1:-1]

    @property
    def interval(self):
        """The canonical times over which the field is defined; jumps have none."""
        return None if self.distil else (0.0, 1.0)

    @property
    def shares(self):
        """The part of the budget of each block; both schedules spend the same."""
        front = [max(0.25, 0.5**n) for n in range(self.blocks)]
        return front if self.schedule == "front" else [sum(front) / self.blocks] * self.blocks

    def network(self, data):
        """The untrained networks, one for each block or jump."""
        count = self.distil or self.blocks
        width = self.width or nets.width_for(data, nets.parameters_of(data) / count)
        return Chain(nets.default(data, width) for _ in range(count)).to(data.device)

    @hookimpl
    def train(self, data, run, teacher):
        chain = self.network(data)
        if self.distil:
            return self.train_jumps(chain, data, run, teacher)
        pool = Pushed(data, run, self.push, self.signals)
        for n, share in enumerate(self.shares):
            net = chain.blocks[n]
            if n and self.warm:
                net.load_state_dict(chain.blocks[n - 1].state_dict())
            stage, loss = run.stage(f"block-{n + 1}", share), partial(self.loss, net, n, pool)
            chain.blocks[n] = training.fit(net, loss, pool, stage, lr=self.lr, ema=self.ema)
            pool.flows.append(chain.blocks[n])
        pool.close()
        return chain

    def loss(self, net, n, pool, x, y):
        """The flow matching loss of block `n` on a batch of the pool."""
        tau, free = Beta(*self.times).sample((len(x),)).to(x.device), n == self.blocks - 1
        end = torch.randn_like(x) if free else self.draw_end(n, pool, x, y)
        path = self.last if free and self.last != "same" else self.path
        state, slope = interpolate(path, x, end, coordinates.like(tau, x))
        return (net(state, tau, y) - slope).square().mean()

    def draw_end(self, n, pool, x, y):
        """a x + b noise for the OU step of block `n`, of the rows `x` or of others (`coupling`)."""
        if self.coupling == "shuffled":
            classes = 0 if y is None else y  # each row is exchanged for one of its class
            old, new = ((torch.rand_like(x.flatten(1)[:, 0]) + classes).argsort() for _ in "12")
            x = x.index_copy(0, old, x[new])
        elif self.coupling == "independent":
            x = pool.others(len(x), y)
        gamma = self.c * self.rho**n
        return exp(-gamma) * x + sqrt(-expm1(-2 * gamma)) * torch.randn_like(x)

    def train_jumps(self, chain, data, run, teacher):
        """Learn each jump between states that the teacher's chain passes, from noise to data."""
        if teacher.interval != (0.0, 1.0):
            raise FlowbenchError("distil needs a teacher whose field is defined from 0 to 1: lfm")
        count = self.pairs or (4000 if data.kind == "image" else 40_000)
        facts = {"edges": self.edges, "stops": self.stops, "steps": self.pair_steps}
        sample = partial(self.pass_through, teacher.velocity)
        pairs = Pairs(sample, lambda: {"teacher": teacher.key, **facts}, data, count, run)
        for i in range(self.distil):
            net, loss = chain.blocks[-1 - i], partial(self.jump_loss, chain, i)
            stage = run.stage(f"jump-{i + 1}")
            chain.blocks[-1 - i] = training.fit(net, loss, pairs, stage, lr=self.lr, ema=self.ema)
        return chain

    @property
    def stops(self):
        """The canonical times to which jumps lead: some or all of the edges."""
        numbers = [round(i * self.blocks / self.distil) for i in range(1, self.distil + 1)]
        return [self.edges[number] for number in numbers]

    def pass_through(self, velocity, z, labels):
        """The states at the stops on the way of `z` from noise, (B, jumps, *shape)."""
        states, evaluations = [], 2 * self.pair_steps
        for begin, end in pairwise(self.edges):
            z = solvers.midpoint(velocity, z, labels, evaluations, begin + INSIDE, end)
            states += [z] if end in self.stops else []
        return torch.stack(states, 1)

    def jump_loss(self, chain, i, noise, states, y):
        """The squared error of jump `i` from noise, where `states` are those at the stops."""
        start = states[:, i - 1] if i else noise
        return (self.jump(chain, i, start, y) - states[:, i]).square().mean()

    def jump(self, network, i, x, labels):
        """Jump `i` from noise."""
        return x + network(x, x.new_ones(len(x)), labels, self.distil - 1 - i)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        x = noise
        for i in range(self.distil):
            x = self.jump(network, i, x, labels)
        for n in [] if self.distil else reversed(range(self.blocks)):
            back = partial(self.back, network, n)
            if nfe is None:
                x = solvers.dopri5(back, x, labels, self.tolerance, self.tolerance)
            else:
                x = RULES[self.solver](back, x, labels, self.divide(nfe, n))
        return x

    def divide(self, nfe, n):
        """The evaluations of block `n`: whole steps, most for the last; an odd one first."""
        step = 1 if self.solver == "euler" or nfe < 2 * self.blocks else 2
        return step * ((nfe // step + n) // self.blocks) + nfe % step * (n == 0)

    def back(self, network, n, x, t, labels):
        """The field that leads from the noise side (t = 0) of block `n` to its data side."""
        return -network(x, 1 - t, labels, n)

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        if self.distil:
            return None if nfe == self.distil else f"its jumps take --nfe {self.distil}"
        if (nfe is None) != (self.solver == "dopri5"):
            return "only --nfe auto goes with solver=dopri5, and only solver=dopri5 with --nfe auto"
        few = nfe is not None and nfe < self.blocks
        return f"it has {self.blocks} blocks: add -o distil={nfe}, or take more" if few else None

    def locate(self, t):
        """The edges (K+1,), and which of the K parts between them the times (B,) lie in."""
        edges = t.new_tensor(self.edges)
        return edges, torch.bucketize(t.contiguous(), edges[1:-1], right=True)

    @hookimpl
    def velocity(self, network, z, t, labels):
        edges, place = self.locate(t)
        length = edges.diff()[place]
        field = network(z, (edges[place + 1] - t) / length, labels, self.blocks - 1 - place)
        return -field / coordinates.like(length, z)

    def scaled(self, network, z, t, labels):
        """The field of z = x / (alpha + beta) at the edges, the factor linear in between."""
        edges, place = self.locate(t)
        factors = 1 / t.new_tensor(self.signals).sum(1).flip(0)
        slope = (factors.diff() / edges.diff())[place]
        factor = coordinates.like(factors[place] + slope * (t - edges[place]), z)
        field = self.velocity(network, z / factor, t, labels)
        return coordinates.like(slope, z) / factor * z + factor * field

    @hookimpl
    def measure(self, network, data, run):
        if self.distil:
            return {}
        rows = range(1000 if data.kind == "vector" else 250)
        z = unit_noise(0, rows, data.shape, device=data.device)
        y = balanced_labels(rows, data.classes, data.device)
        found = {"S-scaled": straightness(partial(self.scaled, network), z, y, knots=self.knots)[0]}
        for n in reversed(range(self.blocks)):
            back = partial(self.back, network, n)
            found[f"block-{n + 1}-S"] = straightness(back, z, y)[0]
            z = solvers.midpoint(back, z, y, 2 * self.pair_steps)
        x, y = data.train.spread(ROWS)
        for n in range(self.blocks - 1):
            x = solvers.midpoint(partial(network, block=n), x, y, 2 * self.push)
            found[f"block-{n + 1}-drift"] = drift(data, x, self.signals[n + 1])
        return found
