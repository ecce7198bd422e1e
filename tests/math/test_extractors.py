"""Feature extractors against the programs whose numbers they stand for, on seeded weights."""

import pickle
from pathlib import Path

import inception_weights as seeded
import numpy as np
import pytest
import torch
from torch.nn import functional

from flowbench import cache, known_weights, weights
from flowbench.metrics import dinov2, extractors, inception
from flowbench.records import FlowbenchError


def images(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *(shape or (3, 32, 32))), generator=random, dtype=torch.uint8)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Error relative to what differs between images: a large common mean hides nothing."""
    return ((found - expected).norm() / (expected - expected.mean(0)).norm()).item()


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory) -> Path:
    return seeded.write_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def dinov2_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "dinov2_vits14_pretrain.pth"
    torch.save(seeded.dinov2_state(), path)
    return path


@pytest.fixture(scope="module")
def original(inception_file):
    """torch-fidelity's own extractor."""
    from torch_fidelity import FeatureExtractorInceptionV3

    names = ["64", "2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception", names, str(inception_file))


def test_inception_is_torch_fidelitys(inception_file, original):
    pixels = images(5)
    theirs = {}
    branch = original.Mixed_6d.branch1x1
    hook = branch.register_forward_hook(lambda *call: theirs.update(spatial=call[-1].clone()))
    theirs.update(zip(original.features_list, original(pixels), strict=True))
    hook.remove()
    extractor = extractors.load("inception", inception_file, "cpu")
    found = extractors.extract(extractor, pixels, batch=3)
    assert found.pool.shape == (5, 2048) and found.logits.shape == (5, 1008)
    assert apart(found.pool, theirs["2048"]) < 1e-4
    assert ((found.pool - theirs["2048"]).norm() / found.pool.norm()).item() < 1e-5
    assert apart(found.logits, theirs["logits_unbiased"]) < 1e-4
    assert apart(found.spatial, theirs["spatial"].permute(0, 2, 3, 1)[..., :7].flatten(1)) < 1e-4
    assert apart(found.pool, theirs["2048"].flip(0)) > 1  # controls: another order of images,
    assert apart(found.spatial, theirs["spatial"][:, :7].flatten(1)) > 0.1  # of values
    biased = theirs["logits_unbiased"] + original.fc.bias
    assert apart(found.logits, biased) > 0.1
    clean = extractors.load("clean", inception_file, "cpu")
    assert apart(clean(pixels).pool, theirs["2048"]) > 0.01  # and another resizing


def test_parts_that_the_first_layers_take_do_not_matter(inception_file, monkeypatch):
    extractor, pixels = extractors.load("inception", inception_file, "cpu"), images(3, seed=1)
    whole = extractor(pixels)
    monkeypatch.setattr(inception, "TOGETHER", 2)
    for part, expected in zip(extractor(pixels), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)
    assert apart(extractor(pixels.flip(0)).pool, whole.pool.flip(0)) < 1e-5
    assert apart(whole.pool.flip(0), whole.pool) > 1  # control


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 8, 20), (3, 299, 299), (3, 400, 333)])
def test_tensorflow_resizing(shape):
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as resize,
    )

    pixels = images(2, *shape)
    expected = inception.normalise(resize(pixels.float(), (299, 299), align_corners=False))
    found = inception.like_tensorflow(pixels)
    assert (found - expected).abs().max() < 2e-3 / 128
    centred = functional.interpolate(pixels.float(), (299, 299), mode="bilinear")
    wrong = (inception.normalise(centred) - expected).abs().max()
    assert (wrong > 0.1) == (shape[1:] != (299, 299))  # control: half-pixel centres


def test_clean_resizing_is_that_of_clean_fids_own_run(tmp_path):
    """What `compute_fid(mode="clean")` feeds its extractor from a folder of PNG files."""
    from cleanfid import fid
    from PIL import Image

    pixels = images(6)
    for i, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    seen = []

    def extractor(batch):
        seen.append(batch)
        return batch.mean((2, 3))

    fid.get_folder_features(
        *(str(tmp_path), extractor),
        num_workers=0,
        batch_size=4,
        device=torch.device("cpu"),
        mode="clean",
        verbose=False,
    )
    assert torch.equal(inception.like_clean_fid(pixels), inception.normalise(torch.cat(seen)))
    assert (inception.like_tensorflow(pixels[:4]) != inception.normalise(seen[0])).any()  # control


