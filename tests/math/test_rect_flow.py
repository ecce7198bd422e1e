"""Rectified flow (arXiv:2209.03003): pairs, the fields learned from them, laws of times, drift."""

import math

import exact_fields as exact
import numpy as np
import pytest
import torch
from flowbench_plugins import rect_flow
from flowbench_plugins.lmm import LMM
from flowbench_plugins.rect_flow import RectFlow
from scipy import stats

from flowbench import FlowbenchError, planning
from flowbench.coordinates import like, velocity_of
from flowbench.data.base import Modes
from flowbench.metrics.straightness import straightness
from flowbench.noise import balanced_labels
from flowbench.records import Budget
from flowbench.teacher import Teacher
from flowbench.training import Run

EDM = (1 / 81, 1 / 1.002)
STDS = torch.tensor([0.5, 2.0])
UNEVEN = exact.Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-1.0], [0.6]]).double(),
    torch.tensor([[0.2], [0.35]]).double(),
)


def run(folder=None, steps: int = 10, batch: int = 4, seed: int = 0) -> Run:
    return Run(Budget(steps, batch), folder=folder and folder / "run", seed=seed)


def flow(function) -> Teacher:
    """A teacher whose canonical field is `function` (z, t, labels), on all of [0, 1]."""
    return Teacher(lambda: exact.Net(function), lambda network, z, t, labels: network(z, t, labels))


def of(law: exact.Mixture) -> Teacher:
    return flow(law.velocity)


def denoiser(std: float, seen: list | None = None) -> Teacher:
    """A teacher that is the exact denoiser of N(0, std^2), on EDM's levels."""

    def function(x, sigma, y):
        if seen is not None:
            seen.append(len(x))
        return std**2 / (std**2 + like(sigma, x).square()) * x

    return Teacher(
        lambda: exact.Net(function),
        lambda network, z, t, labels: velocity_of(network)(z, t, labels),
        EDM,
    )


def pairs_of(method: RectFlow, teacher: Teacher, data=None, n: int = 200):
    """(noise, sample, label) of all the pairs that `method` makes with `teacher`."""
    pairs = method.make_pairs(data or exact.vectors(torch.randn(50, 1)), run(), teacher)
    pairs.prepare()
    return pairs.draw(torch.arange(len(pairs)))


def straight(mean: float, std):
    """The exact second flow of N(mean, std^2): the velocity of the lines x0 -> mean + std x0."""

    def velocity(z, t, labels=None):
        s, gap = like(t, z), torch.as_tensor(std, dtype=z.dtype) - 1
        return mean + gap * (z - s * mean) / (1 + s * gap)

    return velocity


def quantiles(law: exact.Mixture, x0: torch.Tensor) -> torch.Tensor:
    """F^-1(Phi(x0)), the endpoint map of every exact flow to a 1-D law; x0 (n, 1)."""
    return law.quantile(torch.special.ndtr(x0[:, 0].double()))[:, None].to(x0)


def second(law: exact.Mixture):
    """The exact second flow of a 1-D law: lines from x0 to F^-1(Phi(x0)), one t for a batch."""
    starts = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    moves = (quantiles(law, starts[:, None])[:, 0] - starts).numpy()

    def velocity(z, t, labels=None):
        states = starts.numpy() + t[0].item() * moves  # rises with the start
        return torch.from_numpy(np.interp(z.numpy(), states, moves)).to(z)

    return velocity


def loss_of(method: RectFlow, function, monkeypatch, teacher=None, data=None):
    """The loss that `method` minimises, for a network `function`."""
    data = data or exact.vectors(torch.randn(9, 2))
    network = exact.Net(function)
    return exact.loss_of(method, data, network, monkeypatch, run=run(), teacher=teacher)


@pytest.fixture
def gaussian_pairs():
    """Pairs of the exact first flow to N(3, diag(0.25, 4)), all alike but for the step count."""
    law = exact.gaussian(3.0, STDS.double(), 2)
    data = exact.vectors(torch.randn(9, 2))

    def make(steps: int):
        return pairs_of(RectFlow(pairs=2000, pair_steps=steps), of(law), data)

    return make


