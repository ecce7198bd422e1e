"""Order, few-step values, endpoints and evaluations of the solvers, on exact fields."""

import exact_fields as exact
import pytest
import torch

from flowbench import noise_levels, solvers

CANONICAL = {"euler": solvers.euler, "midpoint": solvers.midpoint, "heun": solvers.heun}


def ones(n: int = 1) -> torch.Tensor:
    return torch.ones(n, 1, dtype=torch.float64)


def multiplier(solver, std: float, nfe: int, mean: float = 3.0) -> float:
    """What the solver makes of one unit of noise around the mean of N(mean, std^2)."""
    return (solver(exact.gaussian(mean, std).velocity, ones(), None, nfe) - mean).item()


@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_one_and_two_evaluations_on_a_gaussian(std):
    assert multiplier(solvers.euler, std, 1) == pytest.approx(0, abs=1e-12)
    assert multiplier(solvers.euler, std, 2) == pytest.approx(std**2 / (1 + std**2), abs=1e-12)
    assert multiplier(solvers.heun, std, 2) == pytest.approx(0.5, abs=1e-12)
    middle = 2 * std**2 / (1 + std**2)
    assert multiplier(solvers.midpoint, std, 2) == pytest.approx(middle, abs=1e-12)

    def backwards(z, t, labels):
        return -exact.gaussian(0.0, std).velocity(z, t)

    assert solvers.euler(backwards, ones(), None, 1).item() == pytest.approx(2)  # control: sign


@pytest.mark.parametrize(
    ("std", "expected"),
    [
        (0.5, [0.340541, 0.414785, 0.477364, 0.494245]),
        (1.0, [0.720000, 0.850822, 0.960614, 0.990008]),
        (2.0, [1.362162, 1.659138, 1.909454, 1.976980]),
    ],
)
def test_euler_table_on_a_gaussian(std, expected):
    found = [multiplier(solvers.euler, std, nfe) for nfe in (4, 8, 32, 128)]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rule", ["midpoint", "heun"])
def test_odd_evaluations_end_with_an_euler_step(rule):
    """Three evaluations are two steps of equal length: the rule, then Euler."""
    std, h = 0.5, 0.5

    def k(t):
        return (1.25 * t - 1) / (0.25 * t**2 + (1 - t) ** 2)

    second = k(h / 2) * (1 + h / 2 * k(0)) if rule == "midpoint" else k(h) * (1 + h * k(0))
    slope = second if rule == "midpoint" else (k(0) + second) / 2
    expected = (1 + h * slope) * (1 + h * k(h))
    assert multiplier(CANONICAL[rule], std, 3) == pytest.approx(expected, abs=1e-12)
    swapped = (1 + h * k(0)) * (1 + h * slope)
    assert expected != pytest.approx(swapped, abs=1e-3)


def order(errors: list[float]) -> float:
    """The slope between the last two of errors made with steps that halve."""
    return torch.tensor(errors[-2] / errors[-1]).log2().item()


