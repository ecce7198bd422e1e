"""Images per second for each number of evaluations: flowbench's sampling against torchcfm's.

Ours is what `flowbench run` does with a batch: noise by sample index, the method's hook, and the
meters around it. Theirs is the Euler sampling of torchcfm's example: fresh noise and torchdyn's
trajectory, of which the last state counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from flowbench_plugins.cfm import CFM
from torch import Tensor, nn

from benchmarks.speed import networks
from benchmarks.speed.harness import LeftOut, Result, alternate, missing
from benchmarks.speed.loops import Case
from flowbench import meters, plugins
from flowbench.noise import unit_noise

NFES = (1, 2, 8)
GOAL = "at least 0.98 times as fast"  # two hundredths are noise


@dataclass(frozen=True)
class Pair:
    """One network behind both calls, and how many samples are drawn at once."""

    case: Case
    twin: nn.Module
    rows: int
    against: str


def measure(quick: bool, device: str = "cpu") -> Iterator[Result | LeftOut]:
    """The same network for both, then each library's own code of OpenAI's U-Net."""
    reason = missing("torchcfm", "torchdyn")
    if reason is not None:
        yield LeftOut("sampling against torchcfm", reason)
        return
    for pair in pairs(quick, device):
        for nfe in NFES[:1] if quick else NFES:
            yield _measured(pair, nfe, quick)


def pairs(quick: bool, device: str) -> Iterator[Pair]:
    """Vectors and images through one network, then images through both codes of a U-Net."""
    many = 1000 if device.startswith("cuda") else 2 if quick else 32
    for make, rows in ((networks.vectors, 500), (networks.images, many)):
        case = make(quick, device)
        yield Pair(case, networks.Swapped(case.network), rows, "torchcfm's, same network")
    case = networks.openai(quick, device)
    twin = networks.torchcfm_twin(case, quick)
    yield Pair(case, twin, min(many, 500), "torchcfm's own network and sampling")


def _measured(pair: Pair, nfe: int, quick: bool) -> Result:
    case, rows = pair.case, pair.rows
    ours, theirs = _ours(case, rows, nfe), _theirs(case, pair.twin, rows, nfe)
    repeats, most = (3, 1.0) if quick else (15, 12.0)
    times = alternate(ours, theirs, repeats, 1, most)
    name = case.name.rpartition(", batch")[0]
    facts = {"count": rows, "nfe": nfe, "dtype": "float32"}
    words = f"sampling, NFE {nfe}, {name}, {rows} at once"
    return Result(words, pair.against, *times, "samples/s", GOAL, facts=facts)


def _ours(case: Case, rows: int, nfe: int) -> Callable[[], Tensor]:
    hook, shape, device = plugins.manager(CFM(), meters).hook, case.values.shape[1:], case.device
    network = case.network.eval()

    def draw() -> Tensor:
        noise, meter = unit_noise(0, range(rows), tuple(shape), device=device), {}
        given = {"network": network, "noise": noise, "labels": None, "nfe": nfe}
        samples = hook.sample(**given, rng=None, meter=meter)
        meters.synchronise(device)
        assert meter["nfe"] == nfe
        return samples

    return draw


def _theirs(case: Case, twin: nn.Module, rows: int, nfe: int) -> Callable[[], Tensor]:
    from torchdyn.core import NeuralODE

    node = NeuralODE(twin.eval(), solver="euler")

    @torch.no_grad()
    def draw() -> Tensor:
        noise = torch.randn(rows, *case.values.shape[1:], device=case.device)
        span = torch.linspace(0, 1, nfe + 1, device=case.device)
        samples = node.trajectory(noise, t_span=span)[-1]
        meters.synchronise(case.device)
        return samples

    return draw
