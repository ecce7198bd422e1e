"""KID, precision, recall, density, coverage and neighbours against their definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from flowbench.metrics import kernel, manifold, neighbours
from flowbench.metrics.kernel import kernel_distance, subset_kernel_distance
from flowbench.metrics.neighbours import authentic, memorised, nearest
from flowbench.records import FlowbenchError


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(n: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=random, dtype=torch.uint8)


def test_kid_by_hand():
    """Two and three rows in two dimensions, in fractions."""
    x, y = [(1, 2), (3, -1)], [(0, 1), (2, 2), (-1, 4)]

    def k(a, b):
        return (Fraction(a[0] * b[0] + a[1] * b[1], 2) + 1) ** 3

    def within(rows):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(k(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    expected = within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / 6
    assert kernel_distance(torch.tensor(x), torch.tensor(y)) == pytest.approx(float(expected))


def test_kid_is_unbiased():
    """The expectation is that of k over independent draws: 0 for one law, also at few rows."""
    same = [kernel_distance(draws(5, 3, seed=i), draws(7, 3, seed=1000 + i)) for i in range(400)]
    error = np.std(same) / 20
    assert abs(np.mean(same)) < 4 * error
    moved = [kernel_distance(draws(5, 3, seed=i), 1 + draws(7, 3, seed=999 + i)) for i in range(99)]
    assert np.mean(moved) > 4 * np.std(moved) / 10  # control


def test_kid_does_not_depend_on_blocks(monkeypatch):
    x, y = draws(50, 6), draws(61, 6, seed=1) + 0.2
    whole = kernel_distance(x, y)
    monkeypatch.setattr(kernel, "BLOCK", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)
    assert kernel_distance(y, x) == pytest.approx(whole, rel=1e-12)
    assert subset_kernel_distance(x, y, 1, 50) != pytest.approx((whole, 0), rel=1e-3)


def test_kid_of_what_has_none():
    x = draws(20, 3)
    with pytest.raises(FlowbenchError, match="1000 rows"):
        subset_kernel_distance(x, x)
    assert math.isnan(kernel_distance(x[:1], x))
    x[3, 1] = math.inf
    assert math.isnan(kernel_distance(x, draws(20, 3)))
    same = draws(1, 3).expand(30, 3)  # collapse
    assert kernel_distance(same, draws(40, 3)) > 1


def prdc(real: torch.Tensor, fake: torch.Tensor, k: int, strict: bool) -> tuple[float, ...]:
    """Kynkäänniemi et al. 2019 (eq. 1, 2) and Naeem et al. 2020 (eq. 3, 5), by whole matrices."""

    def radii(x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, x).sort(1).values[:, k]

    d = torch.cdist(real, fake)
    in_real = d < radii(real)[:, None] if strict else d <= radii(real)[:, None]
    in_fake = d < radii(fake)[None] if strict else d <= radii(fake)[None]
    share = in_real.any(0), in_fake.any(1), in_real, in_real.any(1)
    precision, recall, density, coverage = (s.double().mean().item() for s in share)
    return precision, recall, density * len(real) / k, coverage


def test_manifold_equals_its_definition(monkeypatch):
    monkeypatch.setattr(manifold, "BLOCK", 16)
    for seed, scale in ((1, 1.0), (2, 1.4), (3, 0.5)):
        real, fake = draws(90, 4), scale * draws(70, 4, seed=seed) + 0.3
        found = manifold.manifold(fake, real)
        near, dense = prdc(real, fake, 3, False), prdc(real, fake, 5, True)
        assert (found.precision, found.recall) == pytest.approx(near[:2], abs=1e-12)
        assert (found.density, found.coverage) == pytest.approx(dense[2:], abs=1e-12)
        swapped = manifold.manifold(real, fake)
        assert (swapped.precision, swapped.recall) == (found.recall, found.precision)
        assert found.precision != pytest.approx(prdc(real, fake, 1, False)[0])  # control: k


def test_manifold_on_a_line():
    """Ten even numbers: with k = 1 all balls have the radius 2."""
    real = torch.arange(0.0, 20, 2)[:, None]
    fake = torch.tensor([[-2.0], [-2.5], [1.0], [40.0], [41.0], [42.5]])
    found = manifold.manifold(fake, real, near=1, dense=1)
    assert found.precision == 2 / 6  # -2 lies on the edge of the ball around 0, and counts
    assert found.density == 2 / 6  # 1 lies in two balls; edges do not count
    assert found.coverage == 2 / 10  # those of 0 and 2
    # Radii of the fakes are 0.5, 0.5, 3, 1, 1, 1.5: only the ball around 1 holds 0, 2 and 4.
    assert found.recall == 3 / 10


def test_manifold_of_what_is_broken():
    real, fake = draws(80, 5), draws(60, 5, seed=1)
    collapsed = manifold.manifold(real[:1].expand(60, 5), real)
    assert collapsed.precision == 1 and collapsed.recall <= 1 / 80 and collapsed.coverage < 0.2
    copies = manifold.manifold(real, real)
    assert copies.precision == copies.recall == copies.coverage == 1
    far = manifold.manifold(fake + 100, real)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    fake[7, 2] = math.nan
    assert math.isnan(manifold.manifold(fake, real).precision)
    with pytest.raises(FlowbenchError, match="more than 5 rows"):
        manifold.manifold(fake[:5], real)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_nearest_rows_are_those_of_all_distances(kind, monkeypatch):
    monkeypatch.setattr(neighbours, "TRAINING_BLOCK", 40)
    training, samples = images(150), images(33, seed=1)
    samples[4], training[77] = training[10], training[10]
    if kind == "float32":
        training, samples = 1000 + training.float() / 7, 1000 + samples.float() / 7
    apart = samples.double().flatten(1)[:, None] - training.double().flatten(1)
    apart = apart.norm(dim=2)
    found = nearest(samples, training, block=16)
    expected = apart.sort(1).values[:, :2]
    torch.testing.assert_close(found.distances, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(apart.gather(1, found.rows), expected, rtol=1e-12, atol=0)
    assert found.distances[4].tolist() == [0, 0] and sorted(found.rows[4].tolist()) == [10, 77]
    assert (found.rows[:, 0] != found.rows[:, 1]).all()


def test_distances_by_products_would_hide_copies():
    """Control: what `nearest` avoids, and that its candidates come from there."""
    training = 1000 + draws(50, 64).float()
    assert torch.cdist(training, training).diagonal().max() > 0
    assert nearest(training, training).distances[:, 0].max() == 0


def test_memorised_images():
    training, fresh = images(300), images(40, seed=1)
    assert memorised(training[:50], training) == 1
    assert memorised(fresh, training) == 0
    assert memorised(torch.cat([fresh, training[:10]]), training) == pytest.approx(0.2)
    assert memorised(fresh, training[:2]) == 0  # fewer rows than the shortlist


def test_authentic_share():
    """1/2 for draws of the same law: either of two exchangeable distances is the larger."""
    training = draws(2000, 3)
    fresh = authentic(draws(600, 3, seed=1), training)
    assert fresh == pytest.approx(0.5, abs=0.1)
    assert authentic(training[:100], training) == 0
    assert authentic(training[:100] + 1e-6, training) == 0
    assert authentic(3 * draws(600, 3, seed=1), training) > fresh + 0.2
