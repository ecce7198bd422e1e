"""The benchmark's loop like EDM's: it computes what it says, and the loss that ours computes."""

import copy

import pytest
import torch

from benchmarks.speed import edm_loop, networks
from benchmarks.speed.loops import Case
from flowbench.data.placement import scale
from flowbench.records import Budget, digest
from flowbench.training import Run


@pytest.fixture
def case():
    """A small denoiser whose output is not zero, as it would be before training."""
    case = networks.denoiser(True, "cpu")
    with torch.no_grad():
        for weight in case.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return case


class Same:
    """A source that gives the same rows at every step."""

    def __init__(self, case: Case):
        self.x = scale(case.values[: case.batch])

    def __len__(self):
        return len(self.x)

    def prepare(self):
        pass

    def draw(self, rows):
        return self.x, None


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (edm_loop, "LARGEST", 1.0),  # has no part in the loss
        (edm_loop, "MEAN", -1.1),
        (edm_loop, "STD", 1.1),
        (networks, "SIGMA_DATA", 0.51),
    ],
)
def test_the_loss_is_that_of_the_method(case, place, name, value, monkeypatch):
    source, run = Same(case), Run(Budget(1, case.batch))
    edm_loop.training(case)(source, run)  # one step: its loss is that of the first weights
    monkeypatch.setattr(place, name, value)
    torch.manual_seed(int(digest([run.seed, run.name])[:12], 16))
    theirs = edm_loop.EDMStyle(case).loss(source.x)
    assert theirs.shape == source.x.shape
    same = theirs.mean().item() == pytest.approx(run.loss.item(), rel=1e-5)
    assert same == (name == "LARGEST")


@pytest.mark.parametrize("share", [0.05, 0.06])
def test_the_average_has_its_half_life_in_images(case, share, monkeypatch):
    monkeypatch.setattr(edm_loop, "SHARE", share)
    loop = edm_loop.EDMStyle(case)
    weights, average = next(loop.net.parameters()), next(loop.average.parameters())
    with torch.no_grad():
        average.add_(1)
    loop.move()  # without gradients: only the average moves, at the start all the way
    assert torch.equal(average, weights)
    with torch.no_grad():
        average.add_(1)
    steps = range(100, 105)
    for step in steps:
        loop.images = step * case.batch
        loop.move()
    left = 0.5 ** sum(1 / (0.05 * step) for step in steps)
    same = (average - weights).mean().item() == pytest.approx(left, rel=1e-5)
    assert same == (share == 0.05)


def test_later_the_half_life_stays(case):
    loop = edm_loop.EDMStyle(Case(case.name, case.values, edm_loop.HALF_LIFE, case.network))
    weights, average = next(loop.net.parameters()), next(loop.average.parameters())
    with torch.no_grad():
        average.add_(1)
    loop.images = 10**9
    loop.move()
    assert (average - weights).mean().item() == pytest.approx(0.5, rel=1e-5)


def test_the_step_size_rises_from_zero(case):
    loop = edm_loop.EDMStyle(case)
    for images, factor in ((0, 0), (edm_loop.WARMUP // 2, 0.5), (2 * edm_loop.WARMUP, 1)):
        loop.images = images
        loop.move()
        assert loop.optimizer.param_groups[0]["lr"] == edm_loop.STEP_SIZE * factor
    loop, before = edm_loop.EDMStyle(case), copy.deepcopy(list(case.network.parameters()))
    loop.step()
    assert loop.images == case.batch and all(map(torch.equal, before, loop.net.parameters()))
    loop.step()
    assert not all(map(torch.equal, before, loop.net.parameters()))


def test_gradients_that_overflowed_are_mended(case):
    loop = edm_loop.EDMStyle(case)
    broken = torch.tensor([torch.nan, torch.inf, -torch.inf, 2.0])
    weight = next(each for each in loop.net.parameters() if each.ndim == 1 and len(each) >= 4)
    unmended = torch.nn.Parameter(weight.detach().clone())
    for each in (weight, unmended):
        each.grad = torch.ones_like(each)
        each.grad[:4] = broken
    loop.images = edm_loop.WARMUP
    loop.move()
    assert weight.grad[:4].tolist() == [0, 1e5, -1e5, 2] and weight.isfinite().all()
    torch.optim.Adam([unmended]).step()
    assert not unmended.isfinite().all()
