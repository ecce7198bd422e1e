"""FID, IS, KID, precision and recall against torch-fidelity and clean-fid, on one set of numbers.

Real parity needs no real weights: whatever features go in, the same numbers must come out.
"""

import inspect
import math

import inception_weights as seeded
import numpy as np
import pytest
import scipy.linalg
import torch

from flowbench.metrics import extractors
from flowbench.metrics.frechet import frechet_distance, frechet_from_moments, moments
from flowbench.metrics.kernel import kernel_distance, subset_kernel_distance
from flowbench.metrics.manifold import manifold
from flowbench.metrics.neighbours import memorised
from flowbench.metrics.scores import inception_score, split_inception_score

needs_sqrtm = pytest.mark.skipif(
    "disp" not in inspect.signature(scipy.linalg.sqrtm).parameters,
    reason="clean-fid calls scipy.linalg.sqrtm(disp=...), which this SciPy no longer has",
)
# SciPy announces the end of `disp`, and clean-fid calls it for each distance.
quiet_sqrtm = pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")


def features(n: int, d: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """float32 features like those of a pool: positive, correlated, with decaying variances."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(9)) / d**0.5
    x = torch.randn(n, d, generator=random) * torch.linspace(2, 0.1, d) @ mixing
    return (scale * x + 0.2).relu() + 0.1 * torch.rand(n, d, generator=random)


@pytest.fixture(scope="module")
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    """More rows than dimensions: fakes (500, 64), real (600, 64)."""
    return features(500, 64, 1, 1.2), features(600, 64, 2)


def torch_fidelity_fid(fake: torch.Tensor, real: torch.Tensor) -> float:
    from torch_fidelity import metric_fid

    parts = [metric_fid.fid_features_to_statistics(x) for x in (fake, real)]
    found = metric_fid.fid_statistics_to_metric(*parts, verbose=False)
    return found["frechet_inception_distance"]


def test_fid_is_torch_fidelitys(sets):
    fake, real = sets
    found = frechet_distance(fake, real)
    assert found == pytest.approx(torch_fidelity_fid(fake, real), rel=1e-6)
    assert frechet_distance(fake, moments(real)) == pytest.approx(found, rel=1e-12)
    assert frechet_from_moments(*moments(fake), *moments(real)) == pytest.approx(found, rel=1e-12)
    # Control: covariances that divide by n are 1e-3 away.
    (m1, c1), (m2, c2) = moments(fake), moments(real)
    assert frechet_from_moments(m1, c1 * 499 / 500, m2, c2) != pytest.approx(found, rel=1e-5)


@needs_sqrtm
@quiet_sqrtm
def test_fid_is_clean_fids(sets):
    from cleanfid import fid

    fake, real = sets
    found = frechet_distance(fake, real)
    arrays = [x.numpy() for x in sets]
    assert found == pytest.approx(fid.fid_from_feats(*arrays), rel=1e-6)
    known = [(x.double().mean(0).numpy(), np.cov(x.double().numpy().T)) for x in sets]
    assert found == pytest.approx(fid.frechet_distance(*known[0], *known[1]), rel=1e-9)


def test_inception_score_is_torch_fidelitys():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * torch.randn(503, 1008, generator=torch.Generator().manual_seed(0))
    for splits, shuffle in ((10, True), (7, False), (1, False)):
        expected = isc_features_to_metric(logits, splits=splits, shuffle=shuffle)
        found = split_inception_score(logits, splits, 2020 if shuffle else None)
        names = ("inception_score_mean", "inception_score_std")
        assert found == pytest.approx([expected[name] for name in names], rel=1e-12, abs=1e-12)
    assert found == (pytest.approx(inception_score(logits), rel=1e-12), 0)
    assert split_inception_score(logits)[0] < 0.9 * found[0]  # control: splits matter
    assert all(math.isnan(value) for value in split_inception_score(logits[:9]))


def test_kid_is_torch_fidelitys(sets):
    from torch_fidelity.metric_kid import kid_features_to_metric

    fake, real = sets
    mean, std = "kernel_inception_distance_mean", "kernel_inception_distance_std"
    found = subset_kernel_distance(fake, real, subsets=20, size=100)
    for kind, allowed in ((torch.float32, 2e-6), (torch.float64, 1e-10)):  # of their kernel
        chosen = {"kid_subsets": 20, "kid_subset_size": 100, "verbose": False}
        expected = kid_features_to_metric(fake.to(kind), real.to(kind), **chosen)
        assert found[0] == pytest.approx(expected[mean], rel=allowed)
        assert found[1] == pytest.approx(expected[std], rel=10 * allowed)
    other = subset_kernel_distance(fake, real, subsets=20, size=100, seed=1)
    assert other != pytest.approx(found, rel=1e-4)  # control: the subsets decide
    one = {"kid_subsets": 1, "kid_subset_size": 500, "verbose": False}
    expected = kid_features_to_metric(fake.double(), real[:500].double(), **one)
    assert kernel_distance(fake, real[:500]) == pytest.approx(expected[mean], rel=1e-10)


def test_kid_is_clean_fids(sets):
    from cleanfid import fid

    fake, real = sets[0].double(), sets[1][:500].double()  # a subset of all rows: not random
    expected = fid.kernel_distance(fake.numpy(), real.numpy(), num_subsets=1)
    assert kernel_distance(fake, real) == pytest.approx(expected, rel=1e-9)


def test_precision_and_recall_are_torch_fidelitys(sets):
    from torch_fidelity.metric_prc import prc_features_to_metric

    fake, real = sets
    expected = prc_features_to_metric(fake, real, verbose=False)
    found = manifold(fake, real)
    shares = (expected["precision"], expected["recall"])
    assert (found.precision, found.recall) == pytest.approx(shares, abs=1e-6)  # theirs in float32
    assert 0.05 < found.precision < 0.99 and abs(found.precision - found.recall) > 0.02


def exact(fake: torch.Tensor, real: torch.Tensor) -> float:
    """The nuclear norm of the centred sets' product, by NumPy's singular values."""
    a, b = fake.double().numpy(), real.double().numpy()
    means = a.mean(0), b.mean(0)
    a, b = ((x - mean) / (len(x) - 1) ** 0.5 for x, mean in zip((a, b), means, strict=True))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(((means[0] - means[1]) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * root)


@pytest.mark.parametrize("n, m", [(60, 70), (60, 900), (900, 60)])
def test_fid_of_few_rows_is_exact(n, m):
    fake, real = features(n, 256, 1, 1.2), features(m, 256, 2)
    expected = exact(fake, real)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-12)
    # By moments, what has more rows than dimensions stays exact, and the other nearly so.
    assert frechet_distance(fake, moments(real)) == pytest.approx(expected, rel=1e-6)
    assert frechet_from_moments(*moments(fake), *moments(real)) == pytest.approx(expected, rel=1e-5)


@needs_sqrtm
@quiet_sqrtm
def test_the_libraries_are_near_the_exact_value_for_few_rows():
    from cleanfid import fid

    fake, real = features(150, 400, 1, 1.2), features(180, 400, 2)
    expected = exact(fake, real)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-12)
    assert torch_fidelity_fid(fake, real) == pytest.approx(expected, rel=2e-5)
    assert fid.fid_from_feats(fake.numpy(), real.numpy()) == pytest.approx(expected, rel=2e-5)


def test_fid_of_twelve_rows_in_thirty_dimensions_in_closed_form():
    """Rows +-a_i e_i, turned: covariances a_i^2 2 / 11 on six axes, so roots are known."""
    turn = torch.linalg.qr(features(30, 30, 0).double())[0]
    a, b = torch.arange(1.0, 7).double(), torch.tensor([3.0, 1, 4, 1, 5, 9]).double()

    def rows(lengths: torch.Tensor, first: int) -> torch.Tensor:
        half = torch.eye(30, dtype=torch.float64)[first : first + 6] * lengths[:, None]
        return torch.cat([half, -half]) @ turn

    shift = turn[20] * 7  # along an axis that neither set spans
    together = (a - b).square().sum() * 2 / 11 + 49
    found = frechet_distance(rows(a, 0), rows(b, 0) + shift)
    assert found == pytest.approx(together.item(), rel=1e-13)
    separate = (a.square() + b.square()).sum() * 2 / 11  # no axis in common: the root is 0
    assert frechet_distance(rows(a, 0), rows(b, 6)) == pytest.approx(separate.item(), rel=1e-13)


def test_fid_ignores_order_rotation_and_sides(sets):
    fake, real = sets[0].double(), sets[1].double()
    found = frechet_distance(fake, real)
    turn = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))[0]
    assert frechet_distance(fake @ turn, real @ turn) == pytest.approx(found, rel=1e-11)
    assert frechet_distance(fake.flip(0), real) == pytest.approx(found, rel=1e-12)
    assert frechet_distance(real, fake) == pytest.approx(found, rel=1e-12)
    assert frechet_distance(10 + 3 * fake, 10 + 3 * real) == pytest.approx(9 * found, rel=1e-10)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)


def test_fid_of_broken_features(sets):
    fake, real = sets
    collapsed = fake[:1].expand(500, 64)
    spread = real.double().var(0).sum() + (real.double().mean(0) - fake[0]).square().sum()
    assert frechet_distance(collapsed, real) == pytest.approx(spread.item(), rel=1e-9)
    assert frechet_distance(collapsed[:9], real) == pytest.approx(spread.item(), rel=1e-9)
    doubled = [torch.cat([x, x, 0 * x], 1) for x in sets]  # covariances without full rank
    assert frechet_distance(*doubled) == pytest.approx(2 * frechet_distance(fake, real), rel=1e-10)
    for bad in (math.nan, math.inf):
        broken = fake.clone()
        broken[3, 5] = bad
        assert math.isnan(frechet_distance(broken, real))
        assert math.isnan(frechet_distance(real, moments(broken)))
        assert math.isnan(frechet_distance(broken[:9], real))
    assert math.isnan(frechet_distance(fake[:1], real))


def test_nothing_of_ours_needs_sqrtm(sets, monkeypatch):
    """SciPy 1.18 broke clean-fid's; ours must not stand on it."""

    def broken(*args, **kwargs):
        raise TypeError("sqrtm() got an unexpected keyword argument 'disp'")

    monkeypatch.setattr(scipy.linalg, "sqrtm", broken)
    fake, real = sets
    assert frechet_distance(fake, real) > 0 < frechet_from_moments(*moments(fake), *moments(real))
    doubled = [torch.cat([x, x], 1) for x in sets]
    assert frechet_distance(*doubled) > 0 < frechet_distance(fake[:9], real[:9])
    assert kernel_distance(fake, real) > 0 < manifold(fake, real).coverage
    assert memorised(fake, real) < 1 < inception_score(fake)


class Images(torch.utils.data.Dataset):
    """What torch-fidelity takes for uint8 images in memory."""

    def __init__(self, images: torch.Tensor):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def pictures(n: int, seed: int, contrast: float) -> torch.Tensor:
    """Smooth colour fields (n, 3, 32, 32) with some noise."""
    random = torch.Generator().manual_seed(seed)
    field = torch.nn.functional.interpolate(
        torch.rand(n, 3, 3, 3, generator=random), (32, 32), mode="bilinear"
    )
    noise = 0.05 * torch.randn(n, 3, 32, 32, generator=random)
    return ((contrast * (field - 0.5) + noise + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


@pytest.mark.slow
def test_scores_of_images_are_those_of_a_whole_torch_fidelity_run(tmp_path):
    """From pixels and a file of weights to four scores, each program on its own."""
    import torch_fidelity

    path = seeded.write_inception(tmp_path / "weights-inception-2015-12-05-6726825d.pth")
    fake, real = pictures(16, 1, 0.6), pictures(16, 2, 1.0)
    expected = torch_fidelity.calculate_metrics(
        input1=Images(fake),
        input2=Images(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(path),
        **dict.fromkeys(("isc", "fid", "kid", "prc", "save_cpu_ram"), True),
        **dict.fromkeys(("cuda", "cache", "verbose"), False),
        **{"isc_splits": 2, "kid_subsets": 5, "kid_subset_size": 12, "batch_size": 10},
    )
    extractor = extractors.load("inception", path, "cpu")
    found, other = (extractors.extract(extractor, x) for x in (fake, real))
    fid = expected["frechet_inception_distance"]
    assert frechet_distance(found.pool, other.pool) == pytest.approx(fid, rel=2e-5)
    score = split_inception_score(found.logits, 2)[0] - 1  # 0 for logits that say nothing
    assert score == pytest.approx(expected["inception_score_mean"] - 1, rel=1e-5)
    kid = expected["kernel_inception_distance_mean"]
    assert subset_kernel_distance(found.pool, other.pool, 5, 12)[0] == pytest.approx(kid, rel=1e-5)
    balls = manifold(found.pool, other.pool)
    assert balls.precision == pytest.approx(expected["precision"], abs=1e-6)
    assert balls.recall == pytest.approx(expected["recall"], abs=1e-6)


@pytest.mark.slow
@needs_sqrtm
@quiet_sqrtm
def test_fid_of_a_real_layer_with_more_images_than_features(tmp_path):
    """Layer "64" of the network: a full-rank covariance, where all programs agree to 1e-6."""
    from cleanfid import fid
    from torch_fidelity import FeatureExtractorInceptionV3

    path = seeded.write_inception(tmp_path / "weights.pth")
    network = FeatureExtractorInceptionV3("inception", ["64"], str(path))
    batches = [pictures(72, 1, 0.6).split(8), pictures(72, 2, 1.0).split(8)]
    fake, real = (torch.cat([network(part)[0] for part in parts]) for parts in batches)
    found = frechet_distance(fake, real)
    assert found == pytest.approx(torch_fidelity_fid(fake, real), rel=1e-6)
    assert found == pytest.approx(fid.fid_from_feats(fake.numpy(), real.numpy()), rel=1e-6)
