"""Local Flow Matching (arXiv:2410.02548): exact chains, pushed data, couplings, jumps."""

import math
from functools import partial

import exact_fields as exact
import pytest
import torch
from flowbench_plugins.cfm import CFM
from flowbench_plugins.lfm import LFM

from flowbench import FlowbenchError, nets, solvers
from flowbench.coordinates import like
from flowbench.data.pushed import Pushed, drift
from flowbench.metrics.likelihood import log_density
from flowbench.metrics.straightness import straightness
from flowbench.nets.chain import Chain
from flowbench.noise import unit_noise
from flowbench.records import Budget
from flowbench.teacher import Teacher
from flowbench.testing import toy
from flowbench.training import Run

UNEVEN = exact.Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-1.0], [0.6]]).double(),
    torch.tensor([[0.2], [0.35]]).double(),
)


def kernels(method: LFM) -> list[tuple[float, float]]:
    """(a, b) of each block."""
    gammas = [method.c * method.rho**n for n in range(method.blocks - 1)]
    inner = [(math.exp(-g), math.sqrt(1 - math.exp(-2 * g))) for g in gammas]
    return [*inner, (0.0, 1.0)]


def behind(law: exact.Mixture, a: float, b: float) -> exact.Mixture:
    """The law of a x + b noise."""
    return exact.Mixture(law.weights, a * law.means, (a**2 * law.stds**2 + b**2).sqrt())


def block(law: exact.Mixture, a: float, b: float, path: str):
    """E[slope | point] on a path from x of `law` to a x + b noise.

    The point is keep x + add noise, so it is Gaussian in each component.
    """

    def field(x, tau, y):
        s = like(tau, x)
        if path == "linear":
            begin, end, d_begin, d_end = 1 - s, s, -torch.ones_like(s), torch.ones_like(s)
        else:
            begin, end = torch.cos(math.pi / 2 * s), torch.sin(math.pi / 2 * s)
            d_begin, d_end = -math.pi / 2 * end, math.pi / 2 * begin
        keep, add = (begin + a * end)[:, None], (b * end)[:, None]
        d_keep, d_add = (d_begin + a * d_end)[:, None], (b * d_end)[:, None]
        means, variances = law.means.to(x), law.stds.to(x).square()
        total = keep**2 * variances + add**2
        gap = x[:, None] - keep * means
        logits = law.weights.to(x).log() - 0.5 * (gap**2 / total + total.log()).sum(2)
        share = logits.softmax(1)[:, :, None]
        slope = (d_keep * keep * variances + d_add * add) / total
        return (share * (d_keep * means + slope * gap)).sum(1)

    return field


def chain(method: LFM, law: exact.Mixture) -> Chain:
    """The perfect network of `method` on data of `law`."""
    fields = []
    for n, (a, b) in enumerate(kernels(method)):
        free = n == method.blocks - 1 and method.last != "same"
        fields.append(exact.Net(block(law, a, b, method.last if free else method.path)))
        law = behind(law, a, b)
    return Chain(fields)


def turned(network: Chain, sign: float = 1.0, mirror: bool = False) -> Chain:
    """The same blocks with the sign or the direction of time wrong."""
    return Chain(
        exact.Net(lambda x, t, y, f=f: sign * f(x, 1 - t if mirror else t, y))
        for f in network.blocks
    )


def quantiles(law: exact.Mixture, noise: torch.Tensor) -> torch.Tensor:
    """The monotone map from N(0, 1) to `law`, which every exact chain has."""
    return law.quantile(torch.special.ndtr(noise[:, 0]))[:, None]


def short(method: object) -> str:
    """The options that are not the defaults, as the name of a test."""
    if not isinstance(method, LFM):
        return str(method)
    return " ".join(f"{k}={v}" for k, v in vars(method).items() if v != getattr(LFM, k)) or "lfm"


NOISE = torch.linspace(-2.2, 2.2, 12, dtype=torch.float64)[:, None]
CHAINS = [LFM(), LFM(path="trig"), LFM(last="trig"), LFM(blocks=2, c=0.35), LFM(blocks=1)]


