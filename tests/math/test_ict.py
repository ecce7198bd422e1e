"""Consistency training (arXiv:2310.14189, arXiv:2406.14548) against closed forms."""

import copy
import math
from itertools import pairwise

import exact_fields as exact
import pytest
import torch
from exact_fields import Ends, ratio
from flowbench_plugins.edm import EDM
from flowbench_plugins.ict import ICT
from torch import nn

from flowbench import fitting, noise_levels
from flowbench.coordinates import like
from flowbench.noise import Stream
from flowbench.records import Budget
from flowbench.teacher import Teacher
from flowbench.testing import toy
from flowbench.training import Run

LOW, HIGH = 0.002, 80.0
LAW = {"p_mean": -1.1, "p_std": 2.0}  # the papers'
ECT = {"variant": "ect", "start": "random"}


class Line(Ends):
    """f(x, t) = a x, or with `drop` a x under a random mask."""

    def __init__(self, a=0.3, drop=0.0):
        super().__init__()
        self.a, self.drop = nn.Parameter(torch.tensor(a, dtype=torch.float64)), drop

    def forward(self, x, t, y=None):
        return nn.functional.dropout(self.a * x, self.drop)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stirred(net):
    """`net` with every weight moved, so that nothing is zero by its start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net


def test_the_number_of_levels_doubles():
    """N(k) of 400 000 steps: eight lengths of 50 000."""
    sizes = [ICT().size(step, 400_000) for step in range(0, 400_000, 50_000)]
    assert sizes == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert [ICT().size(step, 400_000) for step in (49_999, 399_999)] == [11, 1281]
    assert [ICT().size(step, 1000) for step in (124, 125, 999)] == [11, 21, 1281]
    assert [ICT(s0=2, s1=150).size(step, 800_000) for step in (0, 799_999)] == [3, 151]
    assert [ICT().size(step, 3) for step in range(3)] == [11, 21, 41]  # shorter than the schedule


def test_law_and_weights_of_eleven_levels():
    method = ICT(**LAW)
    grid = method.grid(11)
    nodes = [0.002, 0.01672, 0.08509, 0.31828, 0.96542, 2.51522, 5.83895, 12.3816, 24.4083]
    assert grid.tolist() == pytest.approx([*nodes, 45.3137, 80.0], rel=3e-4)
    shares = [0.06263, 0.18174, 0.24550, 0.21349, 0.14245, 0.08060, 0.04108, 0.01958]
    assert method.chances(grid).tolist() == pytest.approx([*shares, 0.00894, 0.00398], abs=6e-6)
    assert (1 / grid.diff()[:4]).tolist() == pytest.approx([67.931, 14.627, 4.288, 1.545], rel=5e-4)


def test_levels_are_drawn_by_that_law():
    torch.manual_seed(0)
    method = ICT(**LAW)
    t, r = method.draw(200_000, "cpu", 0, 400_000)
    grid = method.grid(11).float()
    row = torch.searchsorted(grid, r)
    assert torch.equal(grid[row], r) and torch.equal(grid[row + 1], t)
    shares = torch.bincount(row, minlength=10) / len(row)
    assert shares.tolist() == pytest.approx(method.chances(method.grid(11)).tolist(), abs=0.004)
    t, r = method.draw(1000, "cpu", 399_999, 400_000)
    assert len(set(r.tolist())) > 400 and (t > r).all()


def test_levels_of_easy_tuning():
    method = ICT(**ECT)
    levels = torch.tensor([1e-9, 1.0, 2.0, 5.0, 20.0, 1e3], dtype=torch.float64)
    first = method.nearness(levels, 0)
    assert first.tolist() == pytest.approx([0, 0, 0.023, 0.473, 0.5, 0.5], abs=5e-4)
    fourth, last = method.nearness(levels, 3), method.nearness(levels, 7)
    assert fourth[[0, -1]].tolist() == pytest.approx([0.6875, 0.9375])
    assert last[[0, -1]].tolist() == pytest.approx([0.9805, 0.9961], abs=5e-5)
    faster = ICT(**ECT, q=4.0).nearness(levels, 3)
    assert torch.allclose(faster, last)  # 4^4 = 2^8


def test_the_law_and_stages_of_easy_tuning():
    torch.manual_seed(0)
    method = ICT(**ECT, **LAW)
    for step, stage in ((0, 0), (24_999, 0), (25_000, 1), (199_999, 7)):
        t, r = method.draw(50_000, "cpu", step, 200_000)
        torch.testing.assert_close(r, t * method.nearness(t, stage))
        assert t.log().mean().item() == pytest.approx(-1.1, abs=0.03)
        assert t.log().std().item() == pytest.approx(2.0, abs=0.03)
    assert method.draw(99, "cpu", 2, 3)[1].gt(0).all()  # shorter than the stages


@pytest.mark.parametrize(("side", "c"), [(32, 0.02993), (64, 0.05986)])
def test_the_pseudo_huber_distance(side, c):
    """c of images; |e| - c far away, e^2 / 2 c nearby, also where e is lost beside c."""
    zeros = torch.zeros(3, 3, side, side, dtype=torch.float64)
    errors = torch.tensor([100.0, 1e-3, 1e-12], dtype=torch.float64)
    ends = zeros.clone()
    ends[:, 1, 2, 3] = errors
    found = ICT().distance(ends, zeros)
    assert found[0].item() == pytest.approx(100 - c, abs=3e-5)
    assert found[1].item() == pytest.approx(math.hypot(1e-3, c) - c, rel=1e-3)
    assert found[2].item() == pytest.approx(1e-24 / (2 * c), rel=1e-3)
    assert ICT(huber=0.0).distance(ends, zeros).tolist() == pytest.approx(errors.tolist(), rel=1e-3)


def test_ends_that_agree_have_no_slope():
    end = torch.zeros(2, 5, requires_grad=True)
    ICT(huber=0.0).distance(end, torch.zeros(2, 5)).sum().backward()
    assert torch.equal(end.grad, torch.zeros(2, 5))


@pytest.mark.parametrize("low", [0.002, 0.1])
def test_what_is_clean_is_kept(low):
    x, data = torch.randn(50, 6), toy("vector")
    net = stirred(ICT(width=16, sigma_min=low).network(data))
    assert torch.equal(net(x, torch.full((50,), low)), x)
    free = stirred(ICT(width=16, **ECT).network(data))
    assert not torch.allclose(free(x, torch.full((50,), low)), x, atol=1e-4)
    torch.testing.assert_close(free(x, torch.full((50,), 1e-7)), x, rtol=1e-5, atol=1e-5)


class PerLevel(nn.Module):
    """A linear consistency function with a coefficient for each level of a grid."""

    def __init__(self, grid):
        super().__init__()
        self.grid, self.a = grid, nn.Parameter(torch.ones(len(grid), dtype=torch.float64))

    def forward(self, x, t, y=None):
        rows = (self.grid - t[:, None]).abs().argmin(1)
        return like(self.a[rows], x) * x


def fixed_point(std, size, monkeypatch, swap=False, fresh=False):
    """The multiplier from 80 to 0.002 over the exact one, where the loss has no slope.

    A wide Huber loss is a parabola in the upper level's coefficient. Four rows have the moments of
    data and noise exactly. `swap` exchanges the two levels, `fresh` has noise of its own for each.
    """
    signs = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    x, noise, other = std * signs[0, :, None], signs[1, :, None], signs[2, :, None]
    method = ICT(huber=1e6)
    network = PerLevel(method.grid(size))
    monkeypatch.setattr(torch, "randn_like", lambda like: noise)
    if fresh:
        network.register_forward_pre_hook(
            lambda net, given: (
                (given[0] + like(given[1], x) * (other - noise), *given[1:])
                if torch.is_grad_enabled()
                else None
            )
        )

    def slope(row, a):
        network.a.data[row] = a
        t, r = network.grid[[row, row - 1]][:, None].expand(2, 4)
        loss = method.consistency(network, x, None, *((r, t) if swap else (t, r)))
        return torch.autograd.grad(loss, network.a)[0][row]

    for row in range(1, size):
        first, last = slope(row, 0.0), slope(row, 1.0)
        network.a.data[row] = first / (first - last)
    return network.a[-1].item() / ratio(std, HIGH, LOW)


def recursion(std, size):
    """a_{n+1} = a_n (s^2 + t_n t_{n+1}) / (s^2 + t_{n+1}^2), over the exact multiplier."""
    a = 1.0
    for r, t in pairwise(noise_levels.karras(size).flip(0).tolist()):
        a *= (std**2 + r * t) / (std**2 + t**2)
    return a / ratio(std, HIGH, LOW)


POINTS = {(0.5, 18): 0.84609, (0.5, 40): 0.92973, (1.0, 18): 0.85952, (1.0, 150): 0.98287}


@pytest.mark.parametrize(("std", "size"), POINTS)
def test_the_fixed_point_of_consistency_training(std, size, monkeypatch):
    found = fixed_point(std, size, monkeypatch)
    assert found == pytest.approx(POINTS[std, size], abs=1e-5)
    assert found == pytest.approx(recursion(std, size), rel=1e-6)


@pytest.mark.parametrize("wrong", [{"swap": True}, {"fresh": True}])
def test_the_fixed_point_catches(wrong, monkeypatch):
    assert fixed_point(0.5, 18, monkeypatch, **wrong) != pytest.approx(0.84609, abs=0.1)


def slope(net, method, x, t, r):
    """The loss and its slope in `net.a`, at the noise of seed 5."""
    torch.manual_seed(5)
    loss = method.consistency(net, x, None, t, r)
    loss.backward()
    found = loss.item(), net.a.grad.item()
    net.a.grad = None
    return found


@pytest.mark.parametrize("variant", ["ict", "ect"])
def test_the_target_has_no_slope(variant):
    """Loss and slope for f = a x, by hand: of the end alone, and not of end and target."""
    method = ICT(huber=0.3) if variant == "ict" else ICT(**ECT, huber=0.3)
    x, net = 0.5 * randn(40, 3), Line(0.3)
    t, r = noise_levels.warp(torch.rand(2, 40, dtype=torch.float64)).sort(0, descending=True).values
    found = slope(net, method, x, t, r)
    torch.manual_seed(5)
    noise = torch.randn_like(x)
    upper, lower = x + like(t, x) * noise, x + like(r, x) * noise
    weight = 1 / (t - r) if variant == "ict" else (t**2 + 0.25) / (0.5 * t) ** 2
    c, error = 0.3 * 3**0.5, 0.3 * (upper - lower)
    root = (error.square().sum(1) + c**2).sqrt()
    assert found[0] == pytest.approx((weight * (root - c)).mean().item(), rel=1e-9)
    by_hand = (weight / root * (error * upper).sum(1)).mean().item()
    through = (weight / root * (error * (upper - lower)).sum(1)).mean().item()
    assert found[1] == pytest.approx(by_hand, rel=1e-9)
    assert found[1] != pytest.approx(through, rel=0.1)


def test_what_is_far_learns_from_the_data():
    """Where r = 0 the target is the clean row, whatever the network says at level 0."""
    x, net = 0.5 * randn(40, 3), Line(0.3)
    t = torch.full((40,), 2.0, dtype=torch.float64)
    loss, _ = slope(net, ICT(**ECT, huber=0.0), x, t, torch.zeros_like(t))
    torch.manual_seed(5)
    error = 0.3 * (x + 2 * torch.randn_like(x)) - x
    assert loss == pytest.approx(4.25 * error.norm(dim=1).mean().item(), rel=1e-6)


def test_both_passes_have_one_mask(monkeypatch):
    """Where r is next to t the ends are one; masks of their own would part them."""
    x, net = 0.5 * randn(40, 30), Line(0.3, drop=0.5)
    t = torch.full((40,), 2.0, dtype=torch.float64)

    def apart():
        return slope(net, ICT(huber=0.0), x, t, t * (1 - 1e-9))[0] * (2e-9)

    assert apart() < 1e-6
    slope(net, ICT(), x, t, t / 2)
    found = torch.rand(3)
    torch.manual_seed(5)
    torch.randn_like(x), nn.functional.dropout(x)  # the state goes on as after one pass
    assert torch.equal(found, torch.rand(3))
    monkeypatch.setattr(fitting, "set_random_state", lambda state, device: None)
    assert apart() > 0.1


def spread(method, network, nfe, std=0.5):
    """Standard deviation of the samples, from a start with the exact law at `sigma_max`."""
    noise, rng = exact.basis(nfe + 1)
    start = math.hypot(std, method.sigma_max) / method.sigma_max * noise
    return method.sample(network, start, None, nfe, rng).norm().item()


@pytest.mark.parametrize("nodes", ["uniform", "karras"])
@pytest.mark.parametrize("low", [0.002, 0.3])
def test_exact_ends_keep_every_law(nodes, low):
    """Of data plus noise at the lowest level, after any number of evaluations."""
    method = ICT(nodes=nodes, sigma_min=low)
    for nfe in (1, 2, 3, 10):
        found = spread(method, Ends(low=low), nfe)
        assert found == pytest.approx(math.hypot(0.5, low), rel=1e-9)
        tuned = spread(ICT(**ECT, nodes=nodes), Ends(low=0.0), nfe)
        assert tuned == pytest.approx(0.5, rel=1e-9)


def test_noise_of_the_whole_level_is_caught(monkeypatch):
    method = ICT(sigma_min=0.3, levels=(0.5,))
    assert spread(method, Ends(low=0.3), 2) == pytest.approx(math.hypot(0.5, 0.3), rel=1e-9)
    monkeypatch.setattr(ICT, "low", 0.0)
    monkeypatch.setattr(ICT, "path", lambda self, nfe: [80.0, 0.5, 0.0])
    wide = math.hypot(0.5, 0.3) * math.sqrt(0.59 / 0.5)
    assert spread(method, Ends(low=0.3), 2) == pytest.approx(wide, rel=1e-9)


def test_levels_of_the_sampler():
    assert ICT().path(2) == pytest.approx([80, 0.97951, 0.002], abs=1e-4)
    assert ICT(nodes="karras").path(2) == pytest.approx([80, 2.51522, 0.002], abs=1e-4)
    assert ICT(levels=(0.821,)).path(2) == [80, 0.821, 0.002]
    assert ICT(**ECT, levels=(0.821,)).path(2) == [80, 0.821, 0.0]
    for method in (ICT(), ICT(nodes="karras"), ICT(**ECT), ICT(**ECT, nodes="karras")):
        for nfe in (1, 2, 7, 600):
            path, network = method.path(nfe), Ends(low=method.low)
            assert (path[0], path[-1]) == (80, method.low)
            assert sorted(set(path), reverse=True) == path
            seen = exact.calls(network)
            stream = Stream(0, range(2), (3,), "cpu")
            found = method.sample(network, torch.randn(2, 3), None, nfe, stream)
            assert found.dtype == torch.float32
            assert [level[0].item() for _, level in seen] == pytest.approx(path[:-1], rel=1e-6)


@pytest.mark.parametrize("variant", ["ict", "ect"])
def test_training_starts_from_the_teacher_only_in_tuning(variant):
    data, budget = toy("vector"), Budget(steps=2, batch=4)
    weights = stirred(EDM(width=16).network(data))
    teacher = Teacher(lambda: copy.deepcopy(weights), EDM().velocity, EDM().interval)
    method = ICT(variant=variant, width=16, lr=1e-9)
    net = method.train(data, Run(budget), teacher)
    same = torch.allclose(net.net.input.weight, weights.net.input.weight, atol=1e-6)
    assert same == (variant == "ect")
    x, sigma = torch.randn(9, 6), torch.full((9,), 2.0)
    near = torch.allclose(net(x, sigma), weights(x, sigma), atol=1e-4)
    assert near == (variant == "ect")  # tuning begins as the teacher's denoiser


def test_training_passes_the_steps_that_are_done(monkeypatch):
    """Also where a step goes through the network in parts."""
    seen, draw = [], ICT.draw

    def spy(self, n, device, step, steps):
        seen.append((step, steps))
        return draw(self, n, device, step, steps)

    monkeypatch.setattr(ICT, "draw", spy)
    method, run = ICT(width=16, s0=2, s1=4), Run(Budget(steps=3, batch=8), micro_batch=4)
    method.train(toy("vector"), run, None)
    assert seen == [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3), (2, 3)]
