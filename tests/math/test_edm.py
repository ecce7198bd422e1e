"""EDM (arXiv:2206.00364) against closed forms: preconditioning, loss, samplers."""

import math

import exact_fields as exact
import pytest
import torch
from flowbench_plugins.edm import EDM

from flowbench import nets, noise_levels, solvers
from flowbench.noise import Stream, unit_noise

HEUN = {  # what one unit at sigma = 80 becomes for N(0, std^2) after N levels
    0.5: {
        2: 5.000035315835e-01,
        5: 1.572357884587e-02,
        10: 7.622475009987e-03,
        18: 6.595307962513e-03,
        40: 6.310960808178e-03,
        80: 6.264316425158e-03,
    },
    1.0: {
        2: 5.000741132313e-01,
        5: 2.384069246761e-02,
        10: 1.469290682483e-02,
        18: 1.305911049784e-02,
        40: 1.259876387284e-02,
        80: 1.252270577049e-02,
    },
}


def one() -> torch.Tensor:
    return torch.ones(1, 1, dtype=torch.float64)


def gaussian(std: float, mean: float = 0.0) -> exact.Net:
    return exact.Net(exact.gaussian(mean, std).denoiser)


def factor(method: EDM, std: float, nfe: int) -> float:
    """The sampler's multiplier of the state at sigma_max on N(0, std^2)."""
    return method.sample(gaussian(std), one(), None, nfe, None).item() / method.sigma_max


