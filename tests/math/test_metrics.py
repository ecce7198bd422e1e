"""Metrics against closed forms and against other implementations."""

import math

import exact_fields as exact
import ot
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from flowbench.data import base, digits, vectors
from flowbench.data.base import Modes
from flowbench.metrics import classifier, modes, wasserstein
from flowbench.metrics.evaluation import Evaluation
from flowbench.metrics.frechet import frechet_distance, frechet_from_moments, moments
from flowbench.metrics.neighbours import memorised
from flowbench.records import FlowbenchError


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(d: int, seed: int) -> torch.Tensor:
    root = draws(d, d, seed=seed)
    return root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def test_frechet_distance_of_gaussians():
    """Commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2; one dimension: dm^2 + ds^2."""
    a, b = torch.tensor([4.0, 1.0, 0.0]).double(), torch.tensor([1.0, 9.0, 0.25]).double()
    turn = torch.linalg.qr(draws(3, 3))[0]
    m = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = frechet_from_moments(0 * m, turn @ a.diag() @ turn.T, m, turn @ b.diag() @ turn.T)
    assert found == pytest.approx(5.25 + 1 + 4 + 0.25, rel=1e-10)

    x, y = 3 + 2 * draws(4000, 1), draws(5000, 1, seed=1)
    expected = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("d", [2, 17, 64])
def test_frechet_distance_equals_the_matrix_square_root(d):
    x = draws(500, d) @ spd(d, 1) + 0.3
    y = draws(700, d, seed=2) @ spd(d, 3)
    (m1, c1), (m2, c2) = moments(x), moments(y)
    root = sqrtm((c1 @ c2).numpy()).real
    expected = (m1 - m2).square().sum() + (c1 + c2).trace() - 2 * root.trace()
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-8)
    assert frechet_distance(y, x) == pytest.approx(expected.item(), rel=1e-8)
    biased = (c1 + c2).trace() - 2 * root.trace()  # control: without the means
    assert frechet_distance(x, y) != pytest.approx(biased.item(), rel=1e-3)
    torch.testing.assert_close(c1, torch.cov(x.T))


def test_frechet_distance_equals_torch_fidelity():
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = draws(800, 32) @ spd(32, 1), draws(600, 32, seed=2) @ spd(32, 3) + 0.1
    parts = [fid.fid_features_to_statistics(features) for features in (x, y)]
    found = fid.fid_statistics_to_metric(*parts, verbose=False)
    expected = found["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_identical_sets_is_zero():
    for n, d, allowed in ((500, 16, 1e-9), (10, 64, 1e-5)):
        x = draws(n, d)
        assert frechet_distance(x, x) == pytest.approx(0, abs=allowed)
        assert frechet_distance(x, x + 1) == pytest.approx(d, rel=1e-6)


def test_frechet_distance_with_fewer_rows_than_dimensions():
    """The nuclear norm of A^T B is the trace of the root, A and B being the centred sets."""
    x, y = draws(20, 100), 2 * draws(30, 100, seed=1)
    a, b = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (x, y))
    cross = torch.linalg.matrix_norm(a @ b.T, "nuc")
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum()
    assert frechet_distance(x, y) == pytest.approx((expected - 2 * cross).item(), rel=1e-6)


def test_exact_w2_is_the_best_assignment():
    x, y = draws(200, 3), draws(200, 3, seed=1) * 2
    cost = torch.cdist(x, y).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    best = cost[rows, columns].mean().sqrt().item()
    assert wasserstein.exact(x, y) == pytest.approx(best, rel=1e-9)
    assert wasserstein.exact(x, y[torch.randperm(200)]) == pytest.approx(best, rel=1e-9)
    assert cost.diag().mean().sqrt().item() > 1.1 * best  # control: any assignment


def test_w2_of_a_shift_is_its_length():
    x, shift = draws(300, 4), torch.tensor([3.0, 0, 4.0, 0]).double()
    assert wasserstein.exact(x, x + shift) == pytest.approx(5, rel=1e-9)
    assert wasserstein.exact(x, x) == pytest.approx(0, abs=1e-6)
    uneven = wasserstein.exact(x[:1], torch.cat([x[:1] + 1, x[:1] - 3]))
    assert uneven == pytest.approx(math.sqrt((4 * 1 + 4 * 9) / 2), rel=1e-9)


def test_w2_in_one_dimension_is_sorting():
    x, y = draws(500, 1), 3 + 2 * draws(500, 1, seed=1)
    gap = (x.sort(0).values - y.sort(0).values).square().mean().sqrt().item()
    assert wasserstein.exact(x, y) == pytest.approx(gap, rel=1e-9)
    assert wasserstein.sliced(x, y) == pytest.approx(gap, rel=1e-9)


