"""Conditional flow matching on exact fields: samplers, paths, the floor of its loss."""

import math

import exact_fields as exact
import pytest
import torch
from flowbench_plugins.cfm import CFM

from flowbench import coordinates


def sample(law: exact.Mixture, x0: torch.Tensor, nfe: int | None, solver: str) -> torch.Tensor:
    return CFM(solver=solver).sample(exact.Net(law.velocity), x0, None, nfe)


@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_few_steps_on_a_gaussian(std):
    law, x0 = exact.gaussian(3.0, std), torch.ones(1, 1, dtype=torch.float64)
    twice = std**2 / (1 + std**2)
    for solver, nfe, expected in (
        ("euler", 1, 0.0),
        ("midpoint", 1, 0.0),
        ("heun", 1, 0.0),
        ("euler", 2, twice),
        ("midpoint", 2, 2 * twice),
        ("heun", 2, 0.5),
    ):
        found = sample(law, x0, nfe, solver).item() - 3
        assert found == pytest.approx(expected, abs=1e-12), (solver, nfe)
    assert sample(law, x0, None, "dopri5").item() == pytest.approx(3 + std, abs=3e-4)


def test_one_euler_step_collapses_any_law_to_its_mean():
    x0 = torch.randn(5, 1, dtype=torch.float64)
    uneven = exact.Mixture(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-1.0], [0.6]]).double(),
        torch.tensor([[0.2], [0.35]]).double(),
    )
    mean = torch.full_like(x0, 0.3 * -1 + 0.7 * 0.6)
    torch.testing.assert_close(sample(uneven, x0, 1, "euler"), mean, atol=1e-7, rtol=0)


def test_many_steps_end_at_the_quantile_map():
    x0 = torch.linspace(-2.2, 2.2, 12, dtype=torch.float64)[:, None]
    expected = exact.M1.quantile(torch.special.ndtr(x0[:, 0]))[:, None]
    for solver, nfe, allowed in (
        ("euler", 200, 0.04),
        ("midpoint", 100, 5e-3),
        ("heun", 100, 5e-3),
        ("dopri5", None, 1e-4),
    ):
        found = sample(exact.M1, x0, nfe, solver)
        torch.testing.assert_close(found, expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("nfe", range(1, 10))
def test_spends_what_it_is_given(solver, nfe):
    network = exact.Net(exact.M1.velocity)
    seen = exact.calls(network)
    CFM(solver=solver).sample(network, torch.randn(4, 1), None, nfe)
    assert len(seen) == nfe


@pytest.mark.parametrize("std", [0.3, 1.0, 2.0])
def test_floor_of_the_loss(std, monkeypatch):
    """The exact velocity of N(0, s^2) leaves (pi/2) s per coordinate."""
    torch.manual_seed(0)
    x = std * torch.randn(100_000, 4)
    field = exact.gaussian(0.0, std, 4).velocity

    def measured(function):
        network = exact.Net(function)
        return exact.loss_of(CFM(), exact.vectors(x[:9]), network, monkeypatch, run=None)

    assert measured(field)(x, None).item() == pytest.approx(math.pi / 2 * std, rel=0.01)
    wrong = measured(lambda z, t, y: -field(z, t))(x, None).item()
    assert wrong > 1.3 * math.pi / 2 * std  # control: sign


@pytest.mark.parametrize("width", [0.0, 0.1])
def test_path_of_the_loss(width, monkeypatch):
    """Lipman et al.: x_t = (1 - (1 - w) t) x0 + t x1 with the target x1 - (1 - w) x0."""
    seen = []

    def record(z, t, y):
        seen.append((z, t))
        return torch.zeros_like(z)

    torch.manual_seed(0)
    x = 2.0 + torch.rand(50_000, 2)
    method = CFM(sigma_min=width)
    loss = exact.loss_of(method, exact.vectors(x[:9]), exact.Net(record), monkeypatch, run=None)
    value = loss(x, None).item()
    (z, t), s = seen[0], coordinates.like(seen[0][1], x)
    noise = (z - s * x) / (1 - (1 - width) * s)
    early = t < 0.9  # later, rounding is divided by a small number
    assert noise[early].std().item() == pytest.approx(1, abs=0.02)
    assert noise[early].mean().item() == pytest.approx(0, abs=0.02)
    expected = (x - (1 - width) * noise)[early].square().mean().item()
    assert value == pytest.approx(expected, rel=0.02)
    assert t.min() >= 0 and t.max() <= 1 and t.mean().item() == pytest.approx(0.5, abs=0.01)


def test_times():
    torch.manual_seed(0)
    p = torch.tensor([0.01, 0.10, 0.25, 0.50, 0.75, 0.90, 0.99])
    skewed = CFM(times="skewed").draw_times(400_000, "cpu")
    expected = torch.tensor([0.168, 0.416, 0.596, 0.768, 0.882, 0.939, 0.982])
    torch.testing.assert_close(skewed.quantile(p), expected, atol=0.003, rtol=0)
    assert skewed.mean().item() == pytest.approx(0.719, abs=0.002)
    uniform = CFM().draw_times(400_000, "cpu")
    torch.testing.assert_close(uniform.quantile(p), p, atol=0.005, rtol=0)
    assert (skewed.quantile(p) - p).abs().max() > 0.2  # control


def test_refuses():
    assert CFM().refuses(1) is None and CFM(solver="dopri5").refuses(None) is None
    assert "dopri5" in CFM().refuses(None)
    assert "dopri5" in CFM(solver="dopri5").refuses(4)


def test_velocity_and_labels():
    def field(z, t, y):
        return z + y[:, None]

    z, t, labels = torch.randn(3, 1), torch.rand(3), torch.tensor([0, 1, 2])
    found = CFM().velocity(exact.Net(field), z, t, labels)
    assert torch.equal(found, field(z, t, labels))
    end = CFM().sample(exact.Net(lambda z, t, y: 1.0 * y[:, None] + 0 * z), z, labels, 3)
    torch.testing.assert_close(end, z + labels[:, None])