def test_the_second_flow_of_a_gaussian_has_no_loss(gaussian_pairs, monkeypatch):
    """On exact pairs the velocity mu + (s-1)(z - t mu)/(1 + t(s-1)) leaves nothing to learn."""
    noise, x, _ = gaussian_pairs(100)
    torch.testing.assert_close(x, 3 + STDS * noise, atol=2e-3, rtol=0)
    method = RectFlow(start="random")
    exact_field = straight(3.0, STDS)
    loss = loss_of(method, exact_field, monkeypatch, teacher=flow(exact_field))
    assert loss(noise, x, None).item() < 1e-5
    assert loss(noise, x.roll(1, 0), None).item() > 1  # control: unpaired
    assert loss(*gaussian_pairs(2)).item() > 1e-2  # control: a coarse teacher
    wrong = loss_of(method, lambda *at: -exact_field(*at), monkeypatch, teacher=flow(exact_field))
    assert wrong(noise, x, None).item() > 1  # control: sign


def test_half_the_steps_make_worse_pairs(gaussian_pairs):
    """Heun's rule is of second order: half the steps, four times the error."""

    def miss(steps: int) -> float:
        noise, x, _ = gaussian_pairs(steps)
        return (x - 3 - STDS * noise).square().mean().sqrt().item()

    assert 3.4 < miss(20) / miss(40) < 4.6
    assert miss(20) < 0.03


def test_the_second_flow_is_straight_and_one_step_is_exact():
    method, x0 = RectFlow(), torch.randn(400, 2, dtype=torch.float64)
    field = straight(3.0, STDS)
    for nfe in (1, 2, 7):
        end = method.sample(exact.Net(field), x0, None, nfe)
        torch.testing.assert_close(end, 3 + STDS * x0, atol=1e-6, rtol=0)
    assert max(straightness(field, x0, None)) < 1e-6
    first = exact.gaussian(3.0, STDS.double(), 2).velocity
    assert straightness(first, x0, None)[0] > 0.5  # control: the first flow is bent
    collapsed = method.sample(exact.Net(first), x0, None, 1)
    torch.testing.assert_close(collapsed, torch.full_like(x0, 3.0))  # control: and collapses


@pytest.mark.parametrize(
    "options", [{"pair_steps": 100}, {"pair_solver": "dopri5"}], ids=["heun", "dopri5"]
)
def test_reflow_keeps_the_endpoint_map(options):
    """Pairs of the first and of the second flow end where the quantile map says."""
    method = RectFlow(pairs=150, **options)
    for teacher in (of(UNEVEN), flow(second(UNEVEN))):
        noise, x, _ = pairs_of(method, teacher)
        torch.testing.assert_close(x, quantiles(UNEVEN, noise), atol=3e-3, rtol=0)
        assert (x.roll(1, 0) - quantiles(UNEVEN, noise)).abs().mean() > 0.3  # control: unpaired
    noise, x, _ = pairs_of(method, flow(lambda *at: -UNEVEN.velocity(*at)))
    assert (x - quantiles(UNEVEN, noise)).abs().mean() > 0.5  # control: sign


def test_loss_and_bend_sum_to_what_transport_saves(monkeypatch):
    """Lmin + S2 = E|X1 - X0|^2 - E|Z1 - Z0|^2 for the exact first flow."""
    monkeypatch.setattr(rect_flow, "ROWS", 20_000)
    torch.manual_seed(0)
    method, x = RectFlow(k=1), exact.M1.draw(200_000).float()
    data = exact.vectors(x)

    def gap(function) -> float:
        loss = loss_of(method, function, monkeypatch, data=data)(x, None).item()
        noise = torch.randn(20_000, 1)
        bend = straightness(function, noise, None)[1]
        transport = method.measure(exact.Net(function), data, run(), None)["transport"]
        return loss + bend - (2.01 - transport)

    assert gap(exact.M1.velocity) == pytest.approx(0, abs=0.02)
    assert abs(gap(lambda *at: 0.8 * exact.M1.velocity(*at))) > 0.05  # control: another field
    found = method.measure(exact.Net(exact.M1.velocity), data, run(), None)
    assert found == {"transport": pytest.approx(0.297997, rel=0.02)}


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_floor_of_the_first_flows_loss(std, monkeypatch):
    """k=1 is conditional flow matching: the exact velocity leaves (pi/2) s per coordinate."""
    torch.manual_seed(0)
    x = std * torch.randn(100_000, 4)
    field = exact.gaussian(0.0, std, 4).velocity
    loss = loss_of(RectFlow(k=1), field, monkeypatch)
    assert loss(x, None).item() == pytest.approx(math.pi / 2 * std, rel=0.01)
    wrong = loss_of(RectFlow(k=1), lambda *at: -field(*at), monkeypatch)
    assert wrong(x, None).item() > 1.3 * math.pi / 2 * std


