"""The bill: arithmetic and parameters of evaluations, what is added up, what a method measures."""

import json
import math

import pytest
import torch
from torch import nn

from flowbench import meters
from flowbench.records import RUN_LEVEL
from flowbench.training import total


class Halves(nn.Module):
    """Two layers, of which each evaluation uses one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(10, 30), nn.Linear(10, 50)

    def forward(self, x, which):
        return (self.second if which else self.first)(x)


def test_arithmetic_counts_products_twice_and_only_the_parts_that_were_used():
    net, x = Halves(), torch.zeros(4, 10)
    with meters.arithmetic(net) as counted:
        net(x, 0)
        net(x, 0)
        net(x, 1)
    assert counted.mflop == pytest.approx(2 * 4 * 10 * (30 + 30 + 50) / 1e6)
    assert counted.parameters == pytest.approx((11 * 30 + 11 * 30 + 11 * 50) / 3)
    assert counted.parameters < meters.parameters(net)
    with meters.arithmetic(net) as nothing:
        pass
    assert nothing.mflop == 0 and nothing.parameters == 0


def test_a_convolution_costs_what_the_formula_says():
    net = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    with meters.arithmetic(net) as counted:
        net(torch.zeros(1, 3, 8, 8))
    assert counted.mflop == pytest.approx(2 * 8 * 8 * 5 * 3 * 9 / 1e6)


def test_work_beside_training_is_listed_and_not_added():
    bill = {
        "teacher": {"seconds": 10.0, "images": 100.0},
        "pairs": {"seconds": 5.0, "images": 50.0},
        "inverse-pairs": {"seconds": 2.0, "images": 20.0},
        "coupling": {"seconds": 3.0, "images": 0.0},
        "train": {"seconds": 20.0, "images": 200.0},
    }
    assert total(bill) == {"seconds": 37.0, "images": 300.0}


def test_what_a_method_measures_of_itself_is_stored(flowbench, tmp_path):
    code, _ = flowbench(
        *("run", "bot-cfm", "--dataset", "moons", "--steps", "5", "--samples", "50", "--nfe", "2")
    )
    assert code == 0
    name = next(p.name for p in (tmp_path / "runs").iterdir() if p.is_dir())
    code, shown = flowbench("show", name, "--format", "json")
    assert code == 0
    scores = [score for score in json.loads(shown)["scores"] if score["subject"] == "model"]
    found = {(score["name"], score["nfe"]): score["value"] for score in scores}
    assert 0 < found["coupling", RUN_LEVEL] <= 1
    assert found["train-seconds:coupling", RUN_LEVEL] > 0
    assert math.isfinite(found["nll", RUN_LEVEL])
    assert found["mflop-per-sample", 2] > 0
    assert found["parameters-per-evaluation", 2] == found["parameters", RUN_LEVEL]