@pytest.mark.parametrize("method", CHAINS, ids=short)
def test_exact_chains_are_the_quantile_map_and_its_inverse(method):
    network = chain(method, UNEVEN)
    end = method.sample(network, NOISE, None, 80 * method.blocks)
    torch.testing.assert_close(end, quantiles(UNEVEN, NOISE), rtol=0, atol=2e-3)
    x = end
    for n in range(method.blocks):
        x = solvers.midpoint(partial(network, block=n), x, None, 80)
    torch.testing.assert_close(x, NOISE, rtol=0, atol=4e-3)


def test_an_adaptive_solver_is_exact():
    method = LFM(solver="dopri5", tolerance=1e-8)
    end = method.sample(chain(method, UNEVEN), NOISE, None, None)
    torch.testing.assert_close(end, quantiles(UNEVEN, NOISE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"sign": -1.0}, {"mirror": True}])
def test_wrong_signs_and_directions_miss_it(wrong):
    network = turned(chain(LFM(), UNEVEN), **wrong)
    end = LFM().sample(network, NOISE, None, 320)
    assert (end - quantiles(UNEVEN, NOISE)).abs().max() > 0.05


@pytest.mark.parametrize("method", CHAINS[:3], ids=short)
def test_the_canonical_field_is_the_chain(method):
    """Between two edges, and in one solve with the divergence: log p is exact."""
    network, z = chain(method, UNEVEN), NOISE
    for begin, end in zip(method.edges, method.edges[1:], strict=False):
        field = partial(method.velocity, network)
        z = solvers.midpoint(field, z, None, 80, begin + 1e-9, end)
    torch.testing.assert_close(z, quantiles(UNEVEN, NOISE), rtol=0, atol=2e-3)
    found = log_density(partial(method.velocity, network), z, None, method.knots, steps=40)
    parts = torch.distributions.Normal(UNEVEN.means, UNEVEN.stds).log_prob(z[:, None]).sum(2)
    expected = (parts + UNEVEN.weights.log()).logsumexp(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_edges():
    """1 / t = 1 + sqrt(exp(2 time) - 1) after Ornstein-Uhlenbeck times 0.475, 0.25 and 0.1."""
    inner = [1 / (1 + math.sqrt(math.expm1(2 * total))) for total in (0.475, 0.25, 0.1)]
    assert LFM().edges == pytest.approx([0.0, *inner, 1.0])
    assert LFM().knots == LFM().edges[1:-1] and LFM().interval == (0.0, 1.0)
    assert LFM(blocks=1).edges == (0.0, 1.0) and LFM(blocks=1).knots == ()
    for (a, b), (alpha, beta), (left, added) in zip(
        kernels(LFM()), LFM().signals, LFM().signals[1:], strict=False
    ):
        assert left == pytest.approx(a * alpha)
        assert added == pytest.approx(math.hypot(a * beta, b))


def test_rows_in_different_blocks():
    method, labels = LFM(), torch.tensor([0, 1, 2, 3, 4])
    network = Chain(
        exact.Net(lambda x, t, y, n=n: x * like(10.0**n * (1 + t), x) + like(y, x))
        for n in range(4)
    )
    z = torch.arange(1.0, 6.0)[:, None].double()
    t = torch.tensor([0.9, 0.1, 0.5, 0.46, 0.95]).double()
    together = method.velocity(network, z, t, labels)
    alone = [method.velocity(network, *(v[i : i + 1] for v in (z, t, labels))) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))
    low, high = method.edges[1], method.edges[2]  # 0.46 lies in the third block
    tau = (high - 0.46) / (high - low)
    expected = -(4.0 * 100 * (1 + tau) + 3) / (high - low)
    assert together[3].item() == pytest.approx(expected)
    seen = exact.calls(network)
    method.velocity(network, z, t, labels)
    assert sum(rows for rows, _ in seen) == 5


