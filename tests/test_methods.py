"""Every method that comes with flowbench keeps the contract, on images and on vectors."""

import pytest
import torch
from flowbench_plugins.bot_cfm import BOTCFM
from flowbench_plugins.cfm import CFM
from flowbench_plugins.ctm import CTM
from flowbench_plugins.edm import EDM
from flowbench_plugins.exact import Exact
from flowbench_plugins.lfm import LFM
from flowbench_plugins.lmm import LMM
from flowbench_plugins.rect_flow import RectFlow
from torch import nn

from flowbench import hookimpl, plugins, solvers, training
from flowbench.testing import MethodContract

SMALL = {"pairs": 64, "pair_steps": 3, "start": "random", "width": 16}


class TestCFM(MethodContract):
    method = CFM(width=16)


class TestCFMMidpointVectors(MethodContract):
    method = CFM(solver="midpoint")
    kind = "vector"


class TestInterFlowVectors(MethodContract):
    method = CFM(path="trig", solver="heun")
    kind = "vector"


class TestBOTCFM(MethodContract):
    method = BOTCFM(n=24, width=16)  # pools across batches of 16


class TestBOTCFMSinkhornVectors(MethodContract):
    method = BOTCFM(n=8, coupling="sinkhorn", reg=0.5, per_class=False)
    kind = "vector"


class TestRectFlowFirst(MethodContract):
    method = RectFlow(k=1, width=16)


class TestRectFlowSecond(MethodContract):
    method = RectFlow(pairs=64, pair_steps=2, start="random", width=16)


class TestRectFlowInverseVectors(MethodContract):
    method = RectFlow(
        pairs=64, pair_steps=2, start="random", inverse=0.5, times="u-shaped", loss="huber"
    )
    kind = "vector"


class TestRectFlowDistilled(MethodContract):
    method = RectFlow(distil=2, pairs=64, pair_steps=2, start="random", width=16)
    nfes = (2,)


class TestCTM(MethodContract):
    method = CTM(grid=5, kmax=2, start="random", width=16)


class TestCTMAdaptiveVectors(MethodContract):
    method = CTM(grid=5, kmax=2, start="random", adaptive=True, target="ema", gamma=0.5)
    kind = "vector"


class TestCD(MethodContract):
    method = CTM(variant="cd", grid=5, start="random", width=16)


class TestCDVectors(MethodContract):
    method = CTM(variant="cd", start="random", weight="none", levels=(1.382,))
    kind = "vector"
    nfes = (1, 2)


class TestLFM(MethodContract):
    method = LFM(blocks=2, width=16)
    nfes = (2, 3, 5)


class TestLFMTrigVectors(MethodContract):
    method = LFM(blocks=3, path="trig", coupling="shuffled", warm=False, schedule="even")
    kind = "vector"
    nfes = (3, 4, 8)


class TestLFMDistilled(MethodContract):
    method = LFM(blocks=2, distil=1, width=16)
    nfes = (1,)


class TestEDM(MethodContract):
    method = EDM(width=16)
    nfes = (1, 2, 5, 35, 36)


class TestEDMHeunVectors(MethodContract):
    method = EDM(solver="heun")
    kind = "vector"
    nfes = (1, 2, 3, 4, 9)


class TestEDMStochastic(MethodContract):
    method = EDM(solver="heun", churn=10.0, width=16)
    nfes = (1, 2, 9)


class TestExact(MethodContract):
    method = Exact()
    kind = "vector"
    test_interrupted_training_equals_continuous = None  # it has none


class TestExactEDM(TestExact):
    method = Exact(field="edm")


class TestExactLines(TestExact):
    method = Exact(field="lines")


class TestExactLFM(TestExact):
    method = Exact(field="lfm", blocks=2)
    nfes = (2, 3, 5)


class TestLMM(MethodContract):
    method = LMM(**SMALL)


class TestLMMPaperVectors(MethodContract):
    method = LMM(**SMALL | {"width": None}, sampler="paper", sot=0.25, norm="l2", weight="none")
    kind = "vector"
    nfes = (1, 2)


def test_every_installed_method_has_a_contract_here():
    covered = {type(case.method) for case in MethodContract.__subclasses__()}
    ours = {name for name, point in plugins.methods().items() if point.dist.name == "flowbench"}
    assert {plugins.method_class(name) for name in ours} <= covered


# One bad method for each promise, which exactly that part of the contract catches.


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x, t=None, y=None):
        return self.layer(x.flatten(1)).view_as(x)


class Base:
    def train(self, data, run):
        net = Plain()
        return training.fit(net, lambda x, y: (net(x) - x).square().mean(), data.train, run)

    def sample(self, network, noise, labels, nfe):
        return solvers.euler(network, noise, labels, nfe)


def bad(**methods):
    """A method class that differs from a good one in the given functions."""
    import dataclasses

    body = {"train": hookimpl(Base.train), "sample": hookimpl(Base.sample)}
    body |= {name: hookimpl(function) for name, function in methods.items()}
    return dataclasses.dataclass(frozen=True)(type("Bad", (), body))()


def greedy(self, network, noise, labels, nfe):
    return solvers.euler(network, noise, labels, nfe + 1)


def batchwise(self, network, noise, labels, nfe):
    return solvers.euler(network, noise, labels, nfe) - noise.mean(0)


def careless(self, network, noise, labels, nfe):
    return noise.mul_(network(noise))


def seedless(self, network, noise, labels, nfe):
    return network(noise) + torch.randn_like(noise)


def forgetful(self, data, run):
    net = Plain()
    optimizer = torch.optim.Adam(net.parameters())
    for x, _ in run.batches(data.train, net=net):  # the optimiser's state is not kept
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()
    return net


@pytest.mark.parametrize(
    "check, functions",
    [
        ("test_it_spends_exactly_the_evaluations_asked_for", {"sample": greedy}),
        ("test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in", {"sample": batchwise}),
        ("test_same_seed_same_samples", {"sample": seedless}),
        ("test_samples_look_like_the_data", {"sample": careless}),
        ("test_interrupted_training_equals_continuous", {"train": forgetful}),
    ],
)
def test_the_contract_catches(check, functions, tmp_path):
    case = type("Case", (MethodContract,), {"method": bad(**functions), "__test__": False})()
    arguments = [tmp_path] if "interrupted" in check else []
    with pytest.raises(AssertionError):
        getattr(case, check)(*arguments)
    good = type("Good", (MethodContract,), {"method": bad(), "__test__": False})()
    getattr(good, check)(*([tmp_path / "good"] if arguments else []))
