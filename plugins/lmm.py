"""Lines Matching Models (Matityahu and Fattal 2024, arXiv:2412.06403)."""

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch

from flowbench import FlowbenchError, coordinates, hookimpl, nets, noise_levels, solvers, training
from flowbench.losses import build
from flowbench.losses.adversarial import balanced, generator_loss
from flowbench.pairs import heun_pairs
from flowbench.teacher import copy_weights

STEPS = {1: (0,), 2: (0, 1), 3: (0, 3, 5), 4: (0, 1, 3, 5)}  # the paper's Tables 7 to 9
PERCEPTUAL = ("lpips", "johnson")


@dataclass(frozen=True)
class LMM:
    """Predict the end of the straight line between noise and what a teacher makes of it."""

    teacher: ClassVar[str] = "edm"

    pairs: int | None = None  # how many; none: 40 000 vectors, 4000 images; the paper: 1 to 4 M
    pair_steps: int | None = None  # Heun's levels; none: 40 for vectors, 18 images; paper: 18, 40
    norm: Literal["squared", "l2", "l1", "lpips", "johnson"] = "squared"  # of eq. 3; paper: VGG's
    sizes: tuple[int, ...] = (64, 224)  # pixels of these losses, before and in the adversarial part
    adversarial: float = 0.0  # last share of the steps that has the adversarial loss; paper: 0.2
    lines: float = 0.5  # factor on eq. 3 beside the adversarial loss, the paper's lambda_lines
    gan: Literal["hinge", "bce"] = "hinge"  # adversarial loss; eq. 5 is bce, CTM's code has hinge
    features: tuple[str, ...] = ("deit", "efficientnet")  # through which the discriminator looks
    disc_lr: float = 2e-3  # RAdam's step size for the discriminator, the paper's value
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
        if not (0 <= self.sot < 1 and 0 <= self.adversarial < 1):
            raise FlowbenchError("sot and adversarial are shares of the steps, from 0 to below 1")
        if self.sot and self.sampler != "paper":
            raise FlowbenchError("sot trains the paper's steps only: add -o sampler=paper")
        if self.form == "line" and self.start == "teacher":
            raise FlowbenchError("form=line has weights of its own: add -o start=random")
        if len(self.sizes) != 2 or min(self.sizes) < 32:
            raise FlowbenchError("sizes are two numbers of pixels from 32 on, such as 64,224")
        if self.adversarial:
            build.check(self.features, self.sizes[1])
        steps = self.indices or STEPS[2]
        if steps[0] != 0 or sorted(set(steps)) != list(steps) or steps[-1] >= self.grid:
            raise FlowbenchError(f"indices start at 0, rise, and end below grid={self.grid}")

    @property
    def interval(self):
        """The canonical times over which the field is defined."""
        return 1 / (1 + self.sigma_max), 1 / (1 + self.sigma_min)

    @property
    def sampling_options(self):
        """Options without a part in training: runs that differ in these share their network."""
        return () if self.sot else ("sampler", "indices")

    @property
    def needs_weights(self):
        """The pretrained networks that the losses look through."""
        vgg = ("vgg16",) if self.norm in PERCEPTUAL else ()
        return vgg + (self.features if self.adversarial else ())

    def refuses_data(self, data):
        """Why this method cannot learn from `data`, or None."""
        if self.needs_weights and data.kind != "image":
            return "norm=lpips, norm=johnson and adversarial are for images"
        return None

    def network(self, data):
        """The untrained N(x, sigma, y)."""
        net = nets.default(data, width=self.width)
        return nets.Denoiser(net, data.std, self.form).to(data.device)

    @hookimpl
    def train(self, data, run, teacher):
        net, pairs = self.network(data), self.make_pairs(data, run, teacher)
        judge = None
        if self.adversarial:
            judge = build.discriminator(data, run, self.features, self.sizes[1])
        for begin, end in pairwise(self.marks):
            stage = run.stage(self.stage(begin), end - begin, begin)
            if begin:
                net = copy.deepcopy(net).train().requires_grad_(True)
            elif self.start == "teacher" and not stage.started:
                copy_weights(teacher.network, net)
            net = self.fit(net, data, pairs, stage, begin, judge)
        return net

    @property
    def marks(self):
        """The shares of the budget at which stages begin and end."""
        return sorted({0.0, 1 - self.adversarial, 1 - self.sot, 1.0})

    def stage(self, begin):
        """The name of the stage that begins at a share of the budget."""
        parts = (("adversarial", self.adversarial), ("sot", self.sot))
        return "-".join(name for name, share in parts if begin >= 1 - share) or "lines"

    def make_pairs(self, data, run, teacher):
        """The teacher's pairs, made when training first draws from them."""
        image = data.kind == "image"
        n = self.pairs or (4000 if image else 40_000)
        levels = self.pair_steps or (18 if image else 40)
        return heun_pairs(teacher, data, run, n, levels, self.sigma_min, self.sigma_max)

    def fit(self, net, data, pairs, run, begin, judge):
        """Minimise eq. 3 over `pairs`, with eq. 5 by a discriminator where it has begun."""
        judge = judge if begin >= 1 - self.adversarial else None
        draw = self.draw_sampled if begin >= 1 - self.sot else self.draw_sigmas
        measure = self.measure(data, run, self.sizes[judge is not None])

        def predict(noise, x, y):
            sigma = draw(len(x), x.device)
            return sigma, net(x + coordinates.like(sigma, x) * noise, sigma, y)

        def loss(noise, x, y):
            sigma, end = predict(noise, x, y)
            lines = (self.weights(net, sigma) * measure(end, x)).mean()
            if judge is None:
                return lines
            fooled = generator_loss(judge(end, y), self.gan)
            return balanced(end, lines, fooled, nets.last_weight(net), self.lines)

        def both(noise, x, y):
            with torch.no_grad():
                end = predict(noise, x, y)[1]
            return data.train.draw(torch.randint(len(data.train), (len(x),))), (end, y)

        rival = judge and build.rival(judge, both, run, self.disc_lr, self.gan)
        return training.fit(net, loss, pairs, run, lr=self.lr, ema=self.ema, rival=rival)

    def measure(self, data, run, size):
        """The norm of eq. 3 for each row of two batches; of pixels, it is per entry."""
        if self.norm in PERCEPTUAL:
            return build.distance(self.norm, data, run, size)
        if self.norm == "l1":
            return lambda end, x: (end - x).abs().flatten(1).mean(1)
        squared = self.norm == "squared"

        def pixels(end, x):
            error = (end - x).square().flatten(1).mean(1)
            return error if squared else (error + 1e-12).sqrt()

        return pixels

    def weights(self, net, sigma):
        """The factor on each row's norm at its level; l1 and l2 are no squares."""
        if self.weight == "none":
            return torch.ones_like(sigma)
        return net.weight(sigma).sqrt() if self.norm in ("l1", "l2") else net.weight(sigma)

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