@pytest.mark.parametrize(("rule", "expected"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_order_of_the_canonical_solvers(rule, expected):
    """On a mixture: on a Gaussian the midpoint rule ends with order 3 by symmetry."""
    law, x0 = exact.pair(1.0, 0.5), torch.tensor([[-1.7], [0.3], [0.9]], dtype=torch.float64)
    end = law.quantile(torch.special.ndtr(x0[:, 0]))[:, None]
    per_step = 1 if rule == "euler" else 2
    errors = [
        (CANONICAL[rule](law.velocity, x0, None, per_step * steps) - end).norm().item()
        for steps in (200, 400)
    ]
    assert order(errors) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_errors_on_a_gaussian_fall_with_the_order(std):
    for rule, least in (("euler", 0.95), ("midpoint", 2.9), ("heun", 1.95)):
        per_step = 1 if rule == "euler" else 2
        errors = [
            abs(multiplier(CANONICAL[rule], std, per_step * steps) - std) for steps in (100, 200)
        ]
        assert order(errors) > least


def test_order_of_the_sigma_solvers():
    """Both run down the same kind of grid; only the correction differs."""
    field, x = exact.gaussian(0.0, 0.5).denoiser, 80 * ones()
    exact_end = exact.slope(0.5)
    for solver, expected in ((solvers.sigma_euler, 1), (solvers.sigma_heun, 2)):
        ends = [solver(field, x, None, noise_levels.karras(n)).item() for n in (160, 320)]
        errors = [abs(end - exact_end) for end in ends]
        assert order(errors) == pytest.approx(expected, abs=0.15)
    uncorrected = solvers.sigma_heun(field, x, None, noise_levels.karras(40), corrected=range(0))
    euler = solvers.sigma_euler(field, x, None, noise_levels.karras(40))
    assert torch.equal(uncorrected, euler)


def test_last_step_to_zero_returns_the_denoiser():
    x = torch.tensor([[0.3], [-1.2]], dtype=torch.float64)
    end = solvers.sigma_heun(exact.M1.denoiser, x, None, torch.tensor([0.7]))
    expected = exact.M1.denoiser(x, torch.full((2,), torch.tensor(0.7).item()).double())
    torch.testing.assert_close(end, expected)


@pytest.mark.parametrize(("tolerance", "allowed"), [(1e-5, 1e-4), (1e-8, 1e-7)])
def test_dopri5_ends_at_the_quantile_map(tolerance, allowed):
    """Every exact flow of a 1-D law is monotone: x1 = F^-1(Phi(x0))."""
    x0 = torch.linspace(-2.6, 2.6, 42, dtype=torch.float64)[:, None]
    expected = exact.M1.quantile(torch.special.ndtr(x0[:, 0]))[:, None]
    ours = solvers.dopri5(exact.M1.velocity, x0, None, tolerance, tolerance)
    torch.testing.assert_close(ours, expected, rtol=0, atol=allowed)
    assert (solvers.euler(exact.M1.velocity, x0, None, 20) - expected).abs().max() > 0.01


@pytest.mark.parametrize("rule", CANONICAL)
@pytest.mark.parametrize("nfe", range(1, 10))
def test_canonical_solvers_spend_what_they_are_given(rule, nfe):
    network = exact.Net(exact.M1.velocity)
    seen = exact.calls(network)
    CANONICAL[rule](network, torch.randn(3, 1), None, nfe)
    assert len(seen) == nfe and {rows for rows, _ in seen} == {3}
    assert all(t.shape == (3,) for _, t in seen)


@pytest.mark.parametrize("levels", [1, 2, 18])
def test_sigma_solvers_spend_one_and_two_evaluations_a_level(levels):
    grid = noise_levels.karras(levels)
    for solver, expected in ((solvers.sigma_euler, levels), (solvers.sigma_heun, 2 * levels - 1)):
        network = exact.Net(exact.M1.denoiser)
        seen = exact.calls(network)
        solver(network, 80 * torch.randn(3, 1), None, grid)
        assert len(seen) == expected
        assert all((t > 0).all() for _, t in seen)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_dopri5_spends_two_and_six_an_attempt(tolerance):
    network = exact.Net(exact.M1.velocity)
    seen = exact.calls(network)
    x0 = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    solvers.dopri5(network, x0, None, tolerance, tolerance)
    assert len(seen) > 8 and (len(seen) - 2) % 6 == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nfe", [*range(1, 10), 186, 234])
def test_no_solver_looks_outside_the_unit_interval(nfe, dtype):
    """93 and 117 steps are such that (n - 1) / n + 1 / n rounds to more than 1."""
    for rule in CANONICAL.values():
        network = exact.Net(exact.M1.velocity)
        seen = exact.calls(network)
        rule(network, torch.zeros(1, 1, dtype=dtype), None, nfe)
        times = torch.cat([t for _, t in seen]).double()
        assert times.min() >= 0 and times.max() <= 1


def test_dopri5_does_not_look_outside_the_unit_interval():
    from torchdiffeq import odeint

    network = exact.Net(exact.M1.velocity)
    seen, x0 = exact.calls(network), torch.randn(20, 1, dtype=torch.float64)
    solvers.dopri5(network, x0, None)
    times = torch.cat([t for _, t in seen])
    assert times.min() >= 0 and times.max() <= 1

    free: list[float] = []

    def field(t, z):
        free.append(t.item())
        return exact.M1.velocity(z, t.expand(len(z)))

    odeint(field, x0, torch.tensor([0.0, 1.0]).double(), rtol=1e-5, atol=1e-5, method="dopri5")
    assert max(free) > 1  # control: without care it does


def test_solvers_pass_labels_and_keep_dtype_and_shape():
    labels, seen = torch.tensor([2, 0, 1]), []

    def field(x, t, y):
        seen.append(y)
        return -x / (1 + t.reshape(-1, 1, 1, 1))

    x = torch.randn(3, 1, 4, 4)
    ends = [rule(field, x, labels, 3) for rule in CANONICAL.values()]
    ends += [solvers.dopri5(field, x, labels)]
    ends += [solvers.sigma_heun(field, x, labels, noise_levels.karras(3))]
    assert all(end.shape == x.shape and end.dtype == x.dtype for end in ends)
    assert seen and all(y is labels for y in seen)


@pytest.mark.parametrize("name", CANONICAL)
def test_backwards_undoes_forwards_and_parts_make_a_whole(name):
    """On N(3, 0.5^2) the map of noise is 3 + 0.5 z; a fine grid runs it both ways."""
    solver, field = CANONICAL[name], exact.gaussian(3.0, 0.5).velocity
    z, nfe = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], 500
    end = solver(field, z, None, nfe)
    tolerance = 5e-2 if name == "euler" else 1e-4
    torch.testing.assert_close(end, 3 + 0.5 * z, rtol=0, atol=tolerance)
    back = solver(field, end, None, nfe, begin=1.0, end=0.0)
    torch.testing.assert_close(back, z, rtol=0, atol=tolerance)
    middle = solver(field, z, None, nfe, begin=0.0, end=0.25)
    whole = solver(field, middle, None, 3 * nfe, begin=0.25, end=1.0)
    torch.testing.assert_close(whole, end, rtol=0, atol=tolerance)


def test_dopri5_runs_backwards_too():
    field = exact.gaussian(3.0, 0.5).velocity
    z = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    back = solvers.dopri5(field, 3 + 0.5 * z, None, 1e-8, 1e-8, begin=1.0, end=0.0)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-6)
