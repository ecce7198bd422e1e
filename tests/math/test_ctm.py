"""Consistency trajectory models (arXiv:2310.02279) and consistency distillation: closed forms."""

import copy
import itertools
import math

import exact_fields as exact
import pytest
import torch
from exact_fields import Ends, ratio
from flowbench_plugins.ctm import CTM, squared
from flowbench_plugins.edm import EDM
from torch import nn

from flowbench import FlowbenchError, nets, noise_levels, solvers
from flowbench.coordinates import like, velocity_of
from flowbench.losses.adversarial import adaptive_weight
from flowbench.noise import Stream, unit_noise
from flowbench.records import Budget
from flowbench.teacher import Teacher, copy_weights
from flowbench.testing import Killed, Stop
from flowbench.training import Average, Run

LOW, HIGH = 0.002, 80.0


class Exact(nn.Module):
    """g of the exact jump of N(0, std^2): (G - (s/t) x) / (1 - s/t), and D where s = t."""

    def __init__(self, std=0.5):
        super().__init__()
        self.std = std

    def forward(self, x, t, y=None, s=None):
        clean = like(self.std**2 / (self.std**2 + t.square()), x) * x
        if s is None:
            return clean
        keep = like(s / t, x)
        jumped = (like(ratio(self.std, t, s), x) - keep) * x / (1 - keep)
        return torch.where(keep == 1, clean, jumped)


class Euler(Exact):
    """A g that does not hear s: its jumps are Euler steps."""

    def forward(self, x, t, y=None, s=None):
        return super().forward(x, t)


def teacher_of(denoiser) -> Teacher:
    """A teacher with this denoiser (x, sigma, y)."""
    return Teacher(
        lambda: exact.Net(denoiser),
        lambda network, z, t, labels: velocity_of(network)(z, t, labels),
    )


