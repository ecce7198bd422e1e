"""Shortcut models (arXiv:2410.12557): half steps, the loss and the sampler where all is known."""

import math

import exact_fields as exact
import flow_maps
import pytest
import torch
from flowbench_plugins.cfm import CFM
from flowbench_plugins.shortcut import Shortcut
from torch import nn

from flowbench import FlowbenchError, solvers
from flowbench.records import Budget
from flowbench.training import Run

MEAN, STD = 0.5, 0.5
METHOD = Shortcut()


class Step(flow_maps.Law):
    """The exact s(z, (t, level)) of N(mean, std^2); `off` is added to the level that it is told."""

    def __init__(self, finest=7, off=0, **law):
        super().__init__(**law)
        self.finest, self.off = finest, off

    def exact(self, z, times):
        t, level = times[:, 0], times[:, 1] * self.finest + self.off
        return flow_maps.average(z, t, t + 0.5**level, self.mean, self.std)


class Deaf(Step):
    """Does not hear the level, so it is the velocity."""

    def exact(self, z, times):
        return flow_maps.average(z, times[:, 0], times[:, 0], self.mean, self.std)


class Grid(Step):
    """What is learned at best: the smallest step has the velocity, the others are made of it.

    A step of level j is 2^(finest - j) Euler steps.
    """

    def exact(self, z, times):
        t, level = times[:, 0], (times[:, 1] * self.finest + self.off).round()
        smallest, state = 0.5**self.finest, z
        for i in range(2**self.finest):
            now = t + i * smallest
            moved = state + smallest * flow_maps.average(state, now, now, self.mean, self.std)
            inside = (i < 2.0 ** (self.finest - level))[:, None]
            state = torch.where(inside, moved, state)
        return (state - z) / (0.5**level)[:, None]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps(method=METHOD, n=400):
    """Times and levels of large steps, float64."""
    torch.manual_seed(0)
    t, level = method.draw_steps(n, n, "cpu")
    return t.double(), level.double()


def test_two_exact_half_steps_are_one_exact_step():
    z, (t, level) = randn(400, 2), steps()
    whole = METHOD.step(Step(), z, t, level)
    halves = METHOD.half_steps(Step(), z, t, level)
    torch.testing.assert_close(halves, whole, rtol=0, atol=1e-10)
    moved = z + (0.5**level)[:, None] * halves
    expected = flow_maps.jump(z, t, t + 0.5**level, MEAN, STD)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-10)
    for wrong in (Step(off=1), Step(off=-1), Deaf()):
        other = METHOD.half_steps(wrong, z, t, level)
        assert (other - METHOD.step(wrong, z, t, level)).abs().max() > 0.01


@pytest.mark.parametrize("grid", [2, 8, 128])
def test_steps_that_are_drawn(grid):
    """Every size is equally likely, times are multiples of it, and no step leads past the data."""
    method, n = Shortcut(grid=grid), 60_000
    torch.manual_seed(0)
    t, level = method.draw_steps(2 * n, n, "cpu")
    size = 0.5**level
    assert torch.equal(t / size, (t / size).round()) and (t + size <= 1).all() and (t >= 0).all()
    assert (level[n:] == math.log2(grid)).all()
    counts = torch.bincount(level[:n].long(), minlength=method.finest)
    assert len(counts) == method.finest
    torch.testing.assert_close(
        counts / n, torch.full_like(counts / n, 1 / method.finest), atol=0.02, rtol=0
    )
    places = torch.bincount((t[n:] * grid).long(), minlength=grid) / n
    torch.testing.assert_close(places, torch.full((grid,), 1 / grid), atol=0.01, rtol=0)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_the_share_of_half_steps_holds_for_any_number_of_rows(n):
    """Micro-batches of one row too; rounding down would leave none."""
    torch.manual_seed(0)
    counts = torch.tensor([METHOD.count_large(n) for _ in range(20_000)]).double()
    assert counts.mean().item() == pytest.approx(n / 4, abs=0.02)
    assert counts.max() - counts.min() <= 1
    assert Shortcut(share=0.0).count_large(n) == 0 and Shortcut(share=1.0).count_large(n) == n


