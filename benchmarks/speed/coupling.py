"""Exact optimal transport: seconds of a coupling, and what it adds to a training step.

The step is that of 32x32 images, with a network so small that the coupling has little to hide
behind: the worker thread makes the next pool while a step computes.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.speed import networks
from benchmarks.speed.harness import LeftOut, Result, Work, alternate, missing, repeat
from benchmarks.speed.loops import Bare
from flowbench import coupling
from flowbench.coordinates import like
from flowbench.data.base import Data, Split
from flowbench.records import Budget
from flowbench.training import Run

SIZES, FEW = (64, 128, 256, 512, 1024), (16, 32)
AGAINST = "torchcfm 1.0.7's OTPlanSampler"
BATCH = 256  # rows of a training step, and of its coupling


def measure(quick: bool) -> Iterator[Result | LeftOut]:
    """The coupling alone at each n, then steps with it, beside them and before them."""
    yield from alone(quick)
    yield from in_steps(quick)


def alone(quick: bool) -> Iterator[Result | LeftOut]:
    """Which noise goes with which image: ours against torchcfm's, both by POT's exact solver."""
    reason = missing("torchcfm")
    if reason is not None:
        yield LeftOut("coupling against torchcfm", reason)
    for n in FEW if quick else SIZES:
        noise, x = torch.randn(n, 3, 32, 32), torch.rand(n, 3, 32, 32) * 2 - 1
        generator = torch.Generator().manual_seed(0)

        def ours(noise=noise, x=x, generator=generator) -> Tensor:
            return noise[coupling.couple(coupling.exact, noise, x, None, generator)]

        name, facts = f"exact coupling of 32x32 images, n={n}", {"n": n}
        repeats, most = (3, 1.0) if quick else (7, 5.0)
        if reason is not None:
            yield Result(name, "", repeat(ours, repeats), unit="ms", facts=facts)
            continue
        times = alternate(ours, _theirs(noise, x), repeats, 1, most)
        yield Result(name, AGAINST, *times, "ms", facts=facts)


def _theirs(noise: Tensor, x: Tensor) -> Work:
    from torchcfm.optimal_transport import OTPlanSampler

    sampler = OTPlanSampler(method="exact")
    return lambda: sampler.sample_plan(noise, x)


def in_steps(quick: bool) -> Iterator[Result]:
    """A step whose noise is coupled, against the same step with independent noise."""
    case = networks.small_images(quick, 16 if quick else BATCH)
    data = Data(case.name, Split(case.values, None, case.device), None, 0, 1.0, "")
    run = Run(Budget(1000, case.batch))
    for prefetch, words in ((True, "made by the worker"), (False, "made before the step")):
        plain, other = Bare(case, independent, 1000), Bare(case, independent, 1000)
        with coupling.Coupled(data, run, case.batch, prefetch=prefetch) as source:
            step = _coupled_step(other, source)
            times = alternate(step, plain.step, 3 if quick else 5, 1, 12.0)
        name = f"training step, {case.name}, exact coupling n={case.batch} {words}"
        facts = {"n": case.batch, "threads": torch.get_num_threads()}
        goal = "at most 1.05" if prefetch else ""
        yield Result(name, "independent noise", *times, "ms", goal, facts=facts)


def _coupled_step(loop: Bare, source: coupling.Coupled) -> Callable[[], Tensor]:
    """A step of the bare loop on rows and noise of `source`, whatever rows it draws itself."""
    rows = torch.arange(loop.case.batch)

    def step() -> Tensor:
        noise, x, _ = source.draw(rows)
        loop.loss = lambda net, _: flow_matching(net, noise, x)
        return loop.step()

    return step


def independent(net: Callable[..., Tensor], x: Tensor) -> Tensor:
    """The loss of the method `cfm`."""
    return flow_matching(net, torch.randn_like(x), x)


def flow_matching(net: Callable[..., Tensor], noise: Tensor, x: Tensor) -> Tensor:
    """The squared error of the velocity on straight lines between these rows."""
    t = torch.rand(len(x), device=x.device)
    return (net(torch.lerp(noise, x, like(t, x)), t, None) - (x - noise)).square().mean()
