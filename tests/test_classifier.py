"""The shipped classifiers: what the files hold, their features, how they are trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from picture_files import images, write_zip
from safetensors.torch import load_file

from flowbench.checkpoints import file_hash, read_facts
from flowbench.data import base, digits
from flowbench.data.archive import archive
from flowbench.data.base import Arrays, Split, quantise, scale
from flowbench.metrics import classifier, metrics
from flowbench.metrics.evaluation import Evaluation
from flowbench.metrics.frechet import frechet_distance
from flowbench.metrics.references import build
from flowbench.records import FlowbenchError

PHOTOGRAPHS = "classifier_cifar10"
PATH = classifier.FOLDER / f"{PHOTOGRAPHS}.safetensors"


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """uint8 (n, 3, 32, 32): a bright square of one of two colours on a dark ramp."""
    rng = np.random.default_rng(seed)
    x = np.broadcast_to(np.linspace(0, 60, 32), (n, 3, 32, 32)).copy()
    x += rng.integers(0, 8, x.shape)
    for i, (row, column) in enumerate(rng.integers(4, 16, (n, 2))):
        x[i, 2 * (i % 2), row : row + 12, column : column + 12] += 150
    return x.astype(np.uint8)


@pytest.fixture(scope="module")
def data() -> base.Data:
    """Two classes of photographs' size, with the classifier of photographs."""
    labels = np.arange(300) % 2
    arrays = Arrays(pictures(300), pictures(100, 1), labels, labels[:100], classes=2)
    return base.load("coloured squares", replace(arrays, classifier=PHOTOGRAPHS), "cpu")


def test_the_file_that_ships():
    assert file_hash(PATH) == classifier.SHIPPED[PHOTOGRAPHS]
    assert PATH.stat().st_size <= 1.5e6
    facts = read_facts(PATH)
    assert (facts["network"], facts["channels"], facts["classes"]) == ("residual", 3, 10)
    assert 0.8 <= facts["test_accuracy"] < 1 and len(facts["data"]) == 64
    assert "flowbench.metrics.classifier" in facts["made_by"]
    floats = [t for t in load_file(PATH).values() if t.is_floating_point()]
    assert all(t.dtype == torch.float16 and t.isfinite().all() for t in floats)