def test_grey_images_and_blocks(inception_file):
    extractor = extractors.load("inception", inception_file, "cpu")
    grey, heard = images(4, 1, 28, 28), []
    found = extractors.extract(extractor, iter(grey.split(3)), watch=heard.append)
    repeated = extractors.extract(extractor, grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(found.pool, repeated.pool, rtol=1e-4, atol=1e-6)
    assert [(p.step, p.steps) for p in heard] == [(3, 0), (4, 0)] and heard[-1].rate > 0
    for wrong in (grey.float(), images(1, 4, 8, 8), images(3, 8, 8)):
        with pytest.raises(FlowbenchError, match="takes uint8 images"):
            extractor(wrong)
    with pytest.raises(FlowbenchError, match="no images"):
        extractors.extract(extractor, [])


def test_an_extractor_says_how_it_works(inception_file):
    from flowbench.checkpoints import file_hash

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = extractors.load.__wrapped__("inception", inception_file, "cpu")
    assert torch.equal(torch.rand(2), expected)  # loading draws no random numbers
    assert found.sha256 == found.protocol["weights"] == file_hash(inception_file)
    clean = extractors.load("clean", inception_file, "cpu")
    assert found.protocol["resize"] == "tf1-bilinear-299" != clean.protocol["resize"]
    assert not found.network.training
    assert not any(p.requires_grad for p in found.network.parameters())


def test_computation_is_in_full_float32_and_settings_come_back(inception_file, monkeypatch):
    extractor, seen = extractors.load("inception", inception_file, "cpu"), []

    def look(x):
        seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        raise KeyboardInterrupt

    monkeypatch.setattr(extractor.network, "forward", look)
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyboardInterrupt):
            extractor(images(1))
        assert seen == [(False, "highest")]
        assert torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_weights_are_found(tmp_path, monkeypatch):
    assert weights.find("inception", {}) is None and weights.find("dinov2", {}) is None
    known = cache.folder("weights") / "weights-inception-2015-12-05-6726825d.pth"
    known.write_bytes(b"")
    assert weights.find("inception", {}) == weights.find("clean", {}) == known
    (tmp_path / "a").write_bytes(b"")
    monkeypatch.setenv("FLOWBENCH_INCEPTION", str(tmp_path / "a"))
    assert weights.find("clean", {}) == tmp_path / "a"
    assert weights.find("clean", {"inception": known}) == known
    with pytest.raises(FlowbenchError, match=r"you named the weights .*b, but there is no"):
        weights.find("inception", {"inception": tmp_path / "b"})
    monkeypatch.setenv("FLOWBENCH_DINOV2", str(tmp_path / "b"))
    with pytest.raises(FlowbenchError, match="FLOWBENCH_DINOV2 names"):
        weights.find("dinov2", {})


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def refused(path: Path, name: str = "inception") -> str:
    with pytest.raises(FlowbenchError) as caught:
        extractors.load.__wrapped__(name, path, "cpu")
    message = str(caught.value)
    assert (
        "\n" not in message and str(path) in message and known_weights.KNOWN[name].file in message
    )
    return message


def test_files_that_are_no_weights_are_refused(tmp_path, dinov2_file):
    path = tmp_path / "file.pth"
    assert "no file" in refused(path)
    for content in (b"", b"weights", pickle.dumps({"a": 1}), Path(__file__).read_bytes()):
        path.write_bytes(content)
        refused(path)
    for state in ([1, 2], {"model": 3}, {"fc.weight": torch.zeros(3)}):
        torch.save(state, path)
        assert "does not hold" in refused(path)
        refused(path, "dinov2")
    refused(dinov2_file)
    torch.save({"fc.weight": Bomb(tmp_path / "ran")}, path)
    refused(path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # control: the file was dangerous


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_torchscript_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(torch.jit, "load", None)
    assert "TorchScript" in refused(path)


def test_inception_weights_of_another_shape_are_refused(tmp_path, inception_file):
    state = torch.load(inception_file, weights_only=True)
    path = tmp_path / "half.pth"
    torch.save({name: v for name, v in state.items() if "Mixed_7c" not in name}, path)
    refused(path)
    torch.save(state | {"fc.weight": torch.zeros(1000, 2048)}, path)
    refused(path)


def class_token(state: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """A DINOv2 transformer written out from its paper and its authors' choices, in float64."""
    p = {name: value.double() for name, value in state.items()}
    x = functional.interpolate(pixels.float(), (224, 224), mode="bicubic", antialias=True).double()
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    x = (x / 255 - torch.from_numpy(mean)) / torch.from_numpy(std)
    x = functional.conv2d(x, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], 14)
    grid = p["pos_embed"][:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    scale = (16 + 0.1) / 37
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    token = (p["cls_token"] + p["pos_embed"][:, :1]).expand(len(x), -1, -1)
    x = torch.cat([token, (x + grid).flatten(2).mT], 1)
    width = x.shape[2]

    def linear(x, name):
        return functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(x, name):
        return functional.layer_norm(x, (width,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

    for b in (f"blocks.{i}." for i in range(12)):
        parts = linear(norm(x, b + "norm1"), b + "attn.qkv").unflatten(2, (3, width // 64, 64))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / 8).softmax(-1) @ v
        x = x + p[b + "ls1.gamma"] * linear(attention.transpose(1, 2).flatten(2), b + "attn.proj")
        hidden = functional.gelu(linear(norm(x, b + "norm2"), b + "mlp.fc1"))
        x = x + p[b + "ls2.gamma"] * linear(hidden, b + "mlp.fc2")
    return norm(x, "norm")[:, 0]


def test_dinov2_is_its_definition(dinov2_file, monkeypatch):
    pixels, state = images(3), torch.load(dinov2_file, weights_only=True)
    extractor = extractors.load("dinov2", dinov2_file, "cpu")
    found = extractors.extract(extractor, pixels, batch=2)
    assert extractor.protocol["network"] == "dinov2-vit-small-14"
    assert found.pool.shape == (3, 384) and found.logits is None and found.spatial is None
    expected = class_token(state, pixels)
    assert apart(found.pool, expected) < 1e-4
    # Control: position embeddings resized in the usual way give other features.
    monkeypatch.setattr(dinov2, "OFFSET", 0.0)
    usual = extractors.load.__wrapped__("dinov2", dinov2_file, "cpu")
    assert apart(usual(pixels).pool, expected) > 1e-3


def test_dinov2_embeddings_of_the_right_size_stay():
    embedding = torch.rand(1, 257, 8)
    assert dinov2._interpolate(embedding) is embedding
    assert dinov2._interpolate(torch.rand(1, 1 + 37 * 37, 8)).shape == (1, 257, 8)
