"""What pictures are drawn from: trajectories and fields whose course is known."""

import exact_fields as exact
import pytest
import torch

from flowbench import solvers
from flowbench.noise import unit_noise
from flowbench.trajectories import STEPS, follow, plane


def squeeze(z, t, labels=None):
    """The field of the straight lines from noise x0 to c x0, with c = 1/4."""
    t = t[:, None]
    return -0.75 / (1 - 0.75 * t) * z


def off_chord(times, states):
    """The largest distance of a state from the point of its chord at that time."""
    share = ((times - times[0]) / (times[-1] - times[0])).to(states)[:, None, None]
    return (states - torch.lerp(states[0], states[-1], share)).norm(dim=2).max().item()


def noise(n=64, dim=2):
    return unit_noise(0, range(n), (dim,)).double()


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.1, 0.9)])
def test_a_straight_field_has_straight_trajectories(interval):
    times, states = follow(squeeze, noise(), interval=interval)
    assert times[0] == interval[0] and times[-1] == interval[1]
    assert torch.equal(states[0], (1 - interval[0]) * noise())
    assert off_chord(times, states) < 1e-3


def test_the_check_would_notice_curves():
    assert off_chord(*follow(exact.MODAL.velocity, noise())) > 0.3


def test_the_mixture_draws_everything_to_its_centre_first():
    """The field at the start is -x0, and so is the way that a trajectory sets out on."""
    start = noise(200, 128)
    times, states = follow(exact.mog128_velocity, start)
    way = states[5] - states[0]
    assert torch.cosine_similarity(way, -start).min() > 0.99
    middle, end = (states[i][:, :2].norm(dim=1).mean() for i in (STEPS // 3, -1))
    assert middle < 0.8 * start[:, :2].norm(dim=1).mean()
    assert middle < 0.7 * end
    straight = torch.lerp(states[0], states[-1], times[STEPS // 3])
    assert middle < 0.8 * straight[:, :2].norm(dim=1).mean()


def test_the_ends_are_those_of_the_solver():
    start = noise()
    ends = solvers.heun(exact.MODAL.velocity, start, None, 2 * STEPS)
    torch.testing.assert_close(follow(exact.MODAL.velocity, start)[1][-1], ends)


def jump(z, t, labels=None):
    """1 before t = 0.3, and -1 from there on."""
    return torch.where(t < 0.3, 1.0, -1.0)[:, None].expand_as(z).to(z)


def test_steps_end_where_the_field_jumps():
    start, expected = noise(), noise() - 0.4
    seen = follow(jump, start, knots=(0.3,), steps=7)[1][-1]
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)
    blind = follow(jump, start, steps=7)[1][-1]
    assert (blind - expected).abs().max() > 0.01


def test_labels_reach_the_field():
    def by_label(z, t, labels):
        return labels[:, None].to(z).expand_as(z)

    labels = torch.arange(4)
    states = follow(by_label, noise(4), labels, steps=3)[1]
    torch.testing.assert_close(states[-1] - states[0], labels[:, None].double().expand(4, 2))
    points = torch.zeros(1, 2, dtype=torch.float64)
    assert plane(by_label, points, 0.0, (2,), labels, draws=4).tolist() == [[1.5, 1.5]]


def test_the_field_at_the_start_points_to_the_centre():
    """It is E[x1] - x0 there, whatever the coordinates that are not shown."""
    points = torch.cartesian_prod(*[torch.linspace(-2, 2, 5, dtype=torch.float64)] * 2)
    torch.testing.assert_close(plane(exact.mog128_velocity, points, 0.0, (128,)), -points)


def test_the_field_is_averaged_over_the_coordinates_that_are_not_shown():
    def third(z, t, labels=None):
        return z[:, 2:3].expand_as(z) + t[:, None]

    points = torch.zeros(3, 2, dtype=torch.float64)
    found = plane(third, points, 0.5, (3,), draws=8)
    mean = 0.5 * unit_noise(0, range(8), (3,))[:, 2].double().mean() + 0.5
    torch.testing.assert_close(found, mean.expand(3, 2))