@pytest.mark.slow
def test_straightness_of_the_exact_chain_on_the_mixture():
    """In 128 dimensions: the chain natively and scaled, and its blocks."""
    method, modes = LFM(), exact.MODAL
    fields = []
    for a, b in kernels(method):
        rest = exact.gaussian(0.0, 1.0, 126)
        two, others = block(modes, a, b, "linear"), block(rest, a, b, "linear")
        fields.append(
            lambda x, t, y, p=two, q=others: torch.cat([p(x[:, :2], t, y), q(x[:, 2:], t, y)], 1)
        )
        modes = behind(modes, a, b)
    network = Chain(map(exact.Net, fields))
    data = exact.vectors(torch.randn(2000, 128))
    found = method.measure(network, data, Run(Budget(1, 1)))
    assert found["S-scaled"] == pytest.approx(10.186, abs=0.04)
    blocks = [found[f"block-{n}-S"] for n in (1, 2, 3, 4)]
    assert blocks == pytest.approx([0.555, 0.808, 1.169, 6.601], abs=0.03)
    noise, field = unit_noise(0, range(1000), (128,)), partial(method.velocity, network)
    assert straightness(field, noise, knots=method.knots)[0] == pytest.approx(9.239, abs=0.03)


def test_straightness_of_one_block_is_that_of_a_flow():
    noise = torch.special.ndtri((torch.arange(500, dtype=torch.float64) + 0.5) / 500)[:, None]
    network = chain(LFM(blocks=1), exact.M1)
    found = straightness(partial(LFM(blocks=1).velocity, network), noise, steps=200)
    assert found[0] == pytest.approx(0.654886, abs=2e-3)
    assert found[1] == pytest.approx(0.540367, abs=4e-3)


# Training


def batch_loss(method: LFM, n: int, field, x: torch.Tensor) -> float:
    torch.manual_seed(3)
    return method.loss(field, n, None, x, None).item()


@pytest.mark.parametrize("method", [LFM(), LFM(path="trig"), LFM(blocks=2, c=0.6)], ids=short)
@pytest.mark.parametrize("n", [0, 1])
def test_the_exact_block_has_the_lowest_loss(method, n):
    """The wrong sign, time from noise to data, and an OU step without its b are all worse."""
    x = UNEVEN.draw(20_000).float()
    a, b = kernels(method)[n]
    field = block(UNEVEN, a, b, method.path)
    best = batch_loss(method, n, field, x)
    assert batch_loss(method, n, lambda x, t, y: 1.05 * field(x, t, y), x) > best
    assert batch_loss(method, n, lambda x, t, y: 0.95 * field(x, t, y), x) > best
    for wrong in (
        lambda x, t, y: -field(x, t, y),
        lambda x, t, y: field(x, 1 - t, y),
        block(UNEVEN, a, 0.7 * b, method.path),
    ):
        assert batch_loss(method, n, wrong, x) > 1.02 * best


@pytest.mark.parametrize("path", ["linear", "trig"])
def test_one_free_block_is_a_global_flow_with_time_reversed(path, monkeypatch):
    torch.manual_seed(0)
    x, net = UNEVEN.draw(256).float(), nets.MLP((1,), width=16)
    monkeypatch.setattr(CFM, "draw_times", lambda self, n, device: 1 - times.sample((n,)))
    times = torch.distributions.Beta(1.0, 1.0)
    flow = exact.loss_of(CFM(path=path), exact.vectors(x), net, monkeypatch, run=None)
    torch.manual_seed(5)
    expected = flow(x, None).item()
    back = lambda z, t, y: -net(z, 1 - t, y)  # noqa: E731
    torch.manual_seed(5)
    method = LFM(blocks=1, path=path)
    assert method.loss(back, 0, None, x, None).item() == pytest.approx(expected, rel=1e-5)
    torch.manual_seed(5)  # control
    assert method.loss(net, 0, None, x, None).item() != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("coupling", "carried"), [("dependent", 1), ("shuffled", 0), ("independent", 0)]
)
@pytest.mark.parametrize("labelled", [False, True])
def test_ends_have_the_law_of_an_ou_step(coupling, carried, labelled):
    """Mean a m, variance a^2 s^2 + b^2, correlation a s / sqrt(a^2 s^2 + b^2) if dependent.

    Classes keep their own laws.
    """
    torch.manual_seed(0)
    n, mean, std = 60_000, 2.0, 0.5
    y = torch.randint(2, (n,)) if labelled else None
    shift = torch.zeros(n, 1) if y is None else 10.0 * y[:, None]
    x = mean + std * torch.randn(n, 1) + shift
    data = exact.vectors(x, y, classes=2 if labelled else 0)
    method = LFM(coupling=coupling, c=0.3)
    end = method.draw_end(1, Pushed(data, Run(Budget(1, 1)), 1, method.signals), x, y)
    a, b = kernels(method)[1]
    width = math.hypot(a * std, b)
    rest = end - a * shift
    assert rest.mean().item() == pytest.approx(a * mean, abs=0.02)
    assert rest.std().item() == pytest.approx(width, rel=0.02)
    correlation = torch.corrcoef(torch.cat([x - shift, rest], 1).T)[0, 1].item()
    assert correlation == pytest.approx(carried * a * std / width, abs=0.02)
    assert abs(width - a * std) > 0.1  # control: without b


