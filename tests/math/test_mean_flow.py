"""Mean flows (arXiv:2505.13447): the identity, the loss and the jumps where all is known."""

import exact_fields as exact
import flow_maps
import pytest
import torch
from flowbench_plugins import mean_flow
from flowbench_plugins.cfm import CFM
from flowbench_plugins.mean_flow import MeanFlow
from torch import nn

from flowbench import FlowbenchError, nets
from flowbench.nets.backbone import Backbone
from flowbench.nets.settings import ADM, DDPMpp, NCSNpp, OpenAI
from flowbench.records import Budget
from flowbench.training import Run

MEAN, STD = 0.5, 0.5
METHOD = MeanFlow()


class Average(flow_maps.Law):
    """The exact u(z, (a, b - a)) of N(mean, std^2), whose times come scaled."""

    def exact(self, z, times):
        times = times / METHOD.time_scale
        return flow_maps.average(z, times[:, 0], times.sum(1), self.mean, self.std)


class Swapped(Average):
    """Takes the step for the time."""

    def exact(self, z, times):
        return super().exact(z, times.flip(1))


class Deaf(Average):
    """Does not hear the second time, so it is the velocity."""

    def exact(self, z, times):
        return super().exact(z, times * torch.tensor([1.0, 0.0]))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs_of_times(n=60):
    """Two times (n,) in order, a third of them equal, the ends 0 and 1 among them."""
    times = torch.rand(2, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    begin, end = times.sort(0).values
    begin[0], end[0] = 0.0, 1.0
    return begin, torch.where(torch.arange(n) % 3 == 2, begin, end)


def velocity(z, begin):
    return exact.gaussian(MEAN, STD, z.shape[1]).velocity(z, begin)


def test_the_closed_form():
    """At equal times it is the exact field; its jumps compose; it leads from noise to data."""
    z, (begin, end) = randn(60, 2), pairs_of_times()
    field = METHOD.velocity(Average(), z, begin, None)
    torch.testing.assert_close(field, velocity(z, begin), rtol=1e-10, atol=1e-10)
    middle = (begin + end) / 2
    step = flow_maps.jump(z, begin, middle, MEAN, STD)
    parts = flow_maps.jump(step, middle, end, MEAN, STD)
    whole = z + (end - begin)[:, None] * METHOD.average(Average(), z, begin, end)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)
    zero, one = torch.zeros(60).double(), torch.ones(60).double()
    ends = z + METHOD.average(Average(), z, zero, one)
    torch.testing.assert_close(ends, MEAN + STD * z, rtol=1e-10, atol=1e-10)


def test_the_identity_gives_the_exact_average_velocity():
    z, (begin, end) = randn(60, 2), pairs_of_times()
    v = velocity(z, begin)
    average, target = METHOD.identity(Average(), z, begin, end, v)
    torch.testing.assert_close(target, average, rtol=0, atol=1e-10)
    # Its mean over the velocities of data at z is the same: it is linear in them.
    noise = randn(60, 2, seed=5)
    both = [METHOD.identity(Average(), z, begin, end, v + s * noise)[1] for s in (1, -1)]
    torch.testing.assert_close(sum(both) / 2, average, rtol=0, atol=1e-10)
    assert (both[0] - average).abs().mean() > 0.1


@pytest.mark.parametrize(
    "direction", ["backwards", "only the state", "only the time", "both times"]
)
def test_a_wrong_direction_is_seen(direction, monkeypatch):
    """The closed form tells the right derivative from those that are known to be written."""
    factors = {"backwards": (-1, -1), "only the state": (1, 0), "only the time": (0, 1)}
    state, time = factors.get(direction, (1, 1))

    def wrong(told, place, along):
        if direction == "both times":  # the second moves along with the first
            step = place[1] * 0 + (end - begin)
            return torch.func.jvp(
                lambda z, t: METHOD.average(Average(), z, t, t + step), place, along
            )
        return torch.func.jvp(told, place, (state * along[0], time * along[1]))

    z, (begin, end) = randn(60, 2), pairs_of_times()
    monkeypatch.setattr(mean_flow, "derivative", wrong)
    average, target = METHOD.identity(Average(), z, begin, end, velocity(z, begin))
    assert (target - average).abs().max() > 0.05


def test_times_in_the_wrong_order_are_seen():
    z, (begin, end) = randn(60, 2), pairs_of_times()
    v = velocity(z, begin)
    for average, target in (
        METHOD.identity(Swapped(), z, begin, end, v),
        METHOD.identity(Average(), z, end, begin, v),  # v belongs to another time
    ):
        assert (target - average).abs().max() > 0.05


