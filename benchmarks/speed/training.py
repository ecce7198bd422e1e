"""Seconds of a training step: flowbench's against a bare PyTorch loop, EDM's, and torchcfm's."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed import edm_loop, networks
from benchmarks.speed.harness import LeftOut, Result, missing
from benchmarks.speed.loops import (
    EMA,
    LR,
    Bare,
    Case,
    Compared,
    Loop,
    compare,
    descend,
    draw,
    fitting,
)
from flowbench.coordinates import like
from flowbench.data.placement import scale

SECONDS, QUICK = 12.0, 0.3  # of a comparison, both sides together
WARMUP = 5000  # steps, of torchcfm's example
FAST, FAST_GOAL = "ours with bfloat16 and compile", "at least 1.5 times as fast"
MIXED = {"dtype": "bfloat16, theirs float32"}


def measure(quick: bool, device: str = "cpu") -> Iterator[Result | LeftOut]:
    """Each network in the bare loop, then EDM's, torchcfm's; on a GPU also our fast settings."""
    seconds = QUICK if quick else SECONDS
    kinds = ((networks.vectors, "1.10"), (networks.digits, "1.10"), (networks.images, "1.03"))
    for make, most in kinds:
        case = make(quick, device)
        found = compare(case, fitting(case, flow_matching), _bare(case), seconds)
        yield _result(case, "bare PyTorch loop", found, f"at most {most}")
    yield from _edm(quick, device, seconds)
    reason = missing("torchcfm")
    if reason is not None:
        yield LeftOut("training step against torchcfm", reason)
        return
    for make in (networks.vectors, networks.digits):
        case = make(quick, device)
        theirs = _theirs(case, lambda net: networks.Swapped(net))
        found = compare(case, fitting(case, flow_matching), theirs, seconds)
        yield _result(case, "torchcfm 1.0.7's step, same network", found, "at most 1.02")
    yield from _own_networks(quick, device, seconds)


def _edm(quick: bool, device: str, seconds: float) -> Iterator[Result]:
    """The method `edm` and a loop like that of EDM's code, one network behind both."""
    case = networks.denoiser(quick, device)

    def theirs(steps: int) -> Loop:
        return edm_loop.EDMStyle(case)

    found = compare(case, edm_loop.training(case), theirs, seconds)
    yield _result(case, "a loop like EDM's, same network", found, "at most 1.02")
    if device.startswith("cuda"):
        fast = networks.denoiser(quick, device, "bfloat16")
        found = compare(fast, edm_loop.training(fast), theirs, seconds, compiled=True)
        yield _result(fast, f"a loop like EDM's, {FAST}", found, FAST_GOAL, MIXED)


def _own_networks(quick: bool, device: str, seconds: float) -> Iterator[Result]:
    """Each library with its own code of one U-Net, the weights equal."""
    case = networks.openai(quick, device)
    twin = _theirs(case, lambda net: networks.torchcfm_twin(case, quick))
    facts = {"outputs differ by at most": difference(case, quick)}
    found = compare(case, fitting(case, flow_matching), twin, seconds)
    yield _result(case, "torchcfm 1.0.7's step and code", found, "at most 1.02", facts)
    if device.startswith("cuda"):
        fast = networks.openai(quick, device, "bfloat16")
        found = compare(fast, fitting(fast, flow_matching), twin, seconds, compiled=True)
        yield _result(fast, f"torchcfm's step, {FAST}", found, FAST_GOAL, MIXED)


def flow_matching(net: Callable[..., Tensor], x: Tensor) -> Tensor:
    """The loss of the method `cfm`."""
    t, noise = torch.rand(len(x), device=x.device), torch.randn_like(x)
    return (net(torch.lerp(noise, x, like(t, x)), t, None) - (x - noise)).square().mean()


class TorchCFM(Loop):
    """torchcfm's training step for CIFAR-10: its matcher, Adam, clipping, and average by name.

    Only its data loader is left out: rows are on the device, and drawn by index, as ours are.
    """

    def __init__(self, case: Case, net: nn.Module):
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

        self.case, self.net, self.matcher = case, net, ConditionalFlowMatcher(sigma=0.0)
        self.average = copy.deepcopy(net)
        self.optimizer = torch.optim.Adam(net.parameters(), lr=LR)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda k: min(k, WARMUP) / WARMUP
        )

    def step(self) -> Tensor:
        self.optimizer.zero_grad()
        x = scale(draw(self.case))
        t, z, target = self.matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        loss = torch.mean((self.net(t, z) - target) ** 2)
        descend(self.net, loss, self.optimizer, self.schedule)
        self._average()
        return loss.detach()

    def _average(self) -> None:
        mine, theirs = self.average.state_dict(), self.net.state_dict()
        for name, value in theirs.items():
            mine[name].data.copy_(mine[name].data * EMA + value.data * (1 - EMA))


def difference(case: Case, quick: bool) -> float:
    """The largest distance of the two U-Nets' outputs, with weights that are not zero."""
    ours = copy.deepcopy(case.network).eval()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        probe = Case(case.name, case.values, case.batch, ours)
        twin = networks.torchcfm_twin(probe, quick).eval()
        x, t = torch.randn(4, 3, 32, 32, device=case.device), torch.rand(4, device=case.device)
        return (ours(x, t) - twin(t, x)).abs().max().item()


def _bare(case: Case) -> Callable[[int], Loop]:
    return lambda steps: Bare(case, flow_matching, steps)


def _theirs(case: Case, wrap: Callable[[nn.Module], nn.Module]) -> Callable[[int], Loop]:
    return lambda steps: TorchCFM(case, wrap(copy.deepcopy(case.network)))


def _result(
    case: Case, against: str, found: Compared, goal: str, more: dict[str, Any] | None = None
) -> Result:
    weights = sum(weight.numel() for weight in case.network.parameters())
    facts = {"parameters": weights, "batch": case.batch, "steps in a block": found.block}
    facts |= {"dtype": "float32"} | (more or {})
    name = f"training step, {case.name}"
    return Result(name, against, found.ours, found.theirs, "ms", goal, facts=facts)