def test_block_times():
    torch.manual_seed(0)
    seen = []

    def net(x, t, y):
        seen.append(t)
        return 0 * x

    for times in ((1.0, 1.0), (1.0, 0.5)):
        LFM(times=times).loss(net, 0, None, torch.zeros(100_000, 1), None)
    assert [t.mean().item() for t in seen] == pytest.approx([0.5, 2 / 3], abs=0.005)
    assert seen[0].var().item() == pytest.approx(1 / 12, abs=0.002)


def trained(method: LFM, data, run: Run | None = None) -> Chain:
    torch.manual_seed(0)
    return method.train(data, run or Run(Budget(4, 8)), None)


def test_warm_start():
    data = exact.vectors(UNEVEN.draw(50))
    for warm in (True, False):
        network = trained(LFM(blocks=2, width=16, warm=warm, lr=0.0), data)
        first, second = ([*b.parameters()] for b in network.blocks)
        assert all(map(torch.equal, first, second)) == warm


def test_steps_of_blocks():
    assert LFM().shares == [1, 0.5, 0.25, 0.25]
    assert LFM(schedule="even").shares == [0.5] * 4
    assert LFM(blocks=1).shares == [1]
    run = Run(Budget(8, 4))
    trained(LFM(blocks=3, width=16), exact.vectors(UNEVEN.draw(50)), run)
    assert {name: costs["images"] for name, costs in run.bill.items()} == {
        "block-1": 32,
        "push-1": 0,
        "block-2": 16,
        "push-2": 0,
        "block-3": 8,
    }


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_all_blocks_have_the_parameters_of_one_flow(blocks):
    """As far as widths allow, which are multiples of 8 for images."""
    for data, allowed in ((exact.vectors(torch.randn(9, 128)), 0.01), (toy("image"), 0.15)):
        count = sum(p.numel() for p in LFM(blocks=blocks).network(data).parameters())
        assert count == pytest.approx(nets.parameters_of(data), rel=allowed)


# Pushed data


def shifts(*steps: float) -> list[exact.Net]:
    """Flows that move rows by a constant, and by their class."""
    return [exact.Net(lambda x, t, y, s=s: 0 * x + s + like(y, x)) for s in steps]


def labelled():
    y = torch.arange(1203) % 3
    return exact.vectors(torch.arange(1203.0)[:, None], y, classes=3)


def pushed(run: Run, *flows) -> Pushed:
    pool = Pushed(labelled(), run, 1, [(1.0, 0.0)] * 9)
    pool.flows.extend(flows)
    return pool


def test_rows_are_pushed_once_by_each_flow_with_their_labels():
    first, second = shifts(0.25, 0.5)
    pool = pushed(Run(Budget(1, 1)), first)
    pool.prepare()
    seen = exact.calls(first)
    pool.flows.append(second)
    pool.prepare()
    pool.prepare()
    assert seen == []
    rows = torch.tensor([1202, 0, 601])
    x, y = pool.draw(rows)
    assert torch.equal(y, rows % 3)
    torch.testing.assert_close(x, rows[:, None] + 0.75 + 2 * y[:, None])
    assert pool.run.bill["push-2"]["images"] == 0 and len(pool) == 1203