def test_sliced_w2_of_a_shift():
    """|shift| / sqrt(d) over all directions."""
    d = 8
    x, shift = draws(400, d), torch.full((d,), 2.0).double()
    found = wasserstein.sliced(x, x + shift, directions=20_000)
    assert found == pytest.approx(2.0, rel=0.03)
    assert wasserstein.sliced(x, x) == 0
    assert wasserstein.sliced(x, x + shift) == wasserstein.sliced(x, x + shift)


def test_sliced_w2_equals_pot():
    x, y, n = draws(300, 5), 1.5 * draws(300, 5, seed=1) + 0.2, 50
    lines = torch.randn(5, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lines = (lines / lines.norm(dim=0)).numpy()
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=lines)
    assert wasserstein.sliced(x, y, directions=n) == pytest.approx(expected, rel=1e-10)
    images = x[:, :4].reshape(-1, 1, 2, 2), y[:, :4].reshape(-1, 1, 2, 2)
    assert wasserstein.sliced(*images) == wasserstein.sliced(x[:, :4], y[:, :4])


def eight() -> tuple[torch.Tensor, Modes]:
    arrays = vectors.eight_gaussians()
    return torch.from_numpy(arrays.train), arrays.modes


def test_share_of_true_samples_within_three_deviations():
    """Two isotropic dimensions: 1 - exp(-9/2)."""
    true, known = eight()
    within = 1 - math.exp(-4.5)
    allowed = 5 * math.sqrt(within * (1 - within) / len(true))
    assert modes.share_within(true, known) == pytest.approx(within, abs=allowed)
    wide = modes.share_within(true, Modes(known.means, 2 * known.std, known.dims))
    assert wide > within + 0.005  # control


def test_a_gaussian_with_the_mixtures_moments_has_the_right_fd_and_the_wrong_modes():
    true, known = eight()
    mean, cov = moments(true)
    fake = draws(len(true), 2) @ torch.linalg.cholesky(cov).T + mean
    assert frechet_distance(fake, true) < 1e-3
    assert modes.share_within(fake, known) < 0.3
    rows = slice(0, 4000)
    floor = modes.per_mode_w2(true[50_000:54_000], true[rows], known)
    assert modes.per_mode_w2(fake[rows], true[rows], known) > 5 * floor


def test_modes_are_seen_in_their_coordinates_only():
    arrays = vectors.mog128()
    true, known = torch.from_numpy(arrays.train[:20_000]), arrays.modes
    within = 1 - math.exp(-4.5)
    assert modes.share_within(true, known) == pytest.approx(within, abs=0.004)
    moved = true.clone()
    moved[:, 2:] += 100
    assert modes.share_within(moved, known) == modes.share_within(true, known)
    moved[:, 0] += 1
    assert modes.share_within(moved, known) < 0.01
    assert true[:, :2].std().item() == pytest.approx(math.sqrt(1.01), abs=0.01)
    assert (true[:, 0] * true[:, 1]).mean().item() == pytest.approx(1, abs=0.01)


def test_w2_per_mode():
    known = Modes(torch.tensor([[-5.0], [5.0]]), torch.tensor([1.0]), (0,))
    reference = torch.cat([draws(200, 1) - 5, draws(200, 1, seed=1) + 5])
    assert modes.per_mode_w2(reference, reference, known) == pytest.approx(0, abs=1e-7)
    assert modes.per_mode_w2(reference + 0.5, reference, known) == pytest.approx(0.5, rel=1e-9)
    uneven = torch.cat([reference[:200], reference[200:220]])
    assert modes.per_mode_w2(uneven[:200].repeat(2, 1), reference, known) == math.inf
    # A plain W2 sees how many samples fell to each mode, this one hardly.
    share = torch.cat([reference[:150], reference[250:400], reference[:50], reference[:50]])
    assert wasserstein.exact(share, reference) > 2
    assert modes.per_mode_w2(share, reference, known) < 1


def test_memorised():
    train = draws(300, 16)
    assert memorised(train[:50], train) == 1
    assert memorised(train[:50] + 1e-4, train) == 1
    assert memorised(draws(200, 16, seed=1), train) < 0.01
    mixed = torch.cat([train[:50], draws(150, 16, seed=1)])
    assert memorised(mixed.reshape(-1, 1, 4, 4), train.reshape(-1, 1, 4, 4)) == pytest.approx(0.25)
    large = 1000 + train.float()  # where |a|^2 + |b|^2 - 2 ab has no digits left
    assert memorised(large[:50], large) == 1


