"""The Fréchet distance in many dimensions: by eigenvalues, or by singular values where it must."""

import math

import pytest
import torch

from flowbench.metrics import frechet
from flowbench.metrics.frechet import frechet_distance, frechet_from_moments, moments

DIMS = 256  # from here on


def turn(seed: int) -> torch.Tensor:
    """A rotation of all dimensions."""
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(DIMS, DIMS, dtype=torch.float64, generator=random))[0]


def covariance(variances: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    found = (axes * variances) @ axes.T
    return (found + found.T) / 2


def rows(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """float32 rows of decaying variances, like those of a pool."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, DIMS, generator=random) * torch.logspace(0, -2, DIMS)
    return (scale * x @ turn(9).float() + 0.1).relu()


def by_singular_values(monkeypatch, *given: torch.Tensor) -> float:
    """The same from moments, by the other route."""
    with monkeypatch.context() as patched:
        patched.setattr(frechet, "LARGE", math.inf)
        return frechet_from_moments(*given)


@pytest.fixture
def no_singular_values(monkeypatch):
    """Whoever asks for them fails."""
    monkeypatch.setattr(torch.linalg, "svdvals", None)


@pytest.fixture
def asked(monkeypatch) -> list[bool]:
    """Whether singular values had to be asked for, call by call."""
    calls, real = [], torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda x: calls.append(True) or real(x))
    return calls


def test_covariances_with_the_same_axes_have_a_closed_form(no_singular_values):
    axes, zero = turn(0), torch.zeros(DIMS, dtype=torch.float64)
    a = torch.logspace(0, -5, DIMS, dtype=torch.float64)
    b = 2 * a.flip(0)
    mean = zero + 0.5
    expected = 0.25 * DIMS + (a.sqrt() - b.sqrt()).square().sum().item()
    found = frechet_from_moments(zero, covariance(a, axes), mean, covariance(b, axes))
    assert found == pytest.approx(expected, rel=1e-11)
    with pytest.raises(TypeError):  # control: the guard of this test is one
        frechet_from_moments(zero[:9], torch.eye(9), zero[:9], torch.eye(9))


def test_both_routes_agree(monkeypatch):
    fake, real = rows(700, 1, 1.2), rows(900, 2)
    expected = by_singular_values(monkeypatch, *moments(fake), *moments(real))
    monkeypatch.setattr(torch.linalg, "svdvals", None)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(fake, moments(real)) == pytest.approx(expected, rel=1e-10)
    spread = real.double().var(0).sum().item()
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-12 * spread)
    assert frechet_distance(real, real + 3) == pytest.approx(9 * DIMS, rel=1e-6)


def test_without_full_rank_singular_values_decide(monkeypatch, asked):
    fake = rows(700, 1)
    real = torch.cat([rows(700, 2)[:, : DIMS // 2]] * 2, 1)  # each column twice
    given = (*moments(fake), *moments(real))
    expected = by_singular_values(monkeypatch, *given)
    asked.clear()
    assert frechet_distance(fake, real) == expected and asked
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_small_variances_that_rounding_may_move_are_left_to_singular_values(monkeypatch, asked):
    """Covariances that still have a Cholesky factor, with variances down to 1e-11 of the largest:
    their products with each other are below the rounding of the largest product."""
    zero = torch.zeros(DIMS, dtype=torch.float64)
    for least, trusted in ((-4, True), (-11, False)):
        variances = torch.logspace(0, least, DIMS, dtype=torch.float64)
        given = [covariance(variances, turn(i)) for i in (1, 1)]
        assert torch.linalg.cholesky_ex(given[1])[1] == 0
        expected = by_singular_values(monkeypatch, zero, given[0], zero, 2 * given[1])
        asked.clear()
        found = frechet_from_moments(zero, given[0], zero, 2 * given[1])
        assert asked != [] if not trusted else asked == []
        assert found == pytest.approx(expected, rel=1e-9)
        exact = ((2**0.5 - 1) ** 2 * variances.sum()).item()
        assert found == pytest.approx(exact, rel=1e-6)


def test_what_is_not_finite_has_no_distance():
    fake, real = rows(300, 1), rows(300, 2)
    real[5, 7] = math.inf
    assert math.isnan(frechet_distance(fake, real)) and math.isnan(frechet_distance(real, fake))