def test_a_run_that_goes_on_reads_what_was_pushed(tmp_path):
    notes = []
    flows = shifts(0.25, 0.5)
    runs = [Run(Budget(1, 1), tmp_path, note=notes.append) for _ in range(4)]
    made, read, other, damaged = (pushed(run, *flows) for run in runs)
    made.prepare()
    seen = [exact.calls(flow) for flow in flows]
    read.prepare()
    assert seen == [[], []]
    assert torch.equal(read.draw(torch.arange(9))[0], made.draw(torch.arange(9))[0])
    assert read.run.bill["push-2"] == made.run.bill["push-2"]
    flows[0].dummy.data += 1  # other weights
    other.prepare()
    assert len(seen[0]) > 0 and notes == []
    made.path.write_bytes(b"no tensors")
    damaged.prepare()
    assert len(notes) == 1 and "anew" in notes[0]
    assert torch.equal(damaged.draw(torch.arange(9))[0], made.draw(torch.arange(9))[0])
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_other_rows_are_of_the_same_class():
    torch.manual_seed(0)
    pool = pushed(Run(Budget(1, 1)))
    y = torch.arange(600) % 3
    rows = pool.others(600, y)[:, 0]
    assert torch.equal(rows.long() % 3, y) and len(rows.unique()) > 400


def test_drift():
    """Of a normal law moved by d: 2 Phi(d / 2) - 1; a pool that was not pushed is found out."""
    torch.manual_seed(0)
    data = exact.vectors(torch.randn(20_000, 3))
    x, noise = data.train.spread(20_000)[0], torch.randn(20_000, 3)
    assert drift(data, 0.6 * x + 0.8 * noise, (0.6, 0.8)) < 0.02
    moved = 0.6 * x + 0.8 * noise + torch.tensor([0.0, 0.5, 0.0])
    expected = math.erf(0.25 / math.sqrt(2))
    assert drift(data, moved, (0.6, 0.8)) == pytest.approx(expected, abs=0.02)
    assert drift(data, 0.6 * x, (0.6, 0.8)) > 0.1  # control: an OU step without b
    cold = exact.vectors(exact.MODAL.draw(20_000))
    assert drift(cold, cold.train.spread(2000)[0], LFM().signals[3]) > 0.1  # control: raw data


@pytest.mark.parametrize("widened", [True, False])
def test_a_block_that_only_moves_modes_is_reported(widened):
    """The plateau of short training: the linear map with the right mean and covariance."""
    method, notes = LFM(), []
    data = exact.vectors(exact.MODAL.draw(10_000))
    (a, b), law = kernels(method)[0], exact.MODAL
    variances = torch.tensor([2.01, 0.01])  # along (1, 1) and (1, -1)
    turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
    rates = (a**2 + b**2 / variances).log() / 2
    plateau = exact.Net(lambda x, t, y: (x @ turn * rates) @ turn)
    flow = exact.Net(block(law, a, b, "linear")) if widened else plateau
    pool = Pushed(data, Run(Budget(1, 1), note=notes.append), 10, method.signals)
    pool.flows.append(flow)
    pool.prepare()
    assert len(notes) == (0 if widened else 1)
    assert widened or "block 1 has not learned" in notes[0]


def test_each_block_is_trained_on_what_the_ones_before_it_made(monkeypatch):
    """Perfect blocks instead of trained ones: rows that each is given have the right law."""
    method, law, given = LFM(blocks=3, c=0.4, push=10, warm=False), exact.MODAL, []
    perfect = iter(chain(method, law).blocks)

    def fit(net, loss, source, run, **options):
        source.prepare()
        given.append(source.draw(torch.arange(2000))[0])
        return next(perfect)

    monkeypatch.setattr("flowbench.training.fit", fit)
    data = exact.vectors(law.draw(2000))
    trained(method, data)
    for n, x in enumerate(given):
        assert drift(data, x, method.signals[n]) < 0.06
        assert n == 0 or drift(data, x, method.signals[0]) > 0.1  # control: raw data


# Jumps


def flow_teacher() -> Teacher:
    law = exact.gaussian(3.0, 0.5)
    return Teacher(
        lambda: exact.Net(law.velocity), lambda network, z, t, labels: network(z, t, labels)
    )


