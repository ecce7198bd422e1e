"""Closed-form laws and optima: against quadrature, independent fields, other methods' samplers."""

import math

import exact_fields as exact
import pytest
import torch
from flowbench_plugins.cfm import CFM
from flowbench_plugins.edm import EDM
from flowbench_plugins.exact import Exact
from flowbench_plugins.lfm import LFM

from flowbench import FlowbenchError, planning
from flowbench.data.base import Arrays, load
from flowbench.metrics.frechet import frechet_from_moments, moments
from flowbench.metrics.modes import share_within
from flowbench.metrics.straightness import straightness
from flowbench.mixtures import Mixture, factor, gaussian
from flowbench.noise import unit_noise

F64 = torch.float64


def mixture(dim: int, modes: int, seed: int = 0) -> Mixture:
    """A mixture without any symmetry."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, modes, dim, generator=generator, dtype=F64)
    weights = torch.rand(modes, generator=generator, dtype=F64) + 0.2
    return Mixture(weights / weights.sum(), 4 * draw[0] - 2, 0.1 + draw[1])


def leaning(centres: list[float], std: float = 0.2, across: float = 0.7) -> Mixture:
    """A mixture in 4 dimensions with modes along (3, 0, -4, 0) / 5."""
    axis = torch.tensor([0.6, 0.0, -0.8, 0.0], dtype=F64)
    stds = torch.tensor([std, across, std, 1.5], dtype=F64).expand(len(centres), 4)
    weights = torch.arange(1.0, len(centres) + 1, dtype=F64)
    return Mixture(weights / weights.sum(), torch.tensor(centres, dtype=F64)[:, None] * axis, stds)


def data_of(law: Mixture | None, dim: int = 1):
    """Some rows that claim to be drawn from `law`."""
    return load("toy", Arrays(torch.randn(9, dim).numpy(), law=law), "cpu")


def same(law: Mixture) -> exact.Mixture:
    """The independent closed forms of the same law."""
    return exact.Mixture(law.weights, law.means, law.stds)


def line(n: int = 41, edge: float = 2.5) -> torch.Tensor:
    return torch.linspace(-edge, edge, n, dtype=F64)[:, None]


@pytest.mark.parametrize(("dim", "modes"), [(1, 1), (2, 3), (5, 4)])
def test_fields_are_those_of_an_independent_formula(dim, modes):
    law, other = mixture(dim, modes), same(mixture(dim, modes))
    z = 2 * torch.randn(60, dim, dtype=F64, generator=torch.Generator().manual_seed(1))
    for time in (0.0, 1e-3, 0.4, 0.999, 1.0):
        t = torch.full((60,), time, dtype=F64)
        torch.testing.assert_close(law.velocity(z, t), other.velocity(z, t))
        assert law.velocity(z, t).isfinite().all()
    for level in (0.002, 1.0, 80.0):
        sigma = torch.full((60,), level, dtype=F64)
        torch.testing.assert_close(law.denoiser(z, sigma), other.denoiser(z, sigma))


def test_posterior_means_and_density_by_quadrature():
    """In one dimension Bayes' rule is an integral that a grid of data values evaluates."""
    law, x = mixture(1, 3), torch.linspace(-4, 4, 9, dtype=F64)
    grid = torch.linspace(-8, 8, 40_001, dtype=F64)
    step = grid[1] - grid[0]
    density = law.log_density(grid[:, None]).exp()
    assert (density.sum() * step).item() == pytest.approx(1, abs=1e-9)
    a, b = 0.6, 0.5
    joint = density * torch.exp(-((x[:, None] - a * grid) ** 2) / (2 * b * b))
    clean = (joint * grid).sum(1) / joint.sum(1)
    factors = torch.full_like(x, a), torch.full_like(x, b)
    found, unit = law.posterior(x[:, None], *factors)
    torch.testing.assert_close(found[:, 0], clean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(unit[:, 0], (x - a * clean) / b, rtol=1e-6, atol=1e-6)


def test_density_is_that_of_torch_distributions():
    law, x = mixture(3, 4), torch.randn(50, 3, dtype=F64)
    distributions = torch.distributions
    parts = distributions.Independent(distributions.Normal(law.means, law.stds), 1)
    which = distributions.Categorical(probs=law.weights)
    expected = distributions.MixtureSameFamily(which, parts).log_prob(x)
    torch.testing.assert_close(law.log_density(x), expected)


def test_a_decayed_law_is_what_the_ornstein_uhlenbeck_process_makes_of_it():
    law, a = mixture(2, 3), 0.6
    x, half = torch.randn(30, 2, dtype=F64), torch.full((30,), 0.5, dtype=F64)
    moved = exact.Mixture(law.weights, a * law.means, (a**2 * law.stds**2 + 1 - a**2).sqrt())
    clean, unit = law.posterior(x, half, half, torch.full((30,), a, dtype=F64))
    expected = moved._posterior(x, half, half)
    torch.testing.assert_close((clean, unit), expected)
    dry = exact.Mixture(law.weights, a * law.means, a * law.stds)
    assert (dry._posterior(x, half, half)[0] - clean).abs().max() > 0.05  # control: no noise added


@pytest.mark.parametrize("name", ["mog128", "8gaussians", "gaussian2", "gaussian16", "gaussian128"])
def test_data_are_drawn_from_the_law_that_they_name(name):
    """The mean log-density of held-out rows is that of fresh draws, within its error."""
    data = planning.load_data(name, "cpu", None)
    rows = data.test.draw(torch.arange(4000))[0].double()
    theirs, ours = data.law.log_density(rows), data.law.log_density(same(data.law).draw(4000))
    error = math.hypot(theirs.std(), ours.std()) / math.sqrt(4000)
    assert abs(theirs.mean() - ours.mean()).item() < 4 * error
    wide = Mixture(data.law.weights, data.law.means, 1.5 * data.law.stds)
    spread = wide.log_density(rows).mean() - theirs.mean()
    assert spread.item() < -4 * error  # control: a wider law


def test_lines_end_at_the_quantile_map():
    x0, zero = line(), torch.zeros(41, dtype=F64)
    for law in (same(exact.M1), exact.Mixture(*vars(leaning([-1.0, 0.4, 2.0])).values())):
        law = Mixture(law.weights, law.means, law.stds)
        found = factor(law)
        along = exact.Mixture(law.weights, law.means @ found.axis[:, None], law.stds[:, :1])
        start = x0 * found.axis
        begin, end = found.line(start, zero)
        torch.testing.assert_close(begin, start, atol=1e-9, rtol=0)
        expected = along.quantile(torch.special.ndtr(x0[:, 0]))
        seen = x0[:, 0] != 0  # at 0 the symmetric mixture's map jumps
        torch.testing.assert_close((end @ found.axis)[seen], expected[seen], atol=1e-8, rtol=0)


def test_lines_pass_the_state_that_they_were_asked_for():
    found = factor(leaning([-1.0, 0.4, 2.0]))
    noise = torch.randn(50, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    _, end = found.line(noise, torch.zeros(50, dtype=F64))
    for time in (1e-6, 0.1, 0.5, 0.9, 1.0):
        t = torch.full((50,), time, dtype=F64)
        z = (1 - time) * noise + time * end
        torch.testing.assert_close(found.line(z, t), (noise, end), atol=1e-7, rtol=1e-7)
    assert (found.line(noise, t)[0] - noise).abs().max() > 0.1  # control: another time


def test_lines_have_derivatives_though_they_come_from_bisection():
    found, h = factor(leaning([-1.0, 0.4, 2.0])), 1e-6

    def speed(z, t):
        start, end = found.line(z, t)
        return end - start

    generator = torch.Generator().manual_seed(3)
    z, way = torch.randn(2, 30, 4, dtype=F64, generator=generator)
    t = torch.linspace(0.05, 0.95, 30, dtype=F64)
    slope = (speed(z + h * way, t) - speed(z - h * way, t)) / (2 * h)
    back = torch.autograd.functional.vjp(lambda z: speed(z, t), z, way)[1]
    torch.testing.assert_close((back * way).sum(1), (slope * way).sum(1), rtol=1e-4, atol=1e-5)
    assert slope.norm() > 1  # control: there is something to find


def test_laws_without_one_line_of_modes_have_no_factors():
    narrow = leaning([-1.0, 1.0])
    assert factor(narrow) is not None and factor(gaussian(3)) is not None
    for means, stds in (
        (narrow.means + 0.1, narrow.stds),
        (narrow.means, narrow.stds * torch.tensor([[1.0], [1.1]], dtype=F64)),
        (narrow.means, torch.tensor([0.2, 0.7, 0.3, 1.5], dtype=F64).expand(2, 4)),
    ):
        assert factor(Mixture(narrow.weights, means, stds)) is None


# The method.


@pytest.fixture(scope="module")
def toy128():
    """The data of the LMM paper's Table 1."""
    return planning.load_data("mog128", "cpu", None)


def distance_to_law(samples):
    """The Fréchet distance to the mixture in 128 dimensions, whose moments are known."""
    covariance = torch.eye(128, dtype=F64)
    covariance[:2, :2] = torch.tensor([[1.01, 1.0], [1.0, 1.01]])
    return frechet_from_moments(*moments(samples), torch.zeros(128, dtype=F64), covariance)


def field_of(method, data):
    network = method.network(data)
    return lambda z, t, y: method.velocity(network, z, t, y)


@pytest.mark.parametrize(
    ("field", "rows", "expected"),
    [
        ("cfm", 2000, 6.634),
        ("edm", 2000, 6.567),
        ("lines", 50, 0.0),
        pytest.param("lfm", 1000, 9.239, marks=pytest.mark.slow),
    ],
)
def test_straightness_of_the_mixture_in_128_dimensions(field, rows, expected, toy128):
    method, noise = Exact(field=field), unit_noise(0, range(rows), (128,))
    speed = field_of(method, toy128)
    first, _ = straightness(speed, noise, None, method.interval, method.knots)
    assert first == pytest.approx(expected, abs=0.03 if expected else 1e-3)


def test_the_wrong_sign_is_not_straight(toy128):
    speed, noise = field_of(Exact(field="lines"), toy128), unit_noise(0, range(20), (128,))
    assert straightness(lambda z, t, y: -speed(z, t, y), noise, steps=10)[0] > 0.3


def test_few_steps_of_the_mixture_in_128_dimensions(toy128):
    method, noise = Exact(), unit_noise(0, range(4000), (128,))
    network = method.network(toy128)
    for nfe, distance, inside in (
        (1, 128, 0.0),
        (2, 32.2, 0.44),
        (5, 7.5, 0.989),
        (20, 1.51, 0.997),
    ):
        samples = method.sample(network, noise, None, nfe)
        assert distance_to_law(samples) == pytest.approx(distance, rel=0.03)
        assert share_within(samples, toy128.modes) == pytest.approx(inside, abs=0.012)


def test_one_step_along_the_lines_is_the_data(toy128):
    method, noise = Exact(field="lines"), unit_noise(0, range(4000), (128,))
    once, often = (method.sample(method.network(toy128), noise, None, n) for n in (1, 5))
    torch.testing.assert_close(once, often, atol=1e-5, rtol=1e-5)
    assert torch.allclose(once[:, 2:], noise[:, 2:], atol=1e-6)
    assert share_within(once, toy128.modes) == pytest.approx(0.9889, abs=0.006)
    assert distance_to_law(once) < 1.15


def test_samplers_are_those_of_the_methods(toy128):
    """The same field through CFM and EDM themselves gives the same samples, bit by bit."""
    noise = unit_noise(0, range(20), (128,))
    flow, denoiser = Exact().network(toy128), Exact(field="edm").network(toy128)
    for solver in ("euler", "midpoint", "heun"):
        theirs = CFM(solver=solver).sample(flow, noise, None, 7)
        assert torch.equal(Exact(solver=solver).sample(flow, noise, None, 7), theirs)
    for nfe in (1, 2, 7, 35, 36):
        theirs = EDM().sample(denoiser, noise, None, nfe, None)
        assert torch.equal(Exact(field="edm").sample(denoiser, noise, None, nfe), theirs)
    theirs = EDM(solver="heun").sample(denoiser, noise, None, 9, None)
    mine = Exact(field="edm", solver="heun").sample(denoiser, noise, None, 9)
    assert torch.equal(mine, theirs)
    assert Exact(field="edm").interval == EDM().interval


def test_edm_and_cfm_have_one_field_where_both_are_defined(toy128):
    z, t = unit_noise(0, range(20), (128,)).double(), torch.linspace(0.05, 0.95, 20, dtype=F64)
    flow, denoised = (field_of(Exact(field=f), toy128)(z, t, None) for f in ("cfm", "edm"))
    torch.testing.assert_close(flow, denoised)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_blocks_of_lfm_end_at_the_quantile_map(blocks):
    law = Mixture(*vars(same(exact.M1)).values())
    uneven = Mixture(torch.tensor([0.3, 0.7], dtype=F64), law.means, 3 * law.stds)
    x0, method = line(), Exact(field="lfm", blocks=blocks)
    network = method.network(data_of(uneven))
    found = method.sample(network, x0, None, 240 * blocks)
    expected = same(uneven).quantile(torch.special.ndtr(x0[:, 0]))[:, None]
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    z = found
    for n in range(blocks):  # and back, from data to noise
        z = method.solve(network.block(n), z, None, 240, 0.0, 1.0)
    torch.testing.assert_close(z, x0, atol=5e-3, rtol=0)
    astray = x0
    for n in reversed(range(blocks)):
        astray = method.solve(network.block(n), astray, None, 240, 0.0, 1.0)
    assert (astray - expected).abs().max() > 0.2  # control: the blocks' time reversed


def test_a_block_of_lfm_is_the_mean_velocity_of_its_lines():
    """Draws of a block's own pairs, near a state, against its field there."""
    law, method = mixture(1, 2), Exact(field="lfm", blocks=3, c=0.3)
    torch.manual_seed(0)
    pool, tau = same(law).draw(2_000_000), 0.6
    for n, network in enumerate([method.network(data_of(law))] * 2):
        a = math.exp(-0.3 * 1.5**n)
        noisy = a * pool + math.sqrt(1 - a * a) * torch.randn_like(pool)
        x, speed = torch.lerp(pool, noisy, tau), noisy - pool
        for at in (-0.5, 0.3):
            near = (x - at).abs() < 0.02
            seen = speed[near].mean().item()
            state, time = torch.full((1, 1), at, dtype=F64), torch.full((1,), tau, dtype=F64)
            error = speed[near].std().item() / near.sum().item() ** 0.5
            assert network.block(n)(state, time, None).item() == pytest.approx(seen, abs=5 * error)
        pool = noisy


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_evaluations_are_divided_as_by_the_method_itself(solver):
    for blocks, nfe in ((1, 3), (4, 4), (4, 7), (4, 8), (4, 13), (4, 20)):
        exactly, learned = (m(blocks=blocks, solver=solver) for m in (Exact, LFM))
        parts = [exactly.divide(nfe, n) for n in range(blocks)]
        assert parts == [learned.divide(nfe, n) for n in range(blocks)]
        assert sum(parts) == nfe and min(parts) >= 1
    assert Exact(field="lfm", blocks=3, rho=2).knots == pytest.approx(LFM(blocks=3, rho=2).knots)


def test_blocks_meet_where_their_signal_says():
    method = Exact(field="lfm", blocks=4)
    alphas = [math.exp(-total) for total in (0.475, 0.25, 0.1)]
    expected = [a / (a + math.sqrt(1 - a * a)) for a in alphas]
    assert method.knots == pytest.approx(expected)
    assert method.edges[0] == 0 and method.edges[-1] == 1 and Exact().knots == ()


def test_the_chain_is_one_canonical_field():
    """Integrated over canonical time, between the knots, it goes where its blocks go."""
    method, x0 = Exact(field="lfm", blocks=3), line()
    network = method.network(data_of(same(exact.M1)))
    z = x0
    for begin, end in zip(method.edges, method.edges[1:], strict=False):
        z = method.solve(
            lambda z, t, y: method.velocity(network, z, t, y), z, None, 60, begin, end - 1e-9
        )
    torch.testing.assert_close(z, method.sample(network, x0, None, 180), atol=1e-5, rtol=0)


@pytest.mark.parametrize("field", ["cfm", "edm", "lines", "lfm"])
def test_every_evaluation_is_counted_and_labels_are_no_matter(field):
    method = Exact(field=field)
    network = method.network(data_of(same(exact.M1)))
    assert not list(network.parameters())
    seen = exact.calls(network)
    for nfe in (4, 5, 7, 35):
        seen.clear()
        samples = method.sample(network, torch.randn(3, 1), torch.arange(3), nfe)
        assert len(seen) == nfe and {rows for rows, _ in seen} == {3}
        assert samples.isfinite().all()


def test_an_adaptive_solver_ends_at_the_quantile_map():
    law, x0 = same(exact.M1), line(12)
    for field in ("cfm", "lfm"):
        method = Exact(field=field, solver="dopri5", tolerance=1e-7)
        found = method.sample(method.network(data_of(law)), x0, None, None)
        expected = law.quantile(torch.special.ndtr(x0[:, 0]))[:, None]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("field", ["lfm", "lines"])
def test_changes_of_variables_give_the_density(field):
    """log p(x1) = log N(x0) - the integral of the divergence, here of one dimension."""
    law = mixture(1, 2)
    method = Exact(field=field)
    network, x0 = method.network(data_of(law)), line(9, 1.5)
    leaf = x0.clone().requires_grad_(True)
    steps = 100 if field == "lfm" else 1
    z = leaf
    for begin, end in (
        zip(method.edges, method.edges[1:], strict=False) if field == "lfm" else [(0, 1)]
    ):
        h = (end - 1e-9 - begin) / steps
        for i in range(steps):
            t = torch.full((9,), begin + i * h, dtype=F64)
            half = z + h / 2 * method.velocity(network, z, t, None)
            z = z + h * method.velocity(network, half, t + h / 2, None)
    (stretch,) = torch.autograd.grad(z.sum(), leaf)
    found = gaussian(1).log_density(x0) - stretch[:, 0].log()
    torch.testing.assert_close(found, law.log_density(z.detach()), atol=1e-3, rtol=0)


def test_refuses():
    for words in (
        {"field": "edm", "solver": "midpoint"},
        {"blocks": 0},
        {"c": 0.0},
        {"sigma_min": 90.0},
    ):
        with pytest.raises(FlowbenchError):
            Exact(**words)
    assert "4 or more" in Exact(field="lfm").refuses(3)
    assert "dopri5" in Exact().refuses(None)
    assert Exact(field="lfm").refuses(4) is None
    assert Exact(solver="dopri5").refuses(None) is None
    with pytest.raises(FlowbenchError, match="no closed form"):
        Exact().train(data_of(None))
    with pytest.raises(FlowbenchError, match="on one line"):
        Exact(field="lines").train(data_of(mixture(2, 3), 2))
