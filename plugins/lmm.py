"""Lines Matching Models (Matityahu and Fattal 2024, arXiv:2412.06403)."""

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from flowbench import FlowbenchError, coordinates, hookimpl, nets, noise_levels, solvers, training
from flowbench.pairs import heun_pairs

STEPS = {1: (0,), 2: (0, 1), 3: (0, 3, 5), 4: (0, 1, 3, 5)}  # the paper's Tables 7 to 9


@dataclass(frozen=True)
class LMM:
    """Predict the end of the straight line between noise and what a teacher makes of it."""

    teacher: ClassVar[str] = "edm"

    pairs: int | None = None  # how many; none: 40 000 vectors, 4000 images; the paper: 1 to 4 M
    pair_steps: int | None = None  # Heun's levels; none: 40 for vectors, 18 images; paper: 18, 40
    norm: Literal["squared", "l2", "l1"] = "squared"  # of eq. 3; l2: as the paper writes it
    sigmas: Literal["mix", "karras", "uniform", "grid", "log-normal"] = "mix"  # of training levels
    weight: Literal["edm", "none"] = "edm"  # of each level; none: as the paper writes eq. 3
    form: Literal["edm", "line"] = "edm"  # preconditioning; line: D = z + (1-t) F(z, t)
    start: Literal["teacher", "random"] = "teacher"  # weights at the start of training
    sot: float = 0.0  # last share of the steps that trains on the sampled levels only
    sampler: Literal["line", "paper"] = "line"  # line: the straight ODE; paper: fresh noise
    indices: tuple[int, ...] = ()  # paper: other step indices than (0), (0,1), (0,3,5), (0,1,3,5)
    grid: int = 18  # levels of the grid that indices count on; the paper: 18 or 40
    sigma_min: float = 0.002  # lowest level, the paper's value
    sigma_max: float = 80.0  # highest level, the paper's value
    lr: float = 2e-3  # Adam's step size; the paper, with networks 100 times larger: 4e-4
    ema: float = 0.999  # decay of the weight average, the paper's value
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    def __post_init__(self):
        if not 0 <= self.sot < 1:
            raise FlowbenchError(f"sot is a share of the steps, from 0 to below 1, not {self.sot}")
        if self.sot and self.sampler != "paper":
            raise FlowbenchError("sot trains the paper's steps only: add -o sampler=paper")
        if self.form == "line" and self.start == "teacher":
            raise FlowbenchError("form=line has weights of its own: add -o start=random")
        steps = self.indices or STEPS[2]
        if steps[0] != 0 or sorted(set(steps)) != list(steps) or steps[-1] >= self.grid:
            raise FlowbenchError(f"indices start at 0, rise, and end below grid={self.grid}")

    @property
    def interval(self):
        """The canonical times over which the field is defined."""
        return 1 / (1 + self.sigma_max), 1 / (1 + self.sigma_min)

    def network(self, data):
        """The untrained N(x, sigma, y)."""
        net = nets.default(data, width=self.width)
        return nets.Denoiser(net, data.std, self.form).to(data.device)

    @hookimpl
    def train(self, data, run, teacher):
        net = self.network(data)
        pairs = self.make_pairs(data, run, teacher)
        lines = run.stage("lines", 1 - self.sot)
        if self.start == "teacher" and not lines.started:
            self.copy_weights(teacher.network, net)
        net = self.fit(net, self.draw_sigmas, pairs, lines)
        if self.sot:
            net = copy.deepcopy(net).train().requires_grad_(True)
            net = self.fit(net, self.draw_sampled, pairs, run.stage("sot", after=lines))
        return net

    def make_pairs(self, data, run, teacher):
        """The teacher's pairs, made when training first draws from them."""
        image = data.kind == "image"
        n = self.pairs or (4000 if image else 40_000)
        levels = self.pair_steps or (18 if image else 40)
        return heun_pairs(teacher, data, run, n, levels, self.sigma_min, self.sigma_max)

    def copy_weights(self, source, net):
        """Start from the teacher's weights; raises FlowbenchError where the networks differ."""
        try:
            if getattr(source, "form", None) != net.form:
                raise RuntimeError("another preconditioning")
            net.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise FlowbenchError("start=teacher needs a teacher of the same network") from error

    def fit(self, net, draw, pairs, run):
        """Minimise eq. 3 over `pairs`, at noise levels that `draw` gives."""

        def loss(noise, x, y):
            sigma = draw(len(x), x.device)
            error = net(x + coordinates.like(sigma, x) * noise, sigma, y) - x
            if self.weight == "edm":
                error = error * coordinates.like(net.weight(sigma).sqrt(), x)
            return self.measure(error.flatten(1)).mean()

        return training.fit(net, loss, pairs, run, lr=self.lr, ema=self.ema)

    def measure(self, error):
        """The norm of eq. 3 for each row of `error` (B, D), per entry."""
        if self.norm == "l1":
            return error.abs().mean(1)
        squared = error.square().mean(1)
        return squared if self.norm == "squared" else (squared + 1e-12).sqrt()

    def draw_sigmas(self, n, device):
        """Noise levels of one training batch, (n,), after the option `sigmas`."""
        low, high = self.sigma_min, self.sigma_max
        if self.sigmas == "karras":
            return noise_levels.draw_karras(n, low, high, 7.0, device)
        if self.sigmas == "uniform":
            return noise_levels.draw_uniform(n, low, high, device)
        if self.sigmas == "grid":
            return noise_levels.draw_from(self.levels(), n, device)
        if self.sigmas == "log-normal":
            return noise_levels.draw_log_normal(n, -1.2, 1.2, device)
        # One step starts at sigma_max, which the continuous laws hardly ever draw.
        top = torch.full((n // 8,), high, device=device)
        karras = noise_levels.draw_karras(3 * n // 8, low, high, 7.0, device)
        rest = n - len(top) - len(karras)
        return torch.cat([top, karras, noise_levels.draw_uniform(rest, low, high, device)])

    def draw_sampled(self, n, device):
        """The levels of one and two steps only (the paper's SOT)."""
        sampled = self.indices or STEPS[2]
        return noise_levels.draw_from(self.levels()[list(sampled)], n, device)

    def levels(self):
        """The grid that step indices count on."""
        return noise_levels.karras(self.grid, self.sigma_min, self.sigma_max)

    @hookimpl
    def sample(self, network, noise, labels, nfe, rng):
        x = self.sigma_max * noise
        if self.sampler == "line":
            levels = noise_levels.uniform(nfe, self.sigma_max)
            return solvers.sigma_euler(network, x, labels, levels)
        top, *others = self.steps(nfe)
        end = network(x, x.new_full((len(x),), top), labels)
        for sigma in others:
            end = network(end + sigma * rng(), x.new_full((len(x),), sigma), labels)
        return end

    def steps(self, nfe):
        """The noise levels of the paper's sampler, from the top."""
        chosen = self.indices if len(self.indices) == nfe else STEPS[nfe]
        return self.levels()[list(chosen)].tolist()

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        if nfe is None:
            return "it has no adaptive solver"
        sampled = self.indices or STEPS[2]
        if self.sot and nfe not in (1, len(sampled)):
            return f"it is trained (sot) for 1 and {len(sampled)} evaluations only"
        if self.sampler == "paper" and nfe not in (*STEPS, len(self.indices)):
            return "the paper has steps for 1 to 4; add -o sampler=line or -o indices=..."
        if self.sampler == "paper" and len(self.indices) != nfe and STEPS[nfe][-1] >= self.grid:
            return f"its steps {STEPS[nfe]} do not fit on a grid of {self.grid}"
        return None

    @hookimpl
    def velocity(self, network, z, t, labels):
        return coordinates.velocity_of(network)(z, t, labels)
