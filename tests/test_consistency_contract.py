"""Consistency training keeps the contract, on images and on vectors, in both variants."""

import pytest
import torch
from flowbench_plugins.ict import ICT
from torch import nn

from flowbench import FlowbenchError, nets
from flowbench.testing import BUDGET, Killed, MethodContract, Stop, toy
from flowbench.training import Run

STEADY = {"s0": 10, "s1": 10}  # a loss that grows by its weights at each doubling says little


class TestICT(MethodContract):
    method = ICT(**STEADY, width=16)
    quick = True  # what takes long learns from points here too


class TestICTVectors(MethodContract):
    method = ICT(**STEADY, levels=(0.821,))
    kind = "vector"
    nfes = (1, 2)


class TestECT(MethodContract):
    method = ICT(variant="ect", start="random", width=16)
    quick = True


class TestECTVectors(MethodContract):
    method = ICT(variant="ect", start="random", nodes="karras")
    kind = "vector"


class Dropping(nn.Module):
    """A network whose training draws masks, as the large backbones do."""

    def __init__(self):
        super().__init__()
        self.layer, self.output = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x, t, y=None):
        return self.output(nn.functional.dropout(self.layer(x), 0.5, self.training))


@pytest.fixture
def dropout(monkeypatch):
    monkeypatch.setattr(nets, "default", lambda data, width=None: Dropping())


@pytest.mark.parametrize("words", [{"s0": 2, "s1": 8}, {"variant": "ect", "start": "random"}])
def test_dropout_and_the_schedule_survive_an_interruption(words, dropout, tmp_path):
    """Step, stage and masks are those of a run that went through."""
    method = ICT(**words)

    def trained(run):
        torch.manual_seed(0)
        return method.train(toy("vector"), run, None)

    with pytest.raises(Stop):
        trained(Killed(BUDGET, tmp_path, every=0, stop=5))
    resumed, continuous = trained(Run(BUDGET, tmp_path, every=0)), trained(Run(BUDGET))
    for a, b in zip(resumed.parameters(), continuous.parameters(), strict=True):
        assert torch.equal(a, b)


def test_only_tuning_from_a_teacher_has_one():
    assert ICT().teacher is None
    assert ICT(variant="ect").teacher == "edm"
    assert ICT(variant="ect", start="random").teacher is None


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"q": 4.0}, "q is an option of -o variant=ect only"),
        ({"start": "random"}, "start is an option of -o variant=ect only"),
        ({"variant": "ect", "s0": 2}, "s0 is an option of -o variant=ict only"),
        ({"variant": "ect", "q": 1.0}, "q is above 1"),
        ({"s0": 20, "s1": 10}, "s1 at least s0"),
        ({"p_std": 0.0}, "p_std is above 0"),
        ({"levels": (90.0,)}, "levels fall"),
        ({"sigma_min": 0.0}, "levels fall"),
    ],
)
def test_words_that_mean_nothing(words, match):
    with pytest.raises(FlowbenchError, match=match):
        ICT(**words)


def test_what_it_cannot_sample_with():
    assert ICT().refuses(None) == "it has no adaptive solver"
    assert ICT().refuses(7) is None
    assert ICT(levels=(5.0, 0.8)).refuses(2) == "levels makes it 1 or 3 evaluations"
    assert ICT(levels=(5.0, 0.8)).refuses(3) is None