def test_u_shaped_times():
    """Density proportional to e^at + e^a(1-t), a = 4: 2.075 at the ends, 0.551 in the middle."""
    torch.manual_seed(0)
    drawn = RectFlow(times="u-shaped").draw_times(400_000, "cpu").double()

    def cdf(t):
        return (stats.truncexpon.cdf(4 * t, 4) + 1 - stats.truncexpon.cdf(4 - 4 * t, 4)) / 2

    assert stats.kstest(drawn.numpy(), cdf).pvalue > 0.01
    for centre, expected in ((0.0, 2.075), (0.5, 0.551), (1.0, 2.075)):
        near = (drawn - centre).abs() < 0.005
        width = 0.01 if centre == 0.5 else 0.005
        assert near.double().mean().item() / width == pytest.approx(expected, rel=0.06)
    uniform = RectFlow().draw_times(400_000, "cpu").double().numpy()
    assert stats.kstest(uniform, "uniform").pvalue > 0.01
    assert stats.kstest(uniform, cdf).pvalue < 1e-9  # control
    assert stats.kstest(drawn.numpy() ** 2, cdf).pvalue < 1e-9  # control: one-sided


def test_norms_of_known_errors():
    error = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert RectFlow().norm(error).tolist() == [12.5, 0.0]
    c = 0.00054 * 2
    expected = (math.sqrt(25 + c * c) - c) / 2
    found = RectFlow(loss="huber").norm(error).tolist()
    assert found == pytest.approx([expected, 0.0], abs=1e-6)
    assert found[0] != pytest.approx(12.5)
    flat = torch.zeros(1, 2, requires_grad=True)
    RectFlow(loss="huber").norm(flat).sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def test_inverse_pairs_go_back_to_the_noise():
    """The share that was asked for starts from rows of the data, the rest from noise."""
    torch.manual_seed(0)
    rows = 3 + STDS * torch.randn(60, 2)
    data = exact.vectors(rows)
    method = RectFlow(pairs=400, inverse=0.25, pair_steps=100)
    noise, x, _ = pairs_of(method, of(exact.gaussian(3.0, STDS.double(), 2)), data)
    assert len(x) == 400
    torch.testing.assert_close(noise, (x - 3) / STDS, atol=5e-3, rtol=0)
    nearest = torch.cdist(x.double(), rows.double()).min(1)
    assert (nearest.values < 1e-4).tolist() == [False] * 300 + [True] * 100
    assert len(nearest.indices[300:360].unique()) == 60  # all rows come before any comes twice
    with pytest.raises(AssertionError):  # control: the ODE in the wrong direction
        torch.testing.assert_close(noise[300:], 3 + STDS * x[300:], atol=1, rtol=0)


def test_inverse_pairs_of_a_denoising_teacher():
    torch.manual_seed(0)
    data = exact.vectors(0.5 * torch.randn(60, 2))
    method = RectFlow(pairs=100, inverse=0.5, pair_steps=80, start="random")
    noise, x, _ = pairs_of(method, denoiser(0.5), data)
    torch.testing.assert_close(x, exact.slope(0.5) * noise, atol=0.02, rtol=0.02)


def test_joined_pairs_are_drawn_row_by_row():
    data = exact.vectors(torch.randn(30, 1))
    pairs = RectFlow(pairs=40, inverse=0.5).make_pairs(data, run(), of(exact.gaussian(1.0, 0.5)))
    pairs.prepare()
    noise, x, label = pairs.draw(torch.arange(40))
    assert label is None and len(pairs) == 40
    for rows in ([0, 39], [5], [25, 26], [3, 22, 4]):
        drawn = pairs.draw(torch.tensor(rows))
        rows = sorted(rows, key=lambda row: row >= 20)
        assert torch.equal(drawn[0], noise[rows]) and torch.equal(drawn[1], x[rows])