def gradient(method, network, averaged, n=20_000):
    """The mean gradient of the loss and the standard error of its entries, (3,) each."""
    found = []
    for part in range(20):
        torch.manual_seed(part)
        network.zero_grad()
        x = MEAN + STD * torch.randn(n // 20, 1)
        method.loss(network, averaged, x).backward()
        found.append(network.shift.grad.clone())
    each = torch.stack(found)
    return each.mean(0), each.std(0) / len(each) ** 0.5


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_loss_is_least_at_the_exact_steps(share):
    method = Shortcut(grid=8, share=share)
    mean, error = gradient(method, Grid(finest=3), Grid(finest=3))
    assert (mean.abs() <= 4.5 * error + 1e-6).all()
    wrong = [Grid(finest=3, shift=0.1)] if share == 0 else [Deaf(finest=3), Grid(finest=3, off=-1)]
    for network in wrong:
        mean, error = gradient(method, network, network)
        assert (mean.abs() > 8 * error).any()


def test_half_steps_are_a_constant_of_the_averaged_network():
    """Without that, both networks would have a gradient; target=live takes the network itself."""
    x, average = MEAN + STD * torch.randn(64, 1), Step(shift=0.3)
    for target, averaged in (("ema", True), ("live", False)):
        net, average = Step(), Step(shift=0.3)
        method = Shortcut(share=1.0, target=target)
        torch.manual_seed(0)
        found = method.loss(net, average, x)
        found.backward()
        assert average.shift.grad is None and net.shift.grad is not None
        assert (found.item() > 0.01) == averaged  # the average's halves are wrong, its own are not


def test_training_moves_the_average_that_is_its_target(monkeypatch):
    seen, original = [], Shortcut.loss

    def spy(self, net, averaged, *rest):
        seen.append((net, averaged))
        return original(self, net, averaged, *rest)

    monkeypatch.setattr(Shortcut, "loss", spy)
    data = exact.vectors(torch.randn(40, 3))
    net = Shortcut(width=16).train(data, Run(Budget(steps=2, batch=8)))
    assert len(seen) == 2 and all(averaged is net and live is not net for live, averaged in seen)


def test_without_half_steps_it_is_flow_matching_on_the_grid():
    method, net, x = Shortcut(share=0.0), Step(shift=0.1), 2 * torch.randn(50, 1)
    torch.manual_seed(3)
    ours = method.loss(net, None, x)
    torch.manual_seed(3)
    method.count_large(50)
    noise = torch.randn_like(x)
    t, level = method.draw_steps(50, 0, "cpu")
    z, slope = CFM().interpolate(noise, x, t)
    expected = (net(z, torch.stack([t, level / 7], 1)) - slope).square().mean()
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 7, 8, 50, 127, 128])
def test_steps_of_a_sampler_were_all_trained(nfe):
    """As many as asked for, from 0 to 1, and each begins at a multiple of its size."""
    found, t = METHOD.levels(nfe), 0.0
    assert len(found) == nfe
    for level in found:
        assert 0 <= level <= 7 and (t * 2**level).is_integer()
        t += 0.5**level
    assert t == 1.0
    assert max(found) - min(found) <= 1
    if nfe & (nfe - 1) == 0:
        assert set(found) == {math.log2(nfe)}


@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 16, 128])
def test_exact_steps_lead_to_the_data_with_any_number_of_evaluations(nfe):
    noise, network = randn(30, 2), Step()
    seen = exact.calls(network)
    samples = METHOD.sample(network, noise, None, nfe)
    torch.testing.assert_close(samples, MEAN + STD * noise, rtol=0, atol=1e-9)
    assert [rows for rows, _ in seen] == [30] * nfe
    told = torch.stack([times[0] for _, times in seen]) * 7
    assert told[:, 1].round().int().tolist() == METHOD.levels(nfe)


# Standard deviations that Euler's rule with so many steps makes of N(0, 1), where 0.5 is exact.
EULER = {4: 0.340541, 8: 0.414785, 32: 0.477364}


@pytest.mark.parametrize("grid", EULER)
def test_at_best_all_samplers_are_eulers_rule_on_the_grid(grid):
    finest = int(math.log2(grid))
    method, network = Shortcut(grid=grid), Grid(finest=finest, mean=0.0)
    noise = torch.ones(1, 1, dtype=torch.float64)
    field = solvers.euler(lambda z, t, y: method.velocity(network, z, t, y), noise, None, grid)
    assert field.item() == pytest.approx(EULER[grid], abs=1e-6)
    for nfe in {1, 2, 3, grid // 2 + 1, grid - 1, grid}:
        assert method.sample(network, noise, None, nfe).item() == pytest.approx(field.item())
    for wrong in (Grid(finest=finest, mean=0.0, off=-1), Deaf(finest=finest, mean=0.0)):
        assert method.sample(wrong, noise, None, 2).item() != pytest.approx(field.item(), rel=0.02)


def test_the_field_is_that_of_the_smallest_step():
    z, t = randn(20, 2), torch.rand(20, dtype=torch.float64)
    field = METHOD.velocity(Grid(), z, t, None)
    expected = exact.gaussian(MEAN, STD, 2).velocity(z, t)
    torch.testing.assert_close(field, expected, rtol=1e-9, atol=1e-9)


def test_clip_bounds_states_and_targets():
    class Steep(nn.Module):
        def forward(self, z, times, y=None):
            seen.append(z)
            return 10 * z

    for clip, state, target in ((4.0, 4.0, 4.0), (0.0, 6.0, 35.0)):
        seen, zero = [], torch.zeros(1)
        found = Shortcut(clip=clip).half_steps(Steep(), torch.ones(1, 1), zero, zero)
        assert (seen[1].item(), found.item()) == (state, target)


def test_what_it_refuses():
    assert "adaptive" in METHOD.refuses(None)
    assert METHOD.refuses(128) is None and "at most 128" in METHOD.refuses(129)
    for words in ({"grid": 100}, {"grid": 1}, {"grid": 0}, {"share": 1.5}, {"clip": -1.0}):
        with pytest.raises(FlowbenchError, match=next(iter(words))):
            Shortcut(**words)


def test_one_step_learns_a_gaussian():
    """Smallest steps alone know nothing of one large step."""
    torch.manual_seed(0)
    data = exact.vectors(1 + 0.5 * torch.randn(4000, 2))
    spread = {}
    for share in (0.5, 0.0):
        method = Shortcut(width=16, grid=8, share=share, lr=0.01)
        net = method.train(data, Run(Budget(steps=120, batch=64)))
        samples = method.sample(net, randn(2000, 2).float(), None, 1)
        assert samples.mean().item() == pytest.approx(1.0, abs=0.15)
        spread[share] = samples.std(0).mean().item()
    assert 0.35 < spread[0.5] < 0.6
    assert spread[0.0] < 0.12