def test_features_do_not_depend_on_the_batch():
    network = classifier.load(PHOTOGRAPHS, "cpu")
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    x = scale(torch.from_numpy(pictures(30)))
    whole = network.features(x)
    assert whole.shape == (30, 128) and whole.min() >= 0 and network(x).shape == (30, 10)
    assert torch.equal(whole, network.features(x))
    parts = torch.cat([network.features(part) for part in x.split(7)])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    trained = classifier.Residual(3, 10)  # control: a batch's own moments would tell
    apart = torch.cat([trained.features(part) for part in x.split(7)])
    assert not torch.allclose(apart, trained.features(x), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name, channels", [("digits", 1), (PHOTOGRAPHS, 3)])
def test_an_extractor_of_uint8_images(name, channels):
    side = {1: 8, 3: 32}[channels]
    x = np.random.default_rng(0).integers(0, 256, (9, channels, side, side), dtype=np.uint8)
    x = torch.from_numpy(x)
    network, found = classifier.load(name, "cpu"), classifier.extractor(name, "cpu")(x)
    torch.testing.assert_close(found.pool, network.features(scale(x)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.logits, network(scale(x)), rtol=1e-4, atol=1e-4)


def test_the_features_of_a_reference_are_kept(data, monkeypatch):
    extractor = classifier.extractor(PHOTOGRAPHS, "cpu")
    made = build(data.train, data.sha256, "train", extractor)
    e = Evaluation(data.train.draw(torch.arange(300))[0], data)
    torch.testing.assert_close(made.features, e.reference_features, rtol=1e-4, atol=1e-5)
    assert made.facts["extractor"]["weights"] == classifier.SHIPPED[PHOTOGRAPHS]

    def fail(*words):
        raise AssertionError("an image went through the network again")

    monkeypatch.setattr(type(extractor), "__call__", fail)
    again = build(data.train, data.sha256, "train", extractor)
    assert torch.equal(again.features, made.features)
    with pytest.raises(AssertionError):
        build(data.test, data.sha256, "test", extractor)


def test_the_metrics_of_photographs_name_their_classifier(data):
    e = Evaluation(data.test.draw(torch.arange(100))[0], data)
    for name in ("fd-clf", "is-clf"):
        metric = next(metric for metric in metrics() if metric.name == name)
        assert metric.applies(data) and not metric.applies(replace(data, classifier=None))
        protocol = metric.protocol(e)
        assert protocol["extractor"] == classifier.SHIPPED[PHOTOGRAPHS]
        assert protocol["reference"] == ["train", 300]
        assert np.isfinite(metric.score(e))


def test_the_distance_grows_with_noise_and_blur(data):
    def distance(x):
        e = Evaluation(scale(quantise(x)), data)
        return frechet_distance(e.features, e.reference_features)

    x = data.test.draw(torch.arange(100))[0]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    noisy = [distance(x + s * noise) for s in (0, 0.1, 0.3, 1)]
    pool = torch.nn.functional.avg_pool2d
    blurred = [distance(pool(x, k, 1, k // 2)) for k in (1, 3, 7)]
    assert noisy == sorted(noisy) and blurred == sorted(blurred)
    assert blurred[-1] > 3 * blurred[0] and noisy[-1] > 3 * noisy[0]
    assert distance(x[::2]) > 1.5 * distance(x)  # one of two classes
    assert distance(data.train.draw(torch.arange(300))[0]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["cifar10", "cifar10-jpeg"])
@pytest.mark.parametrize("labels", [[0, 1, 2], None])
def test_archives_of_photographs_name_it(tmp_path, name, labels):
    stem = f"{name}-32x32"
    write_zip(tmp_path / f"{stem}.zip", images(3, 32), labels)
    assert archive(tmp_path, name, stem).classifier == PHOTOGRAPHS
    write_zip(tmp_path / f"{stem}.zip", images(3, 8), labels)
    assert archive(tmp_path, name, stem).classifier is None
    write_zip(tmp_path / "imagenet-32x32.zip", images(3, 32), labels)
    assert archive(tmp_path, "imagenet32", "imagenet-32x32").classifier is None


def test_crops_are_shifts_and_flips_with_one_hole():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    x = (1 + rows * 32 + columns).expand(200, 3, 32, 32)  # each pixel knows its place, none is 0
    torch.manual_seed(0)
    plain = classifier.cropped(x, shift=0, hole=0)
    flipped = (plain == x.flip(3)).flatten(1).all(1)
    assert ((plain == x).flatten(1).all(1) ^ flipped).all() and 60 < flipped.sum() < 140
    moved = classifier.cropped(x, shift=2, hole=0)
    steps = (moved[:, 0, 10, 10] - plain[:, 0, 10, 10]).abs()
    assert ((moved[:, 0, 10, 10] - 1) // 32 - 10).unique().tolist() == [-2, -1, 0, 1, 2]
    assert len(steps.unique()) > 5 and (moved > 0).all()
    holes = (classifier.cropped(x, shift=2, hole=8) == 0)[:, 0].flatten(1).sum(1)
    assert holes.max() == 49 and holes.min() >= 16


def test_the_step_size_falls_to_0():
    for recipe in classifier.RECIPES.values():
        sizes = [recipe.size(step) for step in range(recipe.steps + 1)]
        assert sizes[0] == 1 and sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == pytest.approx(0, abs=1e-12)
    digits = classifier.RECIPES["digits"]
    half = torch.optim.lr_scheduler.CosineAnnealingLR
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = half(optimizer, digits.steps)
    for step in range(0, 5):
        assert schedule.get_last_lr()[0] == pytest.approx(digits.size(step), rel=1e-9)
        optimizer.step()
        schedule.step()


def test_training_learns_and_is_the_same_from_the_same_seed(data):
    recipe = replace(classifier.RECIPES["cifar10-jpeg"], steps=40, batch=16, fall=1)
    first, again = classifier.train(data, recipe), classifier.train(data, recipe)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    x, y = data.test.spread(100)
    assert classifier.accuracy(first, x, y) > 0.9
    assert classifier.accuracy(first, x, 1 - y) < 0.1


def test_what_is_written_is_what_was_measured(tmp_path, monkeypatch, capsys):
    short = replace(classifier.RECIPES["digits"], steps=60)
    monkeypatch.setitem(classifier.RECIPES, "digits", short)
    monkeypatch.setattr(classifier, "FOLDER", tmp_path)
    path = tmp_path / "mine.safetensors"
    classifier.main("digits", str(path))
    monkeypatch.setitem(classifier.SHIPPED, "mine", file_hash(path))
    x, y = base.load("digits", digits.digits(), "cpu").test.spread(600)
    accuracy = classifier.accuracy(classifier.load.__wrapped__("mine", "cpu"), x, y)
    assert accuracy == read_facts(path)["test_accuracy"] > 0.5
    assert f"{accuracy:.4f}" in capsys.readouterr().out
    with pytest.raises(FlowbenchError, match="take digits, cifar10-jpeg"):
        classifier.main("moons", str(path))


def test_a_split_of_other_images_is_refused():
    grey = Split(torch.zeros(3, 2, 8, 8, dtype=torch.uint8), None, "cpu")
    with pytest.raises(FlowbenchError, match="takes uint8 images"):
        build(grey, "d" * 64, "train", classifier.extractor("digits", "cpu"))