def by_label(function):
    """A field that moves with the label: 4 label + function(z - t 4 label, t)."""

    def velocity(z, t, y=None):
        move = 4.0 * like(y, z)
        return move + function(z - like(t, z) * move, t)

    return velocity


@pytest.mark.parametrize("inverse", [0.0, 0.5])
def test_pairs_keep_their_labels(inverse, monkeypatch):
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    rows = 4 * labels[:, None] + 0.5 * torch.randn(60, 2)
    data = exact.vectors(rows, labels, classes=3)
    teacher = flow(by_label(exact.gaussian(0.0, 0.5, 2).velocity))
    method = RectFlow(pairs=120, inverse=inverse, pair_steps=50, start="random")
    noise, x, y = pairs_of(method, teacher, data)
    torch.testing.assert_close(x, 4 * y[:, None] + 0.5 * noise, atol=5e-3, rtol=0)
    assert torch.equal(y[:60], balanced_labels(range(60), 3))
    loss = loss_of(method, by_label(straight(0.0, 0.5)), monkeypatch, teacher, data)
    assert loss(noise, x, y).item() < 1e-4
    assert loss(noise, x, y.roll(1)).item() > 1  # control: labels of other pairs
    assert loss(noise.roll(1, 0), x, y).item() > 0.1  # control: noise of other pairs


def test_pairs_of_an_edm_teacher_are_lmms(tmp_path):
    """The same folder, and the teacher is not asked again."""
    data, seen = exact.vectors(torch.randn(9, 2)), []
    one = LMM(pairs=30).make_pairs(data, run(tmp_path), denoiser(0.5))
    one.prepare()
    two = RectFlow(pairs=30, start="random").make_pairs(data, run(tmp_path), denoiser(0.5, seen))
    two.prepare()
    assert len(list(tmp_path.glob("pairs-*"))) == 1 and seen == []
    rows = torch.arange(30)
    assert all(
        torch.equal(a, b) for a, b in zip(one.draw(rows)[:2], two.draw(rows)[:2], strict=True)
    )
    for other in (RectFlow(pairs=30, pair_steps=5), RectFlow(pairs=31)):  # controls
        other.make_pairs(data, run(tmp_path), denoiser(0.5, seen)).prepare()
    assert len(list(tmp_path.glob("pairs-*"))) == 3 and len(seen) == 2 * 5 - 1 + 2 * 40 - 1
    with pytest.raises(FlowbenchError, match="pair_solver=heun"):
        RectFlow(pair_solver="dopri5").make_pairs(data, run(), denoiser(0.5))


def test_the_key_of_pairs_names_teacher_and_solver(tmp_path):
    data, teacher = exact.vectors(torch.randn(40, 1)), of(exact.gaussian(0.0, 0.5))
    variants = [{}, {"pair_steps": 3}, {"pair_solver": "dopri5"}]
    variants += [{"pair_solver": "dopri5", "tolerance": 1e-3}]
    for count, options in enumerate(variants, 1):
        for loss in ("squared", "huber"):  # which changes nothing
            method = RectFlow(pairs=20, loss=loss, **options)
            method.make_pairs(data, run(tmp_path), teacher).prepare()
        assert len(list(tmp_path.glob("pairs-*"))) == count
    RectFlow(pairs=30, inverse=1 / 3).make_pairs(data, run(tmp_path), teacher).prepare()
    assert len(list(tmp_path.glob("pairs-*"))) == len(variants) + 1  # 20 forward ones are there


def chain(options: dict, **asked) -> list:
    """The plan of rect-flow with `options`, and the plans of its teachers."""
    request = planning.Request("rect-flow", "moons", options=options, nfe=(), **asked)
    plans = [planning.plan(request, planning.Setup())]
    while plans[-1].teacher is not None:
        plans.append(plans[-1].teacher)
    return plans


def test_a_chain_of_teachers():
    """k=3 learns from k=2 from k=1, each the run that a user would get by its options."""
    third = chain({"k": 3, "pairs": 50, "times": "u-shaped", "lr": 1e-3})
    assert [plan.method.k for plan in third] == [3, 2, 1]
    assert third[1].method == RectFlow(k=2, pairs=50, times="u-shaped", lr=1e-3)
    assert third[2].method == RectFlow(k=1, lr=1e-3)
    (alone,) = chain({"k": 1, "lr": 1e-3})
    assert third[2].spec.key == alone.spec.key
    second = chain({"k": 2, "pairs": 50, "times": "u-shaped", "lr": 1e-3})
    assert second[0].spec.key == third[1].spec.key
    assert chain({"k": 2, "pairs": 51})[0].spec.key != second[0].spec.key