def test_the_target_is_a_constant():
    """Without that, the gradient of the exact average velocity is not zero."""
    z, (begin, end) = randn(60, 2), pairs_of_times()
    net = Average()
    average, target = METHOD.identity(net, z, begin, end, velocity(z, begin))
    assert average.requires_grad and not target.requires_grad


def gradient(method, network, monkeypatch, n=60_000):
    """The mean gradient of the training loss, and the standard error of its entries, (3,) each."""
    data = exact.vectors(MEAN + STD * randn(64, 1))
    loss = exact.loss_of(method, data, network, monkeypatch, run=None)
    found = []
    for part in range(20):
        torch.manual_seed(part)
        network.zero_grad()
        loss(MEAN + STD * torch.randn(n // 20, 1), None).backward()
        found.append(network.shift.grad.clone())
    each = torch.stack(found)
    return each.mean(0), each.std(0) / len(each) ** 0.5


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_the_loss_is_least_at_the_exact_average_velocity(power, monkeypatch):
    """The errors of a Gaussian are symmetric, so the adaptive weight moves nothing there."""
    method = MeanFlow(power=power)
    mean, error = gradient(method, Average(), monkeypatch)
    assert (mean.abs() < 4.5 * error).all()
    for wrong in (Average(shift=0.1), Deaf(), Swapped()):
        mean, error = gradient(method, wrong, monkeypatch)
        assert (mean.abs() > 8 * error).any()


def test_equal_times_are_flow_matching(monkeypatch):
    net, x = Average(shift=0.1), 2 * torch.randn(50, 1)
    data = exact.vectors(torch.randn(8, 1))
    loss = exact.loss_of(MeanFlow(ratio=0.0), data, net, monkeypatch, run=None)
    torch.manual_seed(3)
    ours = loss(x, None)
    torch.manual_seed(3)
    times, _ = MeanFlow(ratio=0.0).draw_times(50, "cpu")
    z, slope = CFM().interpolate(torch.randn_like(x), x, times)
    expected = (METHOD.velocity(net, z, times, None) - slope).square().mean()
    torch.testing.assert_close(ours, expected)


def test_the_adaptive_weight():
    """The error over its own size to a power, through which no gradient goes."""
    average = torch.tensor([[3.0, 0.0], [0.0, 0.1]], requires_grad=True)
    method = MeanFlow(power=0.75, constant=0.5)
    found = method.error(average, torch.zeros(2, 2))
    squares = torch.tensor([4.5, 0.005])
    weight = (squares + 0.25) ** -0.75
    torch.testing.assert_close(found, squares * weight)
    (slope,) = torch.autograd.grad(found.sum(), average)
    torch.testing.assert_close(slope, average.detach() * weight[:, None])
    plain = MeanFlow(power=0.0).error(average, torch.zeros(2, 2))
    torch.testing.assert_close(plain, squares)
    # Up to a factor, the paper's: sums over the entries in both places.
    paper = 2 * squares / (2 * squares + 0.5) ** 0.75
    torch.testing.assert_close(paper / found, torch.full((2,), 2**0.25))


def test_the_law_of_the_two_times():
    method, n = MeanFlow(ratio=0.6, mean=0.4, std=1.5), 200_000
    torch.manual_seed(0)
    begin, end = method.draw_times(n, "cpu")
    apart = end > begin
    assert (end >= begin).all() and (begin > 0).all() and (end < 1).all()
    assert apart.float().mean().item() == pytest.approx(0.6, abs=0.005)
    logits = torch.logit(torch.stack([begin, end])[:, apart].double())
    assert logits.mean().item() == pytest.approx(0.4, abs=0.02)
    assert logits.std().item() == pytest.approx(1.5, abs=0.02)
    assert logits[1].sub(logits[0]).mean().item() == pytest.approx(1.5 * 2 / 3.14159**0.5, abs=0.02)


@pytest.mark.parametrize("nfe", [1, 2, 3, 7])
def test_jumps_are_exact_with_any_number_of_evaluations(nfe):
    noise, network = randn(40, 2), Average()
    seen = exact.calls(network)
    samples = METHOD.sample(network, noise, None, nfe)
    torch.testing.assert_close(samples, MEAN + STD * noise, rtol=0, atol=1e-10)
    assert [len(times) for _, times in seen] == [40] * nfe
    told = torch.stack([times[0] for _, times in seen]) / METHOD.time_scale
    torch.testing.assert_close(told[:, 0], torch.arange(nfe).double() / nfe)
    torch.testing.assert_close(told[:, 1], torch.full((nfe,), 1 / nfe).double())
    for wrong in (Swapped(), Deaf()):
        other = METHOD.sample(wrong, noise, None, nfe)
        assert (other - samples).abs().max() > 0.01


BACKBONES = {
    "ddpmpp": DDPMpp(channels=32, mult=(1, 2), blocks=1, attention=(8,), dropout=0.2),
    "ncsnpp": NCSNpp(channels=32, mult=(1, 2), blocks=1, attention=(8,), dropout=0.2),
    "adm": ADM(channels=32, mult=(1, 2), blocks=1, attention=(8,), dropout=0.2),
    "openai": OpenAI(channels=32, mult=(1, 2), blocks=1, attention=(8,), dropout=0.2),
}


def backbone(name):
    """A network of two times, stirred, so that nothing is zero by its start; float64 if it can."""
    torch.manual_seed(0)
    if name == "mlp":
        net, shape = nets.MLP((6,), 3, 16, times=2), (6,)
    elif name == "unet":
        net, shape = nets.UNet((1, 8, 8), 3, 16, times=2), (1, 8, 8)
    else:
        net, shape = Backbone(BACKBONES[name], (3, 16, 16), 3, 2), (3, 16, 16)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
    return net if name == "openai" else net.double(), shape


@pytest.mark.parametrize("name", ["mlp", "unet", *BACKBONES])
def test_the_derivative_of_every_network(name):
    """Along the path it agrees with differences; with dropout, the target still has no gradient."""
    net, shape = backbone(name)
    kind = next(net.parameters()).dtype
    x, v = randn(3, *shape).to(kind), randn(3, *shape, seed=1).to(kind)
    begin, end, y = (torch.rand(3) / 2).to(kind), torch.full((3,), 0.9).to(kind), torch.arange(3)

    def told(z, time):
        return METHOD.average(net, z, time, end, y)

    net.eval()
    _, change = mean_flow.derivative(told, (x, begin), (v, torch.ones_like(begin)))
    step = 3e-3 if x.dtype == torch.float32 else 1e-4
    high, low = (told(x + h * v, begin + h).detach() for h in (step, -step))
    difference = (high - low) / (2 * step)
    error = (change - difference).norm()
    assert error < 0.01 * difference.norm()
    still = torch.zeros_like(begin)
    _, partial = mean_flow.derivative(told, (x, begin), (v, still))
    assert (partial - difference).norm() > 3 * error  # the time has its share

    average, target = METHOD.identity(net.train(), x, begin, end, v, y)
    (average - target).square().mean().backward()
    slopes = [weight.grad for weight in net.parameters() if weight.grad is not None]
    assert len(slopes) > 10 and all(slope.isfinite().all() for slope in slopes)


def test_value_and_derivative_have_one_dropout_mask():
    torch.manual_seed(0)
    dropout = nn.Dropout(0.5)
    value, change = mean_flow.derivative(dropout, (torch.ones(200),), (torch.ones(200),))
    assert torch.equal(value == 0, change == 0)
    assert 50 < (value == 0).sum() < 150
    assert not torch.equal(value == 0, dropout(torch.ones(200)) == 0)


def test_what_it_refuses():
    data = exact.vectors(torch.randn(8, 1))
    assert METHOD.refuses_data(data) is None
    for precision, refused in (("bfloat16", True), ("float16", True), ("float32", False)):
        network = DDPMpp(precision=precision)
        stand = type("Data", (), {"network": network})()
        assert ("--precision fp32" in (METHOD.refuses_data(stand) or "")) == refused
    assert "adaptive" in METHOD.refuses(None)
    assert METHOD.refuses(1) is None and METHOD.refuses(1000) is None
    for words in (
        {"ratio": 1.5},
        {"std": -1.0},
        {"power": -0.5},
        {"constant": 0.0},
        {"time_scale": 0.0},
    ):
        with pytest.raises(FlowbenchError, match=next(iter(words))):
            MeanFlow(**words)


def test_one_jump_learns_a_gaussian():
    """Flow matching alone sends all noise to the mean in one jump."""
    torch.manual_seed(0)
    data = exact.vectors(1 + 0.5 * torch.randn(4000, 2))
    spread = {}
    for ratio in (0.75, 0.0):
        method = MeanFlow(ratio=ratio, width=16, lr=0.01)
        net = method.train(data, Run(Budget(steps=120, batch=64)))
        samples = method.sample(net, randn(2000, 2).float(), None, 1)
        assert samples.mean().item() == pytest.approx(1.0, abs=0.15)
        spread[ratio] = samples.std(0).mean().item()
    assert 0.2 < spread[0.75] < 0.6
    assert spread[0.0] < 0.12