class Recorder(torch.nn.Module):
    """A backbone that remembers its inputs and returns a constant."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, x, t, y):
        self.inputs = x, t, y
        return torch.full_like(x, self.value)


@pytest.mark.parametrize(
    ("sigma", "skip", "out", "into", "noise"),
    [
        (80.0, 3.906e-5, 0.499990, 0.0124998, 1.09551),
        (1.0, 0.2, 0.447214, 0.894427, 0.0),
        (0.002, 0.999984, 0.0019999840, 1.99998, -1.55365),
    ],
)
def test_preconditioning(sigma, skip, out, into, noise):
    """EDM, Table 1, with data of standard deviation 0.5."""
    net = Recorder(0.0)
    denoiser = nets.Denoiser(net, 0.5)
    x, level, y = one(), torch.tensor([sigma], dtype=torch.float64), torch.tensor([3])
    assert denoiser(x, level, y).item() == pytest.approx(skip, rel=2e-4)
    assert net.inputs[0].item() == pytest.approx(into, rel=2e-5)
    assert net.inputs[1].item() == pytest.approx(noise, abs=1e-5)
    assert net.inputs[2] is y
    net.value = 1.0
    found = denoiser(0 * x, level, y).item()
    assert found == pytest.approx(out, rel=2e-6)
    assert denoiser.weight(level).item() * found**2 == pytest.approx(1, rel=1e-12)


def test_line_form_predicts_the_velocity():
    field = exact.gaussian(0.3, 0.5)
    denoiser = nets.Denoiser(exact.Net(field.velocity), 0.5, "line")
    x, sigma = torch.tensor([[2.0], [-7.0]]).double(), torch.tensor([0.4, 8.0]).double()
    expected = field.denoiser(x, sigma)
    torch.testing.assert_close(denoiser(x, sigma), expected)
    assert not torch.allclose(nets.Denoiser(denoiser.net, 0.5)(x, sigma), expected, atol=0.1)


@pytest.mark.parametrize(
    ("std", "sigma", "best", "start"),
    [(1.0, 0.5, 1.6, 2.5), (1.0, 2.0, 3.4, 3.8235), (0.5, 0.5, 1.0, 1.0), (0.5, 7.0, 1.0, 1.0)],
)
def test_loss_of_the_best_and_of_the_first_network(std, sigma, best, start, monkeypatch):
    """(sigma^2 + sd^2) s^2 / (sd^2 (s^2 + sigma^2)) and, for F = 0, ..., per entry; sd = 0.5."""
    sd = 0.5
    assert (sigma**2 + sd**2) * std**2 / (sd**2 * (std**2 + sigma**2)) == pytest.approx(best)
    zero = (sigma**2 * std**2 + sd**4) / (sd**2 * (sigma**2 + sd**2))
    assert zero == pytest.approx(start, abs=1e-4)
    torch.manual_seed(0)
    x = std * torch.randn(40_000, 4)
    monkeypatch.setattr(EDM, "draw_sigmas", lambda self, n, device: torch.full((n,), sigma))
    perfect = exact.Net(exact.gaussian(0.0, std, 4).denoiser, sd)
    for network, expected in ((perfect, best), (nets.Denoiser(Recorder(0.0), sd), start)):
        loss = exact.loss_of(EDM(), exact.vectors(x[:10]), network, monkeypatch, run=None)
        assert loss(x, None).item() == pytest.approx(expected, rel=0.02)


def test_training_levels_are_the_papers():
    torch.manual_seed(0)
    sigma = EDM().draw_sigmas(400_000, "cpu")
    quantiles = sigma.quantile(torch.tensor([0.01, 0.5, 0.99])).tolist()
    assert quantiles == pytest.approx([0.0185, 0.301, 4.91], rel=0.03)
    assert EDM(sigmas="uniform").draw_sigmas(10_000, "cpu").median() == pytest.approx(1, rel=0.1)
    karras = EDM(sigmas="karras").draw_sigmas(10_000, "cpu").median()
    assert karras == pytest.approx(2.515, rel=0.15)


@pytest.mark.parametrize("std", [0.5, 1.0])
@pytest.mark.parametrize("levels", [2, 5, 10, 18, 40, 80])
def test_heun_on_a_gaussian_to_twelve_digits(std, levels):
    method = EDM(solver="heun")
    assert factor(method, std, 2 * levels - 1) == pytest.approx(HEUN[std][levels], rel=1e-12)
    if levels > 2:  # control: another grid
        wrong = factor(EDM(solver="heun", schedule="uniform"), std, 2 * levels - 1)
        assert wrong != pytest.approx(HEUN[std][levels], rel=1e-3)


def test_heun_converges_to_the_exact_map():
    ratios = [factor(EDM(), 0.5, nfe) * 80 / exact.slope(0.5) for nfe in (35, 79, 159)]
    assert ratios == pytest.approx([1.055270, 1.009773, 1.002310], abs=1e-6)
    ratios = [factor(EDM(), 1.0, nfe) * 80 / exact.slope(1.0) for nfe in (35, 79, 159)]
    assert ratios == pytest.approx([1.044810, 1.007980, 1.001895], abs=1e-6)


@pytest.mark.parametrize(
    ("nfe", "ends"),
    [
        (35, [1.16644175, 1.28479743, 1.39413329, 1.47400324, 1.60255733]),
        (79, [1.16656997, 1.27378605, 1.38573567, 1.46356168, 1.58638829]),
        (799, [1.17313286, 1.27348984, 1.38443442, 1.46172165, 1.58318710]),
    ],
)
def test_ends_on_a_mixture(nfe, ends):
    """1-D mixture +-sqrt(2), standard deviation 0.1; the last grid is near the exact map."""
    law = exact.pair(math.sqrt(2), 0.1)
    start = torch.tensor([0.8, 8, 40, 80, 160], dtype=torch.float64)[:, None]
    found = EDM().sample(exact.Net(law.denoiser), start / 80, None, nfe, None)
    assert found.flatten().tolist() == pytest.approx(ends, abs=2e-8)
    mirrored = EDM().sample(exact.Net(law.denoiser), -start / 80, None, nfe, None)
    torch.testing.assert_close(mirrored, -found, rtol=0, atol=1e-12)
    p = law.cdf(start[:, 0], extra=80.0)
    expected = [1.17321905, 1.27346601, 1.38441829, 1.46171552, 1.58319245]
    assert law.quantile(p).tolist() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("std", [0.5, 1.0])
def test_one_and_two_evaluations(std):
    """One returns D(80 noise, 80), nearly the mean; two are Euler steps over the first grid."""

    def a(sigma):
        return sigma / (std**2 + sigma**2)

    one_step = std**2 / (std**2 + 80**2)
    assert factor(EDM(), std, 1) == pytest.approx(one_step, rel=1e-12)
    assert factor(EDM(solver="heun"), std, 1) == pytest.approx(one_step, rel=1e-12)

    half = 40 / 41  # sigma halfway in canonical time between 1/81 and 1
    two = (1 + (half - 80) * a(80)) * (1 - half * a(half))
    assert factor(EDM(), std, 2) == pytest.approx(two, rel=1e-12)
    low = 0.002
    two = (1 + (low - 80) * a(80)) * (1 - low * a(low))
    assert factor(EDM(solver="heun"), std, 2) == pytest.approx(two, rel=1e-10)
    mean = EDM().sample(gaussian(std, 5.0), 0 * one(), None, 1, None).item()
    assert mean == pytest.approx(5 - 5 * one_step, rel=1e-12)


def step(std: float, sigma: float, target: float, corrected: bool) -> float:
    """The multiplier of one step on N(0, std^2): 1 + h/2 (A + A' (1 + h A)), or 1 + h A."""
    h, a = target - sigma, sigma / (std**2 + sigma**2)
    after = target / (std**2 + target**2)
    return 1 + h / 2 * (a + after * (1 + h * a)) if corrected else 1 + h * a


def product(std: float, levels: list[float], corrected) -> float:
    """The multiplier of a sampler with Heun's correction in the steps `corrected`."""
    ends = [*levels, 0.0]
    return math.prod(step(std, ends[i], ends[i + 1], i in corrected) for i in range(len(levels)))


def test_even_evaluations_leave_one_correction_out():
    levels = noise_levels.karras(19).tolist()
    assert factor(EDM(), 0.5, 36) == pytest.approx(product(0.5, levels, range(1, 18)), rel=1e-12)
    assert factor(EDM(), 0.5, 37) == pytest.approx(product(0.5, levels, range(18)), rel=1e-12)
    full = product(0.5, levels, range(18))
    changes = [
        abs(product(0.5, levels, set(range(18)) - {left_out}) - full) for left_out in range(18)
    ]
    assert changes[0] == min(changes) and changes[0] < max(changes) / 1000


@pytest.mark.parametrize("nfe", [*range(1, 10), 34, 35, 36])
@pytest.mark.parametrize("solver", ["auto", "heun", "euler"])
def test_spends_what_it_is_given(solver, nfe):
    for churn in (0.0, 10.0):
        network = exact.Net(exact.M1.denoiser)
        seen = exact.calls(network)
        rng = Stream(0, range(2), (1,), "cpu")
        method = EDM(solver=solver, churn=churn)
        method.sample(network, unit_noise(0, range(2), (1,)), None, nfe, rng)
        assert len(seen) == nfe
        assert all((sigma > 0).all() for _, sigma in seen)


def test_auto_takes_heun_and_its_grid_from_35_evaluations():
    assert factor(EDM(), 0.5, 34) == factor(EDM(solver="euler", schedule="uniform"), 0.5, 34)
    assert factor(EDM(), 0.5, 35) == factor(EDM(solver="heun", schedule="karras"), 0.5, 35)


def churned(std: float, steps: int, churn: float, inflation: float, wrong: bool = False) -> float:
    """The second moment that Algorithm 2 gives N(0, std^2) from unit noise at sigma = 80."""
    levels, second = [*noise_levels.karras(steps).tolist(), 0.0], 80.0**2
    gamma = min(churn / steps, math.sqrt(2) - 1)
    for i in range(steps):
        sigma, target = levels[i], levels[i + 1]
        if 0.05 <= sigma <= 50:
            raised = sigma * (1 + gamma)
            added = (raised - sigma) ** 2 if wrong else raised**2 - sigma**2
            second, sigma = second + added * inflation**2, raised
        second *= step(std, sigma, target, i < steps - 1) ** 2
    return second


@pytest.mark.parametrize("inflation", [1.0, 1.003])
def test_stochastic_sampler_has_the_exact_second_moment(inflation):
    """On a Gaussian the sampler is linear, so unit vectors for noise give its exact moments."""
    steps, std = 80, 0.5
    method = EDM(churn=40.0, churn_noise=inflation, solver="heun")
    noise, rng = exact.basis(steps + 1)
    found = method.sample(gaussian(std), noise, None, 2 * steps - 1, rng).square().sum().item()
    assert found == pytest.approx(churned(std, steps, 40.0, inflation), rel=1e-10)
    assert found != pytest.approx(churned(std, steps, 40.0, inflation, wrong=True), rel=0.05)


def test_stochastic_sampler_keeps_the_law():
    """The second moment converges to the data's as steps get short."""
    for steps, allowed in ((256, 0.01), (1024, 0.001)):
        noise, rng = exact.basis(steps + 1)
        method = EDM(churn=40.0, churn_noise=1.0)
        found = method.sample(gaussian(0.5), noise, None, 2 * steps - 1, rng).norm().item()
        assert found == pytest.approx(0.5, rel=allowed)


def test_stochastic_sampler_with_the_streams_of_a_run():
    """What `rng` gives is independent of the noise that sampling starts from."""
    n, dim = 300, 64
    noise, rng = unit_noise(0, range(n), (dim,)).double(), Stream(0, range(n), (dim,), "cpu")
    method = EDM(churn=40.0, churn_noise=1.0, churn_min=79.0, churn_max=81.0)
    found = method.sample(gaussian(0.5), noise, None, 35, rng).square().mean().item()
    start, fresh = exact.basis(2)
    expected = method.sample(gaussian(0.5), start, None, 35, fresh).square().sum().item()
    assert found == pytest.approx(expected, rel=5 * math.sqrt(2 / (n * dim)))
    repeated = method.sample(gaussian(0.5), noise, None, 35, lambda: noise).square().mean().item()
    assert repeated > 1.5 * expected  # control: the same noise twice


def test_no_churn_is_the_deterministic_path_bit_by_bit():
    noise, network = unit_noise(1, range(8), (2,)), exact.Net(exact.MODAL.denoiser)
    rng = Stream(1, range(8), (2,), "cpu")
    still = EDM(churn=0.0).sample(network, noise, None, 35, rng)
    assert rng.draws == Stream(1, range(8), (2,), "cpu").draws
    levels = noise_levels.karras(18)
    assert torch.equal(still, solvers.sigma_heun(network, 80.0 * noise, None, levels))
    empty = EDM(churn=5.0, churn_min=60.0, churn_max=50.0).sample(network, noise, None, 35, rng)
    assert torch.equal(still, empty)
    assert not torch.equal(still, EDM(churn=5.0).sample(network, noise, None, 35, rng))


def test_interval_and_velocity():
    assert EDM().interval == pytest.approx((1 / 81, 1 / 1.002))
    assert EDM(sigma_min=0.1, sigma_max=10.0).interval == pytest.approx((1 / 11, 1 / 1.1))
    t = torch.linspace(*EDM().interval, 9).double()
    z = torch.linspace(-2, 2, 9).double()[:, None]
    ours = EDM().velocity(exact.Net(exact.M1.denoiser), z, t, None)
    torch.testing.assert_close(ours, exact.M1.velocity(z, t), rtol=1e-8, atol=1e-8)


def test_labels_reach_the_network():
    def field(x, sigma, y):
        return exact.gaussian(0.0, 0.1).denoiser(x - 3.0 * y[:, None], sigma) + 3.0 * y[:, None]

    labels = torch.tensor([0, 1, 2])
    found = EDM().sample(exact.Net(field), torch.zeros(3, 1), labels, 40, None)
    assert found.flatten().tolist() == pytest.approx([0, 3, 6], abs=0.1)