def test_a_distilled_flow_learns_from_the_one_it_distils():
    plans = chain({"k": 2, "distil": 3})
    assert [(plan.method.k, plan.method.distil) for plan in plans] == [(2, 3), (2, 0), (1, 0)]
    assert [plan.method.k for plan in chain({"k": 1, "distil": 1})] == [1, 1]


def test_an_edm_teacher_is_lmms():
    plans = chain({"start": "random"}, teacher="edm")
    lmm = planning.plan(planning.Request("lmm", "moons", nfe=()), planning.Setup())
    assert lmm.teacher is not None and plans[1].spec.key == lmm.teacher.spec.key
    assert [plan.spec.method for plan in plans] == ["rect-flow", "edm"]
    with pytest.raises(FlowbenchError, match="no --teacher"):
        chain({"k": 1}, teacher="edm")


def test_one_step_is_distilled_at_pure_noise(monkeypatch):
    """t = 0, where the state is the noise; nothing of the sample leaks into it."""
    seen = []

    def record(z, t, y):
        seen.append((z, t))
        return 0 * z

    teacher = of(exact.gaussian(0.0, 1.0, 2))
    loss = loss_of(RectFlow(distil=1, start="random"), record, monkeypatch, teacher)
    noise, x = torch.randn(50, 2), torch.randn(50, 2)
    assert loss(noise, x, None).item() == pytest.approx((x - noise).square().mean().item())
    assert torch.equal(seen[0][0], noise) and not seen[0][1].any()
    with pytest.raises(AssertionError):  # control: a flow that is not distilled sees lines
        loss_of(RectFlow(start="random"), record, monkeypatch, teacher)(noise, x, None)
        assert torch.equal(seen[1][0], noise)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_distilled_steps_are_those_of_the_sampler(steps):
    method, network = RectFlow(distil=steps), exact.Net(straight(3.0, STDS))
    seen, x0 = exact.calls(network), torch.randn(5, 2, dtype=torch.float64)
    end = method.sample(network, x0, None, steps)
    torch.testing.assert_close(end, 3 + STDS * x0, atol=1e-6, rtol=0)
    trained = method.draw_times(1000, "cpu").unique()
    assert trained.tolist() == pytest.approx([t[0].item() for _, t in seen])
    assert len(trained) == steps and trained[0] == 0 and trained[-1] == (steps - 1) / steps
    assert [nfe for nfe in (None, *range(1, 8)) if method.refuses(nfe) is None] == [steps]
    assert f"--nfe {steps}" in method.refuses(steps + 1)
    assert method.interval is None and RectFlow().interval == (0.0, 1.0)


def test_refuses():
    assert RectFlow().refuses(1) is None and RectFlow(solver="dopri5").refuses(None) is None
    assert "dopri5" in RectFlow().refuses(None)
    assert "dopri5" in RectFlow(solver="dopri5").refuses(4)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"distil": -1},
        {"pairs": 0},
        {"pair_steps": 0},
        {"inverse": 1.0},
        {"inverse": -0.1},
        {"distil": 1, "times": "u-shaped"},
        {"distil": 1, "solver": "heun"},
        {"k": 1, "pairs": 100},
        {"k": 1, "inverse": 0.5},
        {"k": 1, "start": "random"},
    ],
)
def test_impossible_options(options):
    with pytest.raises(FlowbenchError):
        RectFlow(**options)
    if options.get("k") == 1:
        RectFlow(**options, distil=1)


def test_students_start_from_their_teachers_weights():
    data = exact.vectors(torch.randn(9, 2))
    source, net = RectFlow(k=1).network(data), RectFlow().network(data)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    z, t = torch.randn(4, 2), torch.rand(4)
    assert not torch.allclose(net(z, t), source(z, t))
    rect_flow.copy_weights(Teacher(lambda: source, lambda *at: None), net)
    torch.testing.assert_close(net(z, t), source(z, t))


