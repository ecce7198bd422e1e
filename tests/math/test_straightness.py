"""Straightness against exact fields, in canonical coordinates and without normalisation."""

import math

import exact_fields as exact
import pytest
import torch

from flowbench.coordinates import like, velocity_of
from flowbench.metrics import straightness as module
from flowbench.metrics.straightness import steps_between, straightness
from flowbench.noise import unit_noise

EDM = (1 / 81, 1 / 1.002)


def spread(n: int) -> torch.Tensor:
    """(n, 1) quantiles of N(0, 1) at equal distances: one dimension without sampling error."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]


@pytest.mark.slow
def test_exact_field_of_the_mixture_in_128_dimensions():
    first, second = straightness(exact.mog128_velocity, unit_noise(0, range(8000), (128,)))
    assert first == pytest.approx(6.634, abs=0.03)
    assert second == pytest.approx(54.89, abs=0.5)


@pytest.mark.slow
def test_exact_edm_field_of_the_mixture_over_its_interval():
    noise = unit_noise(0, range(8000), (128,))
    first, second = straightness(velocity_of(exact.mog128_denoiser), noise, interval=EDM)
    assert first == pytest.approx(6.567, abs=0.03)
    assert second == pytest.approx(53.85, abs=0.5)


def test_noise_to_noise_in_128_dimensions():
    """2 (1 - sqrt(1/2)) E|x0|, and (2 - pi/2) d."""

    def field(z, t, labels):
        s = like(t, z)
        return (2 * s - 1) / (s.square() + (1 - s).square()) * z

    first, second = straightness(field, unit_noise(0, range(4000), (128,)))
    assert first == pytest.approx(6.6145, abs=0.02)
    assert second == pytest.approx(54.938, abs=0.4)


@pytest.mark.parametrize(("std", "each"), [(0.25, 0.25548), (0.5, 0.4), (1, 0.58579), (3, 0.9303)])
def test_gaussians(std, each):
    """Per unit of E|x0|; the squared form is (2 - pi/2) s."""
    found = straightness(exact.gaussian(7.0, std).velocity, spread(400), steps=200)
    assert found[0] == pytest.approx(each * math.sqrt(2 / math.pi), rel=5e-3)
    assert found[1] == pytest.approx((2 - math.pi / 2) * std, rel=5e-3)


def test_mixture_in_one_dimension():
    first, second = straightness(exact.M1.velocity, spread(2000), steps=200)
    assert first == pytest.approx(0.654886, abs=1e-3)
    assert second == pytest.approx(0.540367, abs=1e-3)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_straight_lines_score_zero(scale):
    """x1 = mean + scale x0 moves along z = (1 - t) x0 + t x1: speed (scale - 1) x0 + mean."""

    def straight(z, t, labels):
        s = like(t, z)
        return 2.0 + (scale - 1) * (z - 2.0 * s) / (1 + s * (scale - 1))

    noise = unit_noise(0, range(200), (5,)).double()
    assert max(straightness(straight, noise)) < 2e-3
    bent = straightness(lambda z, t, y: -straight(z, t, y), noise)
    assert bent[0] > 0.3  # control: the wrong sign


def test_perfect_lmm_scores_zero():
    noise = unit_noise(0, range(200), (5,)).double()
    found = straightness(velocity_of(exact.lines(0.5)), noise, interval=EDM)
    assert max(found) < 1e-3
    teacher = straightness(velocity_of(exact.gaussian(0.0, 0.5, 5).denoiser), noise, interval=EDM)
    assert teacher[0] > 0.5


def test_batches_do_not_matter(monkeypatch):
    noise = unit_noise(0, range(50), (2,)).double()
    labels = torch.arange(50) % 3
    seen = []

    def field(z, t, y):
        seen.append(len(z))
        return exact.MODAL.velocity(z, t) + y[:, None]

    whole = straightness(field, noise, labels, steps=20)
    assert set(seen) == {50}
    monkeypatch.setattr(module, "ENTRIES", 20 * 2 * 7)
    parts = straightness(field, noise, labels, steps=20)
    assert 7 in seen and parts == pytest.approx(whole, rel=1e-12)
    assert straightness(field, noise, labels.flip(0), steps=20) != pytest.approx(whole, rel=1e-6)


def test_labels_and_times_reach_the_field():
    labels, seen = torch.tensor([3, 1]), []

    def field(z, t, y):
        seen.append((t, y))
        return z

    straightness(field, torch.zeros(2, 1, 4, 4), labels, (0.25, 0.75), steps=4)
    times = torch.stack([t for t, _ in seen])
    assert times.shape == (8, 2) and all(torch.equal(y, labels) for _, y in seen)
    assert times.min() == 0.25 and times.max() == 0.75


def test_depends_on_the_clock():
    """The same curves at another speed, t = u^2, have another score: time must be canonical."""

    def hurried(z, u, labels):
        return 2 * like(u, z) * exact.M1.velocity(z, u.square())

    right = straightness(exact.M1.velocity, spread(500))
    wrong = straightness(hurried, spread(500))
    assert abs(wrong[0] - right[0]) > 0.1


def test_does_not_depend_on_rotation_and_translation_of_the_data():
    noise = unit_noise(0, range(300), (2,)).double()
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    shift = torch.tensor([5.0, -3.0], dtype=torch.float64)

    def moved(z, t, labels):
        inner = (z - like(t, z) * shift) @ turn
        return exact.MODAL.velocity(inner, t) @ turn.T + shift

    plain = straightness(exact.MODAL.velocity, noise @ turn)
    assert straightness(moved, noise) == pytest.approx(plain, rel=1e-9)


def test_heun_steps_converge():
    """50 steps, the number of a benchmark, are within 1 % of the limit on the mixture."""
    assert module.STEPS == 50
    first, second = straightness(exact.M1.velocity, spread(1000))
    assert first == pytest.approx(0.654886, rel=0.01)
    assert second == pytest.approx(0.540367, rel=0.02)


def test_knots_make_a_field_that_jumps_exact():
    """v = 1 up to t = 0.3 and -2 after it: the chord is -1.1, the deviation known."""

    def field(z, t, labels):
        return torch.where(t[:, None] < 0.3, torch.ones_like(z), torch.full_like(z, -2.0))

    noise, chord = torch.zeros(3, 1), 0.3 - 2 * 0.7
    first = 0.3 * abs(1 - chord) + 0.7 * abs(-2 - chord)
    second = 0.3 * (1 - chord) ** 2 + 0.7 * (-2 - chord) ** 2
    exact = straightness(field, noise, knots=(0.3,), steps=7)
    assert exact == pytest.approx((first, second), abs=1e-5)
    blurred = straightness(field, noise, steps=7)  # a step across the jump averages it away
    assert abs(blurred[0] - first) > 0.01


def test_no_step_crosses_a_knot_and_all_of_them_cover_the_interval():
    grid = steps_between((0.1, 0.9), (0.5, 0.95, 0.3), 4)
    assert len(grid) == 3 * 4 and grid[0][0] == 0.1 and grid[-1][1] == 0.9
    for begin, end in grid:
        assert begin < end and not any(begin < knot < end for knot in (0.3, 0.5))
    assert sum(end - begin for begin, end in grid) == pytest.approx(0.8, abs=1e-5)
