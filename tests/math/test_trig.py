"""The trigonometric path of conditional flow matching: its own clock, and the canonical field."""

import math

import exact_fields as exact
import pytest
import torch
from flowbench_plugins.cfm import CFM

from flowbench import FlowbenchError
from flowbench.coordinates import like
from flowbench.metrics.straightness import straightness

TRIG = CFM(path="trig")
UNEVEN = exact.Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0], [0.6]], dtype=torch.float64),
    torch.tensor([[0.2], [0.35]], dtype=torch.float64),
)


def native(law: exact.Mixture, sign: float = 1.0) -> exact.Net:
    """E[dx/dtau | x] on x = cos(pi tau/2) x0 + sin(pi tau/2) x1, as a network on tau."""

    def field(x, tau, y):
        sin, cos = (math.pi / 2 * tau).sin(), (math.pi / 2 * tau).cos()
        data, noise = law._posterior(x, sin, cos)
        return sign * math.pi / 2 * (like(cos, x) * data - like(sin, x) * noise)

    return exact.Net(field)


@pytest.mark.parametrize("law", [UNEVEN, exact.MODAL, exact.gaussian(1.5, 0.3, 3)])
def test_the_canonical_field_is_that_of_straight_paths(law):
    """Both paths couple noise and data independently, so their curves are the same."""
    generator = torch.Generator().manual_seed(0)
    dim = law.means.shape[1]
    for time in (0.0, 1e-3, 0.3, 0.5, 0.8, 0.999, 1.0):
        t = torch.full((50,), time, dtype=torch.float64)
        noise = torch.randn(50, dim, generator=generator, dtype=torch.float64)
        z = (1 - time) * noise + time * law.draw(50)
        found = TRIG.velocity(native(law), z, t, None)
        torch.testing.assert_close(found, law.velocity(z, t), rtol=1e-9, atol=1e-9)
        if 0.2 < time < 0.9:  # at the ends the exact field may be 0
            wrong = TRIG.velocity(native(law, sign=-1.0), z, t, None)
            assert (wrong - found).abs().max() > 0.1  # control


def test_straightness_is_that_of_straight_paths():
    rows = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)[:, None]
    net = native(exact.M1)
    first, second = straightness(lambda z, t, y: TRIG.velocity(net, z, t, y), rows, steps=100)
    assert first == pytest.approx(0.654886, abs=3e-3)
    assert second == pytest.approx(0.540367, abs=6e-3)
    unconverted = straightness(lambda z, t, y: net(z, t, y), rows, steps=100)
    assert abs(unconverted[0] - first) > 0.1  # control: the native clock and state


@pytest.mark.parametrize("method", [CFM(), CFM(sigma_min=0.1), TRIG])
def test_velocity_is_the_derivative_of_the_path(method):
    torch.manual_seed(0)
    noise, x = torch.randn(2, 40, 3, dtype=torch.float64)
    t, h = torch.rand(40, dtype=torch.float64), 1e-5
    later, earlier = method.interpolate(noise, x, t + h)[0], method.interpolate(noise, x, t - h)[0]
    slope = (later - earlier) / (2 * h)
    torch.testing.assert_close(method.interpolate(noise, x, t)[1], slope, rtol=1e-7, atol=1e-7)
    other = CFM() if method is TRIG else TRIG  # control
    assert (other.interpolate(noise, x, t)[1] - slope).abs().max() > 0.1


def test_the_path_leads_from_noise_to_data():
    noise, x = torch.randn(2, 5, 3, dtype=torch.float64)
    start, end = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    for method in (CFM(), TRIG):
        torch.testing.assert_close(method.interpolate(noise, x, start)[0], noise)
        torch.testing.assert_close(method.interpolate(noise, x, end)[0], x)


def test_the_linear_loss_has_kept_every_bit(monkeypatch):
    """Times are drawn before noise, and the state and the target are made as they always were."""
    x, net = torch.randn(64, 3), exact.Net(lambda z, t, y: z * like(t, z))
    loss = exact.loss_of(CFM(sigma_min=0.1), exact.vectors(x), net, monkeypatch, run=None)
    torch.manual_seed(7)
    found = loss(x, None)
    torch.manual_seed(7)
    t, noise = torch.rand(64), torch.randn_like(x)
    end = x + 0.1 * noise
    z = torch.lerp(noise, end, like(t, x))
    assert torch.equal(found, (net(z, t, None) - (end - noise)).square().mean())


def test_floor_of_the_loss(monkeypatch):
    """Of N(0, 1) the path is a rotation: the best field is 0, and leaves (pi/2)^2."""
    torch.manual_seed(0)
    x = torch.randn(100_000, 3)

    def measured(network):
        return exact.loss_of(TRIG, exact.vectors(x[:9]), network, monkeypatch, run=None)

    floor = (math.pi / 2) ** 2
    zero = measured(native(exact.gaussian(0.0, 1.0, 3)))(x, None).item()
    assert zero == pytest.approx(floor, rel=0.01)
    straight = exact.Net(lambda z, t, y: exact.gaussian(0.0, 1.0, 3).velocity(z, t))
    assert measured(straight)(x, None).item() > 1.1 * floor  # control: the other path's field


def test_many_steps_end_at_the_quantile_map():
    x0 = torch.linspace(-2.2, 2.2, 12, dtype=torch.float64)[:, None]
    expected = UNEVEN.quantile(torch.special.ndtr(x0[:, 0]))[:, None]
    for solver, nfe, allowed in (
        ("euler", 400, 0.02),
        ("midpoint", 200, 1e-3),
        ("heun", 200, 1e-3),
    ):
        found = CFM(path="trig", solver=solver).sample(native(UNEVEN), x0, None, nfe)
        torch.testing.assert_close(found, expected, rtol=0, atol=allowed)
    adaptive = CFM(path="trig", solver="dopri5").sample(native(UNEVEN), x0, None, None)
    torch.testing.assert_close(adaptive, expected, rtol=0, atol=1e-4)
    wrong = TRIG.sample(native(UNEVEN, sign=-1.0), x0, None, 400)
    assert (wrong - expected).abs().max() > 0.5  # control


def test_refuses_a_width():
    with pytest.raises(FlowbenchError, match="sigma_min"):
        CFM(path="trig", sigma_min=0.1)