def test_inception_score():
    uniform = torch.zeros(100, 10)
    assert classifier.inception_score(uniform) == pytest.approx(1)
    confident = 50 * torch.eye(10).repeat(10, 1)
    assert classifier.inception_score(confident) == pytest.approx(10, rel=1e-9)
    assert classifier.inception_score(confident[:10][[0] * 50]) == pytest.approx(1)
    half = torch.cat([confident[:1].repeat(30, 1), confident[1:2].repeat(10, 1)])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert classifier.inception_score(half) == pytest.approx(math.exp(entropy), rel=1e-9)


def test_inception_score_of_extreme_logits_is_a_number():
    """exp(-2000) is 0 in float64 too; the marginal of a class that is never predicted is not."""
    logits = 2000 * torch.eye(10)[[0, 1] * 20]
    assert classifier.inception_score(logits) == pytest.approx(2, rel=1e-9)


@pytest.fixture(scope="module")
def data() -> base.Data:
    return base.load("digits", digits.digits(), "cpu")


def fd_clf(images: torch.Tensor, data: base.Data) -> float:
    e = Evaluation(images, data)
    return frechet_distance(e.features, e.reference_features)


def test_shipped_classifier(data):
    from flowbench.checkpoints import file_hash

    path = classifier.FOLDER / "digits.safetensors"
    assert file_hash(path) == classifier.SHIPPED["digits"]
    x, y = data.test.spread(600)
    network = classifier.load("digits", "cpu")
    assert classifier.accuracy(network, x, y) > 0.97
    assert classifier.accuracy(network, x.flip(3), y) < 0.8  # control
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert network.features(x).shape == (600, 64)


def test_a_changed_classifier_is_refused(tmp_path, monkeypatch):
    content = bytearray((classifier.FOLDER / "digits.safetensors").read_bytes())
    monkeypatch.setattr(classifier, "FOLDER", tmp_path)
    with pytest.raises(FlowbenchError):
        classifier.load.__wrapped__("digits", "cpu")
    path = tmp_path / "digits.safetensors"
    path.write_bytes(content)
    classifier.load.__wrapped__("digits", "cpu")
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FlowbenchError):
        classifier.load.__wrapped__("digits", "cpu")


def test_frechet_distance_of_digits(data):
    """The floor of held-out digits, and sets that are plainly worse."""
    test = data.test.spread(600)[0]
    floor = fd_clf(test, data)
    assert floor == pytest.approx(1.31, abs=0.05)
    blurred = torch.nn.functional.avg_pool2d(test, 3, 1, 1)
    assert fd_clf(test.flip(3), data) > 8 * floor
    assert fd_clf(blurred, data) > 8 * floor
    assert fd_clf(torch.rand_like(test) * 2 - 1, data) > 20 * floor
    assert fd_clf(data.train.spread(1197)[0], data) == pytest.approx(0, abs=1e-6)
    x, y = data.test.spread(600)
    assert fd_clf(x[y < 5], data) > 5 * floor  # half of the classes


def test_scores_of_digits(data):
    test = data.test.spread(600)[0]
    e = Evaluation(test, data)
    assert 8 < classifier.inception_score(e.logits) <= 10
    assert memorised(test, e.reference) < 0.02
    assert memorised(e.reference[:100], e.reference) == 1
    assert [len(part) for part in e.matched(2000)] == [600, 600]
    torch.testing.assert_close(e.logits, e.network(test), rtol=1e-4, atol=1e-4)


def test_pixels_survive_scaling_and_rounding():
    levels = torch.arange(256, dtype=torch.uint8)
    scaled = base.scale(levels)
    assert torch.equal(base.quantise(scaled), levels)
    assert scaled[0] == -1 and scaled[255] == 1
    nudged = (scaled + 0.003).clamp(-1, 1)  # less than half a level
    assert torch.equal(base.quantise(nudged), levels)
    assert torch.equal(base.quantise(torch.tensor([-3.0, 3.0])), torch.tensor([0, 255]).byte())
    truncated = ((scaled + 1) / 2 * 255).to(torch.uint8)  # control: a common mistake
    assert (truncated != levels).sum() > 50
    assert base.scale(torch.tensor([0.3])).item() == pytest.approx(0.3)


def test_moments_of_data():
    x = 3 + 2 * draws(1000, 4)
    data = exact.vectors(x)
    assert data.std == pytest.approx(x.float().double().std(correction=0).item(), rel=1e-9)
    assert data.kind == "vector" and data.shape == (4,)
