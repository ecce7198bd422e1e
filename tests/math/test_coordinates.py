"""Canonical time, noise levels and their laws."""

import itertools
import math

import exact_fields as exact
import pytest
import torch

from flowbench import coordinates, noise_levels, solvers

KARRAS_18 = [80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.40094, 5.31519, 3.25682]
KARRAS_18 += [1.92334, 1.08817, 0.58535, 0.29644, 0.13952, 0.05995, 0.02293, 0.00753, 0.002]
KARRAS_40 = [80, 69.45095, 60.11739, 51.88032, 44.63020, 38.26646, 32.69689, 27.83711, 23.61009]
KARRAS_40 += [19.94563, 16.77989]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_time_and_sigma_are_inverse():
    sigma = torch.tensor([0.002, 0.5, 1, 80], dtype=torch.float64)
    expected = torch.tensor([0.998003992, 2 / 3, 0.5, 1 / 81], dtype=torch.float64)
    torch.testing.assert_close(coordinates.time(sigma), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(coordinates.sigma(coordinates.time(sigma)), sigma)


def test_velocity_and_denoiser_of_the_exact_field_are_each_other():
    t = torch.linspace(0.02, 0.99, 50, dtype=torch.float64)
    z = normal(50, 1)
    ours = coordinates.velocity_of(exact.M1.denoiser)(z, t, None)
    torch.testing.assert_close(ours, exact.M1.velocity(z, t), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(ours, -exact.M1.velocity(z, t), atol=0.1)  # noise -> data

    sigma = coordinates.sigma(t)
    x = z * (1 + sigma)[:, None]
    ours = coordinates.denoiser_of(exact.M1.velocity)(x, sigma, None)
    torch.testing.assert_close(ours, exact.M1.denoiser(x, sigma), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_round_trip_of_an_arbitrary_network(dtype, tolerance):
    def field(x, t, labels):
        return (3 * x).sin() + t[:, None, None].cos()

    sigma = torch.tensor([0.002, 0.05, 1.3, 80.0], dtype=dtype)
    x = normal(4, 2, 3).to(dtype) * (1 + sigma)[:, None, None]
    back = coordinates.denoiser_of(coordinates.velocity_of(field))(x, sigma, None)
    torch.testing.assert_close(back, field(x, sigma, None), rtol=tolerance, atol=tolerance)


def test_coordinates_pass_labels_on():
    labels, seen = torch.tensor([1, 0]), []

    def field(x, t, y):
        seen.append(y)
        return x

    x, t = normal(2, 3), torch.full((2,), 0.5)
    coordinates.velocity_of(field)(x, t, labels)
    coordinates.denoiser_of(field)(x, t, labels)
    assert all(y is labels for y in seen) and len(seen) == 2


def test_karras_grids_of_18_and_40_levels():
    """EDM, eq. 5."""
    grid = noise_levels.karras(18)
    assert grid.dtype == torch.float64 and len(grid) == 18
    assert grid.tolist() == pytest.approx(KARRAS_18, abs=6e-6)
    forty = noise_levels.karras(40).tolist()
    assert forty[:11] == pytest.approx(KARRAS_40, abs=6e-6)
    assert forty[22] == pytest.approx(1.38237, abs=6e-6)
    assert forty[39] == pytest.approx(0.002, abs=1e-12)
    assert noise_levels.karras(1).tolist() == pytest.approx([80])
    assert sorted(KARRAS_18) != pytest.approx(KARRAS_18)  # an ascending grid is not this one


def test_warp_values():
    u = torch.tensor([0, 0.1, 0.25, 0.5, 0.7, 0.75, 0.9, 1], dtype=torch.float64)
    expected = [80, 45.31, 17.53, 2.515, 0.3183, 0.1698, 0.01672, 0.002]
    assert noise_levels.warp(u).tolist() == pytest.approx(expected, rel=4e-4)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_uniform_levels_are_equidistant_in_canonical_time(steps):
    times = coordinates.time(noise_levels.uniform(steps, 80.0))
    ends = torch.cat([times, torch.ones(1, dtype=torch.float64)])
    assert times[0].item() == pytest.approx(1 / 81, rel=1e-12)
    assert ends.diff().tolist() == pytest.approx([(80 / 81) / steps] * steps, rel=1e-12)
    karras = coordinates.time(noise_levels.karras(5))
    assert karras.diff().std() > 0.05  # control: EDM's schedule is not


def walk(rule: str, levels: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Steps in canonical time over the times of `levels` and on to 1, with M1's field."""
    ends = [*coordinates.time(levels).tolist(), 1.0]
    for i, (t, end) in enumerate(itertools.pairwise(ends)):
        first = exact.M1.velocity(z, torch.full((len(z),), t).double())
        moved = z + (end - t) * first
        if rule == "heun" and i < len(levels) - 1:
            second = exact.M1.velocity(moved, torch.full((len(z),), end).double())
            moved = z + (end - t) / 2 * (first + second)
        z = moved
    return z


def test_euler_does_not_depend_on_coordinates_and_heun_does():
    levels = noise_levels.karras(5)
    x = 80 * normal(200, 1)
    z = x / 81

    sigma = solvers.sigma_euler(exact.M1.denoiser, x, None, levels)
    torch.testing.assert_close(sigma, walk("euler", levels, z), rtol=0, atol=1e-6)
    swapped = solvers.sigma_euler(exact.M1.denoiser, x, None, noise_levels.uniform(5))
    assert (swapped - sigma).abs().max() > 0.01  # control: the grid does matter

    sigma = solvers.sigma_heun(exact.M1.denoiser, x, None, levels)
    assert (sigma - walk("heun", levels, z)).abs().max() > 0.1


def test_laws_of_training_levels():
    """Quantiles: log-normal (-1.2, 1.2), uniform in t, uniform along EDM's schedule."""
    torch.manual_seed(0)
    p = torch.tensor([0.01, 0.25, 0.5, 0.75, 0.99])

    levels = noise_levels.draw_log_normal(200_000, -1.2, 1.2, "cpu")
    expected = (-1.2 + 1.2 * torch.special.ndtri(p)).exp()
    torch.testing.assert_close(levels.quantile(p), expected, rtol=0.03, atol=0)
    assert levels.median().item() == pytest.approx(0.301, rel=0.02)

    times = coordinates.time(noise_levels.draw_uniform(200_000, 0.002, 80.0, "cpu"))
    expected = 1 / 81 + (1 / 1.002 - 1 / 81) * p
    torch.testing.assert_close(times.quantile(p), expected, rtol=0, atol=0.005)

    levels = noise_levels.draw_karras(200_000, 0.002, 80.0, 7.0, "cpu")
    expected = noise_levels.warp(1 - p)
    torch.testing.assert_close(levels.quantile(p), expected, rtol=0.06, atol=0)
    assert 0.0019 < levels.min() < 0.003 and 79 < levels.max() <= 80.001

    grid = noise_levels.karras(18)
    drawn = noise_levels.draw_from(grid, 36_000, "cpu")
    values, counts = drawn.unique(return_counts=True)
    torch.testing.assert_close(values, grid.flip(0).float())
    assert drawn.dtype == torch.float32 and (counts - 2000).abs().max() < 6 * math.sqrt(2000)