def test_weights_of_another_network_are_refused():
    data = exact.vectors(torch.randn(9, 2))

    def never():
        raise AssertionError("the teacher was trained before the refusal")

    for teacher in (
        Teacher(never, lambda *at: None, EDM),
        Teacher(lambda: LMM().network(data), lambda *at: None),
        Teacher(lambda: RectFlow(width=16).network(data), lambda *at: None),
    ):
        with pytest.raises(FlowbenchError, match="start=random"):
            RectFlow(pairs=5).train(data, run(), teacher)


def test_drift_is_the_distance_of_the_endpoints():
    """Zero for the exact second flow; the shift for one that ends beside its teacher."""
    law, method = exact.gaussian(3.0, STDS.double(), 2), RectFlow(pair_steps=100)
    data = exact.vectors(3 + STDS * torch.randn(20_000, 2))

    def measured(function, method=method, teacher=None):
        return method.measure(exact.Net(function), data, run(), teacher or of(law))

    good = measured(straight(3.0, STDS))
    assert good["drift"] < 2e-3
    assert good["transport"] == pytest.approx(9 + (0.25 + 1) / 2, rel=0.05)
    assert good["pairs-scale"] == pytest.approx(1, abs=0.05)
    assert "pairs-in-mode" not in good and "inverse-std" not in good
    assert measured(straight(3.5, STDS))["drift"] == pytest.approx(0.5, abs=1e-2)
    distilled = RectFlow(distil=1, pair_steps=100)
    assert measured(straight(3.5, STDS), distilled)["drift"] == pytest.approx(0.5, abs=1e-2)
    assert measured(law.velocity, distilled)["drift"] > 0.5  # control: collapsed to the mean
    inverse = measured(straight(3.0, STDS), RectFlow(inverse=0.1))
    assert inverse["inverse-std"] == pytest.approx(1, abs=0.06)
    wide = RectFlow(inverse=0.1), of(exact.gaussian(3.0, 2 * STDS.double(), 2))
    assert measured(straight(3.0, STDS), *wide)["inverse-std"] == pytest.approx(0.5, abs=0.03)


def test_drift_from_a_denoising_teacher():
    data, method = exact.vectors(0.5 * torch.randn(99, 2)), RectFlow(pair_steps=80, start="random")
    found = method.measure(exact.Net(straight(0.0, 0.5)), data, run(), denoiser(0.5))
    assert found["drift"] < 0.01


def test_pairs_that_missed_the_modes_are_seen():
    import dataclasses

    torch.manual_seed(0)
    modes = Modes(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.1]), (0,))
    data = dataclasses.replace(exact.vectors(exact.M1.draw(1000)), modes=modes)
    network = exact.Net(exact.M1.velocity)
    method = RectFlow(pair_steps=200)
    good = method.measure(network, data, run(), of(exact.M1))["pairs-in-mode"]
    blurred = method.measure(network, data, run(), of(exact.gaussian(0.0, 1.005)))
    assert good == pytest.approx(0.997, abs=0.02) and blurred["pairs-in-mode"] < 0.4


@pytest.mark.parametrize(
    "options", [{}, {"distil": 1}, {"loss": "huber", "times": "u-shaped"}], ids=str
)
def test_a_trained_flow_ends_where_its_teacher_does(options):
    """From random weights, in 150 steps, in one evaluation; also off the pairs it has seen."""
    torch.manual_seed(0)
    law = exact.gaussian(1.0, STDS.double(), 2)
    data, method = (
        exact.vectors(torch.randn(99, 2)),
        RectFlow(pairs=2000, start="random", **options),
    )
    network = method.train(data, run(steps=150, batch=64), of(law))
    x0 = torch.randn(500, 2)
    miss = (method.sample(network, x0, None, 1) - 1 - STDS * x0).square().mean().sqrt().item()
    assert miss < 0.1
    assert method.measure(network, data, run(), of(law))["drift"] < 0.1


def test_velocity_and_labels():
    def field(z, t, y):
        return z + y[:, None]

    z, t, labels = torch.randn(3, 1), torch.rand(3), torch.tensor([0, 1, 2])
    found = RectFlow().velocity(exact.Net(field), z, t, labels)
    assert torch.equal(found, field(z, t, labels))
    end = RectFlow().sample(exact.Net(lambda z, t, y: 1.0 * y[:, None] + 0 * z), z, labels, 3)
    torch.testing.assert_close(end, z + labels[:, None])
