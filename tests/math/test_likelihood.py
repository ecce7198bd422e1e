"""Likelihood by change of variables, against densities in closed form."""

import math

import exact_fields as exact
import pytest
import torch

from flowbench.coordinates import like
from flowbench.metrics.likelihood import log_density, nll, velocity_and_divergence
from flowbench.nets import MLP

UNEVEN = exact.Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-1.0], [0.6]]).double(),
    torch.tensor([[0.2], [0.35]]).double(),
)


def density(law: exact.Mixture, x: torch.Tensor) -> torch.Tensor:
    """ln p(x) of a mixture, (n,)."""
    parts = torch.distributions.Normal(law.means, law.stds).log_prob(x[:, None, :]).sum(2)
    return (parts + law.weights.log()).logsumexp(1)


@pytest.mark.parametrize(("law", "steps"), [(UNEVEN, 80), (UNEVEN, None), (exact.M1, 160)])
def test_mixtures_in_one_dimension(law, steps):
    x = law.draw(200, seed=1)
    found = log_density(law.velocity, x, steps=steps)
    torch.testing.assert_close(found, density(law, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("stds", [(0.3, 1.0), (0.5, 2.0), (1.0, 1.0)])
def test_gaussians(stds):
    law = exact.gaussian(3.0, torch.tensor(stds), 2)
    x = law.draw(50)
    found = log_density(law.velocity, x)
    torch.testing.assert_close(found, density(law, x), rtol=0, atol=1e-4)
    wrong = log_density(lambda z, t, y: -law.velocity(z, t), x)
    assert (wrong - density(law, x)).abs().min() > 0.1  # control: the sign of the velocity


def test_integral_of_the_divergence():
    """ln p(x) = ln p(noise) minus the sum of ln s: the noise is (x - mean) / s."""
    stds = torch.tensor([0.3, 0.8, 2.0]).double()
    law = exact.gaussian(1.0, stds, 3)
    x = law.draw(20)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob((x - 1) / stds).sum(1)
    change = normal - log_density(law.velocity, x)
    torch.testing.assert_close(
        change, torch.full_like(change, stds.log().sum().item()), atol=1e-4, rtol=0
    )


def test_float32_and_the_mean():
    law = exact.gaussian(0.0, 0.5, 4)
    x = law.draw(300).float()
    found = nll(law.velocity, x)
    assert found == pytest.approx(-density(law, x.double()).mean().item(), abs=1e-3)
    entropy = 4 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.5))
    assert found == pytest.approx(entropy, abs=0.3)


def test_divergence_is_the_trace_of_the_jacobian():
    torch.manual_seed(0)
    net = MLP((5,), classes=3, width=16)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z, y, t = torch.randn(4, 5), torch.tensor([0, 1, 2, 0]), torch.tensor(0.3)
    value, found = velocity_and_divergence(net, z, t, y)
    torch.testing.assert_close(value, net(z, t.expand(4), y))
    for i in range(4):
        row = torch.autograd.functional.jacobian(
            lambda x, i=i: net(x[None], t[None], y[i : i + 1])[0], z[i]
        )
        assert found[i].item() == pytest.approx(row.trace().item(), abs=1e-5)


def test_a_field_that_jumps():
    """x doubles until t = 0.4 and is tripled from there: N(0, 36), if steps end at the knot."""

    def field(z, t, labels):
        early = t < 0.4
        speed = torch.where(early, math.log(2) / 0.4, math.log(3) / 0.6)
        return like(speed, z) * z

    x = torch.linspace(-10, 10, 7).double()[:, None]
    expected = torch.distributions.Normal(0.0, 6.0).log_prob(x[:, 0])
    for steps in (20, None):
        found = log_density(field, x, knots=(0.4,), steps=steps)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    across = log_density(field, x, steps=7)
    assert (across - expected).abs().max() > 1e-3  # control: a step that crosses it