def gaussian_teacher(std=0.5) -> Teacher:
    return teacher_of(exact.gaussian(0.0, std).denoiser)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels_between(n, seed=0):
    """`n` triples t > u > s of noise levels, float64."""
    places = torch.rand(3, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise_levels.warp(places).sort(0, descending=True).values


def trained_data(n=40, dim=3):
    return exact.vectors(torch.randn(n, dim, generator=torch.Generator().manual_seed(0)))


def stirred(net, seed=0):
    """`net` with every weight moved, so that nothing is zero by its start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net


def test_a_jump_to_where_it_starts_is_exact():
    method, x = CTM(width=16), torch.randn(50, 3)
    net = stirred(method.network(trained_data()))
    t = noise_levels.warp(torch.rand(50))
    assert torch.equal(method.jump(net, x, t, t), x)
    assert not torch.allclose(method.jump(net, x, t, t / 2), x, atol=1e-3)


@pytest.mark.parametrize("low", [0.002, 0.1])
def test_consistency_functions_keep_what_is_clean(low):
    x, method = torch.randn(50, 3), CTM(variant="cd", width=16, sigma_min=low)
    net = stirred(method.network(trained_data()))
    assert torch.equal(net(x, torch.full((50,), low)), x)
    unshifted = nets.Denoiser(net.net, net.std, "edm")
    assert not torch.equal(unshifted(x, torch.full((50,), low)), x)


def test_the_start_is_the_teachers_euler_step():
    data, x = trained_data(), 5 * torch.randn(60, 3)
    teacher, method = stirred(EDM(width=16).network(data)), CTM(width=16)
    net = method.network(data)
    copy_weights(teacher, net, new="second")
    t, _, s = levels_between(60).float()
    expected = x + like((s - t) / t, x) * (x - teacher(x, t))
    torch.testing.assert_close(method.jump(net, x, t, s), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # control: the second time is heard as soon as it has weights
        stirred(net.net.embedding.second)
    assert not torch.allclose(method.jump(net, x, t, s), expected, rtol=1e-2, atol=1e-2)
    assert torch.equal(net(x, t), net(x, t, None, t))


@pytest.mark.parametrize("start", ["teacher", "random"])
def test_training_starts_from_the_teachers_weights(start):
    teacher = stirred(EDM(width=16).network(trained_data()))
    given = Teacher(lambda: teacher, EDM().velocity, EDM().interval)
    method = CTM(width=16, start=start, lr=1e-9)
    net = method.train(trained_data(), Run(Budget(steps=2, batch=4)), given)
    same = torch.allclose(net.net.input.weight, teacher.net.input.weight, atol=1e-6)
    assert same == (start == "teacher")


@pytest.mark.parametrize(("variant", "loss"), [("ctm", "matching"), ("cd", "distillation")])
def test_the_average_is_a_target_and_what_training_returns(variant, loss, monkeypatch):
    seen, original = [], getattr(CTM, loss)

    def spy(self, net, averaged, *given):
        seen.append((net, averaged))
        return original(self, net, averaged, *given)

    monkeypatch.setattr(CTM, loss, spy)
    method = CTM(variant=variant, width=16, start="random")
    net = method.train(trained_data(), Run(Budget(steps=2, batch=4)), gaussian_teacher())
    assert all(averaged is net and student is not net for student, averaged in seen)
    assert len(seen) == 2


def test_a_student_of_cd_starts_near_the_teacher():
    data, x = trained_data(), torch.randn(60, 3)
    teacher, net = stirred(EDM(width=16).network(data)), CTM(variant="cd", width=16).network(data)
    copy_weights(teacher, net, new="second")
    sigma = torch.full((60,), 2.0)
    torch.testing.assert_close(net(x, sigma), teacher(x, sigma), rtol=0, atol=5e-3)


@pytest.mark.parametrize("variant", ["ctm", "cd"])
def test_weights_of_another_network_are_refused(variant):
    data = trained_data()
    net = CTM(variant=variant, width=16).network(data)
    for other in (
        EDM(width=24).network(data),
        nets.Denoiser(nets.default(data, width=16), data.std, "line"),
        nn.Linear(3, 3),
        CTM(width=24).network(data),
    ):
        with pytest.raises(FlowbenchError, match="start=random"):
            copy_weights(other, net, new="second")


def test_exact_jumps_compose():
    """G(G(x, t, u), u, s) = G(x, t, s); an Euler jump does not."""
    method, x = CTM(), randn(40, 2)
    t, u, s = levels_between(40)
    network = Exact()
    whole = method.jump(network, x, t, s)
    parts = method.jump(network, method.jump(network, x, t, u), u, s)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(whole, like(ratio(0.5, t, s), x) * x, rtol=1e-9, atol=1e-12)

    broken = method.jump(Euler(), method.jump(Euler(), x, t, u), u, s)
    assert (broken - method.jump(Euler(), x, t, s)).abs().max() > 1e-2


def test_g_of_a_gaussian():
    """Coefficients of g from t = 1 for data of standard deviation 0.5; 0.2 is the denoiser's."""
    one = torch.ones(1, 1, dtype=torch.float64)
    found = [Exact()(one, one[0], None, s * one[0]).item() for s in (0.5, 1 - 1e-6)]
    assert found == pytest.approx([0.26491, 0.2000001], abs=1e-5)
    assert Exact()(one, one[0]).item() == pytest.approx(0.2)


def spread(method, network, nfe, std):
    """Standard deviation of the samples, from a start with the exact law at `sigma_max`."""
    noise, rng = exact.basis(nfe + 1)
    start = math.hypot(std, method.sigma_max) / method.sigma_max * noise
    return method.sample(network, start, None, nfe, rng).norm().item()


@pytest.mark.parametrize("nodes", ["karras", "uniform"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("low", [0.002, 0.3])
def test_gamma_sampling_keeps_the_variance(gamma, nodes, low):
    """Of data plus noise at the lowest level, after any number of exact jumps."""
    method = CTM(gamma=gamma, nodes=nodes, sigma_min=low)
    for nfe in (1, 2, 3, 10):
        assert spread(method, Exact(), nfe, 0.5) == pytest.approx(math.hypot(0.5, low), rel=1e-9)
    assert spread(method, Euler(), 10, 0.5) != pytest.approx(math.hypot(0.5, low), rel=0.05)


@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_full_noise_is_the_multistep_sampler_of_consistency_models(nfe):
    low, noise = 0.3, unit_noise(0, range(20), (2,)).double()
    jumps = CTM(gamma=1.0, nodes="uniform", sigma_min=low)
    ends = CTM(variant="cd", sigma_min=low)
    streams = [Stream(0, range(20), (2,), "cpu") for _ in range(3)]
    first = jumps.sample(Exact(), noise, None, nfe, streams[0])
    second = ends.sample(Ends(low=low), noise, None, nfe, streams[1])
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    x = ratio(0.5, HIGH, low) * HIGH * noise
    for level in ends.path(nfe)[1:-1]:
        x = ratio(0.5, level, low) * (x + math.sqrt(level**2 - low**2) * streams[2]())
    torch.testing.assert_close(first, x, rtol=1e-6, atol=1e-6)
    still = CTM(nodes="uniform", sigma_min=low).sample(Exact(), noise, None, nfe, None)
    assert nfe == 1 or not torch.allclose(still, first, atol=0.05)


@pytest.mark.parametrize(("gamma", "share"), [(0.0, 1.0), (0.6, 0.8), (0.8, 0.6), (1.0, 0.0)])
def test_jumps_end_below_the_level_that_noise_brings_back(gamma, share):
    """s = sqrt(1 - gamma^2) (tau - smin) + smin."""
    ends = []

    def network(x, t, y, s):
        ends.append(s[0].item())
        return Exact()(x, t, y, s)

    method = CTM(gamma=gamma, levels=(5.0, 0.5), sigma_min=0.2)
    method.sample(network, randn(2, 3), None, 3, Stream(0, range(2), (3,), "cpu"))
    assert ends == pytest.approx([0.2 + share * 4.8, 0.2 + share * 0.3, 0.2])


def test_levels_of_the_sampler():
    assert CTM().path(2) == pytest.approx([80, 2.51522, 0.002], abs=1e-4)
    assert CTM(variant="cd").path(2) == pytest.approx([80, 0.97951, 0.002], abs=1e-4)
    assert CTM(variant="cd", nodes="karras").path(2)[1] == pytest.approx(2.51522, abs=1e-4)
    assert CTM(variant="cd", levels=(1.382,)).path(2) == [80, 1.382, 0.002]
    assert CTM(levels=(5.0, 0.5)).path(3) == [80, 5.0, 0.5, 0.002]
    for method, nfe in itertools.product(
        (CTM(), CTM(nodes="uniform"), CTM(variant="cd")), (1, 2, 7, 600)
    ):
        path = method.path(nfe)
        assert len(path) == nfe + 1 and (path[0], path[-1]) == (80, 0.002)
        assert sorted(set(path), reverse=True) == path
        network = Exact() if method.variant == "ctm" else Ends()
        seen = exact.calls(network)
        rng = Stream(0, range(2), (3,), "cpu")
        found = method.sample(network, torch.randn(2, 3), None, nfe, rng)
        assert found.dtype == torch.float32
        assert [level[0].item() for _, level in seen] == pytest.approx(path[:-1], rel=1e-6)


def all_jumps(grid, steps):
    """(levels (steps + 1, n), s (n,)) of every pair (i, j) that leaves room for `steps` steps."""
    nodes = noise_levels.karras(grid)
    pairs = [(i, j) for i in range(grid - steps) for j in range(i + steps, grid)]
    i, j = torch.tensor(pairs).T
    return nodes[i + torch.arange(steps + 1)[:, None]], nodes[j]


def heun_factor(std, levels):
    """What Heun's rule down `levels` (K + 1, n) multiplies a state of N(0, std^2) by."""
    total = torch.ones_like(levels[0])
    for t, u in itertools.pairwise(levels):
        a, after, h = t / (std**2 + t**2), u / (std**2 + u**2), u - t
        total = total * (1 + h / 2 * (a + after * (1 + h * a)))
    return total


def consistency_of(monkeypatch, jumps, teacher=None, network=None, heun=None):
    """The consistency loss at the given jumps, and the noisy states that it saw."""
    monkeypatch.setattr(CTM, "draw_jumps", lambda self, n, device, most: jumps)
    if heun is not None:
        monkeypatch.setattr(solvers, "heun_paths", heun)
    x, network = 0.5 * randn(len(jumps[1]), 2), network or Exact()
    torch.manual_seed(5)
    ends = CTM().ends(network, network, teacher or gaussian_teacher(), x, None)
    loss = squared(*ends).mean().item()
    torch.manual_seed(5)
    return loss, x + like(jumps[0][0], x) * torch.randn_like(x)


@pytest.mark.parametrize("steps", [1, 2, 4, 17])
def test_exact_jumps_have_only_the_teachers_step_error(steps, monkeypatch):
    """(G(t, smin) - G(u, smin) H)^2 E x^2, with H the factor of the teacher's Heun steps."""
    levels, s = all_jumps(18, steps)
    found, noisy = consistency_of(monkeypatch, (levels, s))
    to_end = ratio(0.5, levels[[0, -1]], LOW)
    missed = to_end[0] - to_end[1] * heun_factor(0.5, levels)
    expected = (like(missed, noisy) * noisy).square().mean().item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_exact_jumps_have_no_loss_where_steps_are_fine(monkeypatch):
    nodes = noise_levels.karras(2000)
    i = torch.arange(0, 1900, 19)
    jumps = nodes[i + torch.arange(5)[:, None]], nodes[i + 99]
    assert consistency_of(monkeypatch, jumps)[0] < 1e-12


def first_half(denoiser, x, y, levels, heun=solvers.heun_paths):
    return heun(denoiser, x, y, levels[: len(levels) // 2 + 1])


def upwards(denoiser, x, y, levels, heun=solvers.heun_paths):
    return heun(denoiser, x, y, levels.flip(0))


def new_noise(denoiser, x, y, levels, heun=solvers.heun_paths):
    return 0.5 * randn(*x.shape, seed=9) + like(levels[-1], x) * randn(*x.shape, seed=8)


@pytest.mark.parametrize("wrong", [first_half, upwards, new_noise])
def test_consistency_catches_other_steps(wrong, monkeypatch):
    jumps = all_jumps(18, 4)
    right = consistency_of(monkeypatch, jumps)[0]
    assert consistency_of(monkeypatch, jumps, heun=wrong)[0] > 100 * right


def test_consistency_catches_the_wrong_sign(monkeypatch):
    jumps, exact_teacher = all_jumps(18, 4), exact.gaussian(0.0, 0.5).denoiser
    right = consistency_of(monkeypatch, jumps)[0]
    away = teacher_of(lambda x, sigma, y: 2 * x - exact_teacher(x, sigma))
    assert consistency_of(monkeypatch, jumps, teacher=away)[0] > 100 * right


class Line(nn.Module):
    """g(x, t, y, s) = a x."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x, t, y=None, s=None):
        return self.a * x


@pytest.mark.parametrize("target", ["live", "ema"])
def test_gradient_passes_through_the_averaged_network_only(target, monkeypatch):
    """d loss / d a for g = a x, by hand; no gradient through the target or into the average."""
    levels, s = all_jumps(18, 2)
    monkeypatch.setattr(CTM, "draw_jumps", lambda self, n, device, most: (levels, s))
    x, student, average = 0.5 * randn(len(s), 1), Line(0.3), Average(Line(0.7))
    torch.manual_seed(5)
    ends = CTM(target=target).ends(student, average.net, gaussian_teacher(), x, None)
    loss = squared(*ends).mean()
    loss.backward()
    torch.manual_seed(5)
    t, u = levels[0][:, None], levels[-1][:, None]
    noisy, s = x + t * torch.randn_like(x), s[:, None]

    def multiplier(a, start, end):
        return end / start + (1 - end / start) * a

    outer = multiplier(0.7, s, LOW)
    after = heun_factor(0.5, levels)[:, None] * noisy
    goal = outer * multiplier(0.3 if target == "live" else 0.7, u, s) * after
    error = outer * multiplier(0.3, t, s) * noisy - goal
    expected = (2 * error * outer * (1 - s / t) * noisy).mean().item()
    without_average = (2 * error * (1 - s / t) * noisy).mean().item()
    assert student.a.grad.item() == pytest.approx(expected, rel=1e-9)
    assert student.a.grad.item() != pytest.approx(without_average, rel=0.1)
    assert average.net.a.grad is None and average.net.a.item() == 0.7


class PerLevel(nn.Module):
    """A linear consistency function with a coefficient for each level of a grid."""

    def __init__(self, grid):
        super().__init__()
        self.grid, self.a = noise_levels.karras(grid), torch.ones(grid, dtype=torch.float64)

    def forward(self, x, t, y=None):
        rows = (self.grid - t[:, None]).abs().argmin(1)
        return like(self.a[rows], x) * x


def fixed_point(std, grid, monkeypatch, heun=None):
    """The multiplier from 80 to 0.002 over the exact one, by least squares of CD's own loss.

    The loss is a parabola in each level's coefficient. Four rows have the moments of data and
    noise exactly.
    """
    x = std * torch.tensor([1.0, 1, -1, -1], dtype=torch.float64)[:, None]
    noise = torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)[:, None]
    network, method = PerLevel(grid), CTM(variant="cd", grid=grid, weight="none")
    monkeypatch.setattr(torch, "randn_like", lambda like: noise)
    if heun is not None:
        monkeypatch.setattr(
            solvers, "heun_paths", lambda d, noisy, y, levels: heun(x, noise, levels)
        )

    def loss(i, a):
        network.a[i] = a
        levels = network.grid[[i, i + 1]][:, None].expand(2, 4)
        monkeypatch.setattr(CTM, "draw_jumps", lambda self, n, device: (levels, None))
        return method.distillation(network, network, gaussian_teacher(std), x, None).item()

    for i in reversed(range(grid - 1)):
        low, middle, high = (loss(i, a) for a in (0.0, 0.5, 1.0))
        network.a[i] = 0.5 + (low - high) / 4 / (low - 2 * middle + high)
    return network.a[0].item() / ratio(std, HIGH, LOW)


HEUN = {(0.5, 18): 1.05528, (0.5, 40): 1.00978, (1.0, 18): 1.04481, (1.0, 40): 1.00798}
WITH_DATA = {(0.5, 18): 0.84609, (0.5, 40): 0.92973, (1.0, 18): 0.85952, (1.0, 40): 0.93614}


@pytest.mark.parametrize(("std", "grid"), HEUN)
def test_the_fixed_point_of_distillation(std, grid, monkeypatch):
    found = fixed_point(std, grid, monkeypatch)
    assert found == pytest.approx(HEUN[std, grid], abs=2e-5)


@pytest.mark.parametrize(("std", "grid"), WITH_DATA)
def test_the_fixed_point_tells_training_on_data_apart(std, grid, monkeypatch):
    """Euler's step with the clean data for a denoiser, as consistency training has it."""

    def from_data(x, noise, levels):
        return x + like(levels[1], x) * noise

    found = fixed_point(std, grid, monkeypatch, from_data)
    assert found == pytest.approx(WITH_DATA[std, grid], abs=2e-5)


@pytest.mark.parametrize("weight", ["edm", "none"])
def test_distillation_of_the_exact_function(weight, monkeypatch):
    levels = all_jumps(18, 1)[0]
    monkeypatch.setattr(CTM, "draw_jumps", lambda self, n, device: (levels, None))
    method, x = CTM(variant="cd", weight=weight), 0.5 * randn(levels.shape[1], 2)
    torch.manual_seed(5)
    found = method.distillation(Ends(), Ends(), gaussian_teacher(), x, None).item()
    torch.manual_seed(5)
    t, u = levels
    noisy = x + like(t, x) * torch.randn_like(x)
    missed = ratio(0.5, t, LOW) - ratio(0.5, u, LOW) * heun_factor(0.5, levels)
    weights = (t**2 + 0.25) / (0.5 * t) ** 2 if weight == "edm" else torch.ones_like(t)
    expected = (like(weights * missed**2, x) * noisy.square()).mean().item()
    assert found == pytest.approx(expected, rel=1e-6)


def distilled(target, seed):
    """CD's loss and its gradient, with an average of the same weights or others by `seed`."""
    torch.manual_seed(0)
    data, method = trained_data(), CTM(variant="cd", width=16, target=target)
    net = stirred(method.network(data))
    averaged = Average(stirred(copy.deepcopy(net), seed) if seed else net).net
    torch.manual_seed(2)
    loss = method.distillation(net, averaged, gaussian_teacher(), data.train.values, None)
    loss.backward()
    assert all(weight.grad is None for weight in averaged.parameters())
    return loss.item(), net.net.output.weight.grad


def test_the_target_of_distillation():
    """Live or averaged weights, without a gradient of their own."""
    live, same, other = (distilled(*case) for case in (("live", 1), ("ema", 0), ("ema", 1)))
    assert live[0] == pytest.approx(same[0]) and live[0] != pytest.approx(other[0], rel=1e-3)
    torch.testing.assert_close(live[1], same[1])


def test_law_of_jumps():
    torch.manual_seed(0)
    method, nodes = CTM(), noise_levels.karras(18)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[len(method.draw_jumps(1, "cpu", 4)[0]) - 2] += 1
    assert (counts / 4000).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    levels, s = method.draw_jumps(200_000, "cpu", 1)
    i, after, j = (torch.searchsorted(-nodes, -part) for part in (*levels, s))
    assert torch.equal(after, i + 1) and (j >= after).all()
    shares = torch.bincount(i, minlength=18) / len(i)
    assert shares.tolist() == pytest.approx([1 / 17] * 17 + [0], abs=0.003)
    for start in (0, 10, 16):
        ends = torch.bincount(j[i == start], minlength=18)[start + 1 :].double()
        assert (ends / ends.sum()).tolist() == pytest.approx([1 / len(ends)] * len(ends), abs=0.02)
    levels, s = method.draw_jumps(1000, "cpu", 17)
    assert torch.equal(levels, levels.sort(0, descending=True).values)
    assert (s <= levels[-1]).all() and (levels[-1] < levels[0]).all()


def test_denoising():
    """The best loss of N(0, std^2) is 1 at each level; half of the levels are high."""
    torch.manual_seed(0)
    x, seen = 0.5 * torch.randn(40_000, 2), []

    class Denoiser(nets.Denoiser):
        sign = 1

        def forward(self, x, sigma, y=None):
            seen.append(sigma)
            return self.sign * Exact()(x, sigma)

    network = Denoiser(nn.Identity(), 0.5)
    assert CTM().denoising(network, x, None).item() == pytest.approx(1, rel=0.02)
    network.sign = -1
    assert CTM().denoising(network, x, None).item() > 2
    usual, high = seen[0].chunk(2)
    assert usual.log().mean().item() == pytest.approx(-1.2, abs=0.03)
    assert usual.log().std().item() == pytest.approx(1.2, abs=0.03)
    assert 0.318 < high.min() < 0.33 and 79 < high.max() <= 80
    assert high.median().item() == pytest.approx(8.5888, rel=0.03)  # warp(0.35)


def gradient(method, scale, monkeypatch):
    """The gradient in the last layer of a student whose denoising loss is scaled."""
    data = trained_data()
    torch.manual_seed(0)
    net = stirred(method.network(data))
    original = CTM.denoising
    with monkeypatch.context() as patch:
        patch.setattr(CTM, "denoising", lambda *args: scale * original(*args))
        torch.manual_seed(3)
        loss = method.matching(net, Average(net).net, gaussian_teacher(), data.train.values, None)
    return torch.autograd.grad(loss, net.get_parameter("net.output.weight"))[0]


def test_the_adaptive_weight_does_not_see_scale(monkeypatch):
    adaptive = CTM(adaptive=True, width=16)
    first, second = (gradient(adaptive, scale, monkeypatch) for scale in (1.0, 10.0))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)
    first, second = (gradient(CTM(width=16), scale, monkeypatch) for scale in (1.0, 10.0))
    assert second.norm() > 2 * first.norm()  # control: the fixed weight does
    other = gradient(CTM(adaptive=True, dsm=1.0, width=16), 1.0, monkeypatch)
    torch.testing.assert_close(other, gradient(adaptive, 1.0, monkeypatch))
    none = gradient(CTM(width=16, dsm=0.0), 1.0, monkeypatch)
    assert torch.equal(none, gradient(CTM(width=16, dsm=0.0), 10.0, monkeypatch))


def test_the_adaptive_weight_makes_gradients_equally_long():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    consistency, denoising = (3 * weight).sum(), (weight * torch.tensor([0.5, 0.0])).sum()
    factor = adaptive_weight(consistency, denoising, weight, 0, 1e4)
    assert factor.item() == pytest.approx(3 * math.sqrt(2) / 0.5, rel=1e-3)
    assert not factor.requires_grad
    assert adaptive_weight(consistency, 0 * denoising, weight, 0, 1e4).item() == 10_000


class Greedy:
    """Makes a teacher, and takes random numbers the first time only, as one that is trained."""

    def __init__(self):
        self.made = 0
        torch.manual_seed(8)
        self.network = stirred(EDM(width=16).network(trained_data()))

    def __call__(self):
        self.made += 1
        torch.rand(self.made)
        return self.network


@pytest.mark.parametrize(
    "options", [{}, {"start": "random"}, {"variant": "cd"}, {"adaptive": True, "target": "ema"}]
)
def test_training_goes_on_exactly_and_leaves_the_teacher_alone(options, tmp_path):
    make, data, budget = Greedy(), trained_data(), Budget(steps=8, batch=16)
    before = copy.deepcopy(make.network.state_dict())

    def train(run):
        torch.manual_seed(0)
        teacher = Teacher(make, EDM().velocity, EDM().interval)
        return CTM(width=16, **options).train(data, run, teacher).state_dict()

    with pytest.raises(Stop):
        train(Killed(budget, tmp_path / "run", every=0))
    resumed = train(Run(budget, tmp_path / "run", every=0))
    made = make.made
    again = train(Run(budget, tmp_path / "run", every=0))
    assert make.made == made, "a finished student must not ask for its teacher"
    whole = train(Run(budget))
    for name, value in whole.items():
        assert torch.equal(resumed[name], value) and torch.equal(again[name], value), name
    for name, value in make.network.state_dict().items():
        assert torch.equal(before[name], value), name


@pytest.mark.parametrize("variant", ["ctm", "cd"])
def test_a_short_training_learns_what_the_teacher_knows(variant):
    """Where each label's data are; a student told other labels than its teacher would not."""
    labels = torch.arange(64) % 2
    rows = 3.0 * labels[:, None] + 0.5 * randn(64, 1)
    data = exact.vectors(rows, labels, classes=2)
    laws = [exact.gaussian(mean, 0.5) for mean in (0.0, 3.0)]

    def denoiser(x, sigma, y):
        parts = [law.denoiser(x, sigma) for law in laws]
        return torch.where(like(y, x) == 0, *parts).to(x)

    torch.manual_seed(0)
    method = CTM(variant=variant, width=16, start="random", lr=1e-2, ema=0.9)
    net = method.train(data, Run(Budget(steps=120, batch=64)), teacher_of(denoiser))
    noise = unit_noise(0, range(100), (1,))
    with torch.no_grad():
        ends = method.sample(net, noise, torch.arange(100) % 2, 1, None)
    assert ends[0::2].mean().item() == pytest.approx(0, abs=0.4)
    assert ends[1::2].mean().item() == pytest.approx(3, abs=0.4)


def test_velocity_and_interval():
    """g(x, t, t) is a denoiser; a consistency function is none, so it has no field."""
    method = CTM()
    assert method.interval == pytest.approx((1 / 81, 1 / 1.002))
    assert CTM(variant="cd").interval is None
    t = torch.linspace(*method.interval, 9, dtype=torch.float64)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    ours = method.velocity(Exact(), z, t, None)
    expected = exact.gaussian(0.0, 0.5).velocity(z, t)
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"grid": 4},
        {"kmax": 0},
        {"kmax": 18},
        {"variant": "cd", "grid": 1},
        {"gamma": 1.1},
        {"gamma": -0.1},
        {"dsm": -1.0},
        {"sigma_min": 0.0},
        {"sigma_min": 90.0},
        {"levels": (0.5, 5.0)},
        {"levels": (80.0,)},
        {"levels": (0.001,)},
        {"variant": "cd", "gamma": 0.5},
        {"variant": "cd", "kmax": 3},
        {"variant": "cd", "adaptive": True},
        {"weight": "none"},
    ],
)
def test_impossible_options(options):
    with pytest.raises(FlowbenchError):
        CTM(**options)


def test_refuses():
    assert CTM().refuses(None) and CTM().refuses(7) is None
    chosen = CTM(variant="cd", levels=(5.0, 0.5))
    assert [nfe for nfe in range(1, 6) if chosen.refuses(nfe) is None] == [1, 3]
