"""Perceptual losses against the programs whose numbers they stand for, on seeded weights."""

import warnings
from pathlib import Path

import loss_weights
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchvision.models import vgg16
from torchvision.transforms.functional import normalize

from flowbench import weights
from flowbench.losses.inputs import IMAGENET
from flowbench.losses.perceptual import perceptual
from flowbench.records import FlowbenchError


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return loss_weights.vgg16(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def original(file):
    """The lpips package's network on the same weights, in float64."""
    import lpips

    state = weights.read(file, "vgg16")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # torchvision's, of how lpips calls it
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    for name, parameter in network.net.named_parameters():
        parameter.data = state["features." + name.partition(".")[2]]
    return network.double()


def images(n: int = 3, channels: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(n, channels, side, side, generator=random, dtype=torch.float64)


X, TARGET = images(seed=1), images(seed=2)  # far outside [-1, 1]: nothing is clamped


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    return True


def test_lpips_is_that_of_its_authors(file, original):
    loss = perceptual("lpips", file, pool="max").double()
    expected = original(X, TARGET).flatten()
    assert close(loss(X, TARGET), expected)
    single = perceptual("lpips", file, pool="max")
    torch.testing.assert_close(
        single(X.float(), TARGET.float()), expected.float(), rtol=0, atol=1e-6
    )
    average = perceptual("lpips", file).double()
    assert ((average(X, TARGET) - expected).abs() > 0.01 * expected).all()  # control: pooling


def test_average_pooling_takes_the_place_of_max_pooling(file, original):
    slices = [getattr(original.net, f"slice{i}") for i in range(2, 6)]
    kept = [part[0] for part in slices]
    assert all(isinstance(pool, nn.MaxPool2d) for pool in kept)
    for part in slices:
        part[0] = nn.AvgPool2d(2)
    expected = original(X, TARGET).flatten()
    for part, pool in zip(slices, kept, strict=True):
        part[0] = pool
    assert close(perceptual("lpips", file).double()(X, TARGET), expected)


@pytest.mark.parametrize("size", [48, 16])
def test_images_are_resized_first(file, original, size):
    loss = perceptual("lpips", file, size, pool="max").double()
    small = [functional.interpolate(x, (size, size), mode="bilinear") for x in (X, TARGET)]
    assert close(loss(X, TARGET), original(*small).flatten())
    assert ((loss(X, TARGET) - original(X, TARGET).flatten()).abs() > 1e-4).all()  # control


def test_johnson_is_the_mean_squared_error_of_relu3_3(file):
    with torch.device("meta"):
        network = vgg16(weights=None)
    network.load_state_dict(torch.load(file, weights_only=True), assign=True)
    layers = network.features[:16].double()
    seen = [layers(normalize((x + 1) / 2, *IMAGENET)) for x in (X, TARGET)]
    assert seen[0].shape == (3, 256, 8, 8)
    expected = (seen[0] - seen[1]).square().mean((1, 2, 3))
    assert close(perceptual("johnson", file, pool="max").double()(X, TARGET), expected.detach())


@pytest.mark.parametrize("kind", ["lpips", "johnson"])
def test_gradients_go_to_the_images_alone(file, kind):
    loss = perceptual(kind, file, size=40)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    x, target = (image.float().requires_grad_() for image in (X, TARGET))
    assert (loss(x, x.detach()) == 0).all()
    values = loss(x, target)
    assert values.shape == (3,) and values.dtype == torch.float32 and (values > 0).all()
    values[1].backward()
    assert target.grad is None and not any(p.requires_grad for p in loss.parameters())
    assert x.grad.isfinite().all() and (x.grad.flatten(1).norm(dim=1) > 0).tolist() == [0, 1, 0]
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_gradient_is_the_slope(file):
    loss = perceptual("lpips", file).double()
    x = images(1, side=16, seed=3).requires_grad_()
    way = images(1, side=16, seed=4)
    loss(x, TARGET[:1, :, :16, :16]).backward()
    with torch.no_grad():
        ends = [loss(x + h * way, TARGET[:1, :, :16, :16]) for h in (1e-6, -1e-6)]
    slope = ((ends[0] - ends[1]) / 2e-6).item()
    assert (x.grad * way).sum().item() == pytest.approx(slope, rel=1e-3)


def test_no_random_numbers_are_drawn(file):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    loss = perceptual("lpips", file, 32).train()  # without dropout: training changes nothing
    first = loss(X.float(), TARGET.float())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(perceptual("lpips", file, 32)(X.float(), TARGET.float()), first)


def test_one_channel_is_repeated(file):
    loss = perceptual("lpips", file).double()
    grey, target = images(2, 1), images(2, 1, seed=5)
    assert close(loss(grey, target), loss(grey.repeat(1, 3, 1, 1), target.repeat(1, 3, 1, 1)))


def test_half_precision_is_near(file):
    exact = perceptual("lpips", file, 32)(X.float(), TARGET.float())
    half = perceptual("lpips", file, 32, dtype=torch.bfloat16)(X.float(), TARGET.float())
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0)


def test_safetensors_are_read_too(file, tmp_path):
    state = weights.read(file, "vgg16")
    path = tmp_path / "vgg16.safetensors"
    save_file({k: v.contiguous() for k, v in state.items() if k.startswith("features")}, path)
    expected = perceptual("lpips", file, 32)(X.float(), TARGET.float())
    assert torch.equal(perceptual("lpips", path, 32)(X.float(), TARGET.float()), expected)


def test_other_files_are_refused_in_one_line(file, tmp_path):
    def message(path):
        with pytest.raises(FlowbenchError) as caught:
            perceptual("lpips", path)
        assert "\n" not in str(caught.value) and "vgg16-397923af.pth" in str(caught.value)
        return str(caught.value)

    path = tmp_path / "vgg16.pth"
    assert "there is no file" in message(path)
    state = weights.read(file, "vgg16")
    fewer = {name: value for name, value in state.items() if name != "features.28.bias"}
    wider = {**fewer, "features.28.bias": torch.zeros(513)}
    for content in ({}, fewer, wider, {"model": fewer}, {"features.0.weight": 1}, [1]):
        torch.save(content, path)
        assert "does not hold the weights of vgg16" in message(path)
    for name in ("vgg16.pth", "vgg16.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        assert "does not hold the weights of vgg16" in message(tmp_path / name)


def test_other_images_and_words_are_refused(file):
    loss = perceptual("lpips", file).double()
    for wrong, text in (
        (images(2, 4), "of shape 4x32x32"),
        (images(2)[0], "of shape 32x32"),
        (images(2, side=15), "15x15 pixels are too small for VGG-16: resize them to 16"),
    ):
        with pytest.raises(FlowbenchError, match=text):
            loss(wrong, wrong)
    with pytest.raises(FlowbenchError, match="did you mean lpips"):
        perceptual("lpip", file)
    with pytest.raises(FlowbenchError, match="no pooling 'mean'"):
        perceptual("lpips", file, pool="mean")