def test_states_at_the_stops():
    """z(t) = 3 t + sqrt(t^2 / 4 + (1 - t)^2) noise on N(3, 0.5^2)."""
    noise = torch.linspace(-2, 2, 5)[:, None]
    for jumps, stops in ((1, [1.0]), (2, [LFM().edges[2], 1.0]), (4, list(LFM().edges[1:]))):
        method = LFM(distil=jumps)
        assert method.stops == stops
        found = method.pass_through(flow_teacher().velocity, noise, None)
        t = torch.tensor(stops)[:, None]
        expected = 3 * t + (t**2 / 4 + (1 - t) ** 2).sqrt() * noise[:, None]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_exact_jumps_have_no_loss_and_sample_the_law():
    method = LFM(distil=2)
    noise = torch.linspace(-2, 2, 5)[:, None]
    states = method.pass_through(flow_teacher().velocity, noise, None)
    middle = method.stops[0]
    s = math.sqrt(middle**2 / 4 + (1 - middle) ** 2)
    first = exact.Net(lambda x, t, y: 3 * middle + (s - 1) * x)
    second = exact.Net(lambda x, t, y: 3 + 0.5 * (x - 3 * middle) / s - x)
    right, wrong = Chain([second, first]), Chain([first, second])
    for i in range(2):
        assert method.jump_loss(right, i, noise, states, None).item() < 1e-6
        assert method.jump_loss(wrong, i, noise, states, None).item() > 0.01  # control: order
    end = method.sample(right, noise, None, 2)
    torch.testing.assert_close(end, 3 + 0.5 * noise, rtol=0, atol=1e-5)


def test_jumps_are_learned_from_a_flow():
    torch.manual_seed(0)
    method = LFM(distil=2, width=16, pairs=500, ema=0.9)
    data = exact.vectors(3 + 0.5 * torch.randn(64, 1))
    network = method.train(data, Run(Budget(150, 64)), flow_teacher())
    noise = torch.linspace(-1.5, 1.5, 7)[:, None]
    end = method.sample(network, noise, None, 2)
    torch.testing.assert_close(end, 3 + 0.5 * noise, rtol=0, atol=0.15)
    assert len(network.blocks) == 2


def test_whom_jumps_learn_from():
    method = LFM(distil=2, c=0.2, pairs=7, pair_steps=3)
    assert method.teacher == "lfm" and method.teacher_options == {"c": 0.2}
    assert method.interval is None and method.knots == ()
    assert method.measure(None, None, None) == {}
    assert LFM().teacher is None and LFM().teacher_options == {}
    diffusion = Teacher(lambda: None, lambda **words: None, interval=(0.01, 0.99))
    with pytest.raises(FlowbenchError, match="from 0 to 1"):
        method.train(exact.vectors(torch.randn(9, 1)), Run(Budget(1, 1)), diffusion)


# Sampling


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("nfe", [4, 5, 7, 8, 9, 13, 20])
def test_spends_what_it_is_given(solver, nfe):
    method = LFM(solver=solver)
    network = chain(method, exact.M1)
    seen = exact.calls(network)
    method.sample(network, torch.randn(3, 1), None, nfe)
    assert sum(rows for rows, _ in seen) == 3 * nfe


def test_evaluations_of_blocks():
    """Whole steps of the solver; what is left goes to the blocks next to noise."""

    def divided(nfe, **options):
        return [LFM(**options).divide(nfe, n) for n in range(4)]

    assert divided(4) == [1, 1, 1, 1] and divided(6) == [1, 1, 2, 2]
    assert divided(8) == [2, 2, 2, 2] and divided(9) == [3, 2, 2, 2]
    assert divided(12) == [2, 2, 4, 4] and divided(20) == [4, 4, 6, 6]
    assert divided(9, solver="euler") == [2, 2, 2, 3]


def test_refuses():
    assert LFM().refuses(4) is None and LFM(solver="dopri5").refuses(None) is None
    assert "distil=3" in LFM().refuses(3)
    assert "dopri5" in LFM().refuses(None) and "dopri5" in LFM(solver="dopri5").refuses(8)
    assert LFM(distil=2).refuses(2) is None and "2" in LFM(distil=2).refuses(4)
    assert LFM(distil=2).refuses(None)


@pytest.mark.parametrize(
    "options",
    [{"blocks": 0}, {"push": 0}, {"c": 0.0}, {"rho": -1.0}, {"times": (0.0, 1.0)}, {"distil": 5}],
)
def test_options_are_checked(options):
    with pytest.raises(FlowbenchError):
        LFM(**options)
