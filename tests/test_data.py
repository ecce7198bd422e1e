"""Data: hashes, scaling, one copy, no second copy, archives."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from flowbench import planning, plugins
from flowbench.data import base
from flowbench.data.archive import ZipImages, archive
from flowbench.data.base import Arrays, load, quantise, scale
from flowbench.records import FlowbenchError

NAMES = [
    *["digits", "mog128", "moons", "checkerboard", "8gaussians", "rose"],
    *["gaussian2", "gaussian16", "gaussian128"],
]


def images(n=6, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_that_come_along(name):
    data = planning.load_data(name, "cpu", None)
    x, y = data.train.draw(torch.arange(4))
    assert x.dtype == torch.float32 and x.shape == (4, *data.shape)
    assert 0.5 < data.std < 1.3
    assert (y is None) == (data.classes == 0)
    assert data.test is not None and len(data.sha256) == 64


@pytest.mark.parametrize(
    "name, sha, modes",
    [("mog128", "00e5f9e5", 2), ("8gaussians", "299ac9d1", 8), ("gaussian16", "bf6120d6", 1)],
)
def test_mixtures_know_their_law_and_are_the_rows_they_always_were(name, sha, modes):
    data = planning.load_data(name, "cpu", None)
    assert data.sha256.startswith(sha)
    assert data.law.means.shape == data.law.stds.shape == (modes, *data.shape)
    assert data.law.weights.sum() == 1
    if data.modes is not None:
        dims = list(data.modes.dims)
        torch.testing.assert_close(data.law.means[:, dims].float(), data.modes.means)


def test_other_data_have_no_law():
    for name in ("digits", "moons"):
        assert planning.load_data(name, "cpu", None).law is None


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    data = planning.load_data("digits", "cpu", None)
    assert data.train.values.dtype == torch.uint8
    assert (len(data.train), len(data.test), data.classes) == (1197, 600, 10)
    ours = torch.cat([data.train.values, data.test.values]).flatten(1)
    theirs = torch.tensor(np.rint(load_digits().data * 255 / 16)).to(torch.uint8)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))
    assert data.sha256.startswith("7d64d897"), "the split or the scaling has changed"


def test_several_methods_share_one_copy():
    first = planning.load_data("digits", "cpu", None)
    assert planning.load_data("digits", "cpu", None).train.values is first.train.values


def test_the_hash_sees_every_pixel_label_and_shape():
    def hashed(x, y):
        return load("x", Arrays(x, None, y, classes=2), "cpu").sha256

    x, y = images(), np.arange(6) % 2
    changed = x.copy()
    changed[5, 2, 7, 7] ^= 1
    others = [hashed(changed, y), hashed(x, 1 - y), hashed(x.reshape(6, 3, 4, 16), y)]
    assert len({hashed(x, y), *others}) == 4
    assert hashed(x.copy(), y) == hashed(x, y)


def test_images_are_scaled_when_they_are_drawn_and_back_without_loss():
    levels = torch.arange(256, dtype=torch.uint8)
    x = scale(levels)
    assert x.min() == -1 and x.max() == 1
    assert torch.equal(quantise(x), levels)
    assert quantise(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


class Lazy:
    """An array larger than one would like to copy: it remembers how much was read at once."""

    def __init__(self, array):
        self.array, self.most, self.rows = array, 0, 0
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        part = self.array[rows]
        self.most = max(self.most, len(part))
        self.rows += len(part)
        return part


def test_data_are_read_in_chunks_and_once(monkeypatch):
    monkeypatch.setattr(base, "CHUNK_BYTES", 3 * 8 * 8 * 10)
    lazy = Lazy(images(95))
    data = load("x", Arrays(lazy), "cpu")
    assert lazy.most == 10
    assert lazy.rows == 95 + 1, "each row once, and one look at the size of a row"
    assert torch.equal(data.train.values, torch.from_numpy(lazy.array))
    assert data.sha256 == load("x", Arrays(lazy.array), "cpu").sha256
    assert data.std == pytest.approx(scale(data.train.values).std(correction=0).item(), rel=1e-4)


def test_what_does_not_fit_on_the_gpu_stays_in_pinned_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert base._home(799, "cuda:0", None) == {"device": "cuda:0"}
    assert base._home(801, "cuda:0", None) == {"device": "cpu", "pin_memory": True}
    assert base._home(801, "cuda:0", 900) == {"device": "cuda:0"}
    assert base._home(10**12, "cpu", None) == {"device": "cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batches_equal_those_on_the_device():
    x, y = images(64), np.arange(64) % 2
    here = load("x", Arrays(x, None, y, classes=2), "cuda:0")
    pinned = load("x", Arrays(x, None, y, classes=2), "cuda:0", room=0)
    assert here.train.values.is_cuda and pinned.train.values.is_pinned()
    rows = torch.tensor([3, 1, 60])
    for a, b in zip(here.train.draw(rows), pinned.train.draw(rows), strict=True):
        assert a.is_cuda and torch.equal(a, b)


def write_zip(path, pictures, labels=None, kind="PNG", extra=None):
    with zipfile.ZipFile(path, "w") as zipped:
        names = [f"00000/img{i:08d}.{kind.lower()}" for i in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(picture.transpose(1, 2, 0)).save(buffer, kind)
            zipped.writestr(name, buffer.getvalue())
        if labels is not None:
            pairs = [[n, int(y)] for n, y in zip(names, labels, strict=False)]
            zipped.writestr("dataset.json", json.dumps({"labels": pairs}))
        for name, content in (extra or {}).items():
            zipped.writestr(name, content)


def test_an_archive_in_edms_layout(tmp_path):
    x, y = images(5), [3, 1, 2, 0, 1]
    write_zip(tmp_path / "cifar10-32x32-train.zip", x, y)
    write_zip(tmp_path / "cifar10-32x32-test.zip", x[:2], y[:2])
    data = load("cifar10", archive(tmp_path, "cifar10", "cifar10-32x32"), "cpu")
    assert torch.equal(data.train.values, torch.from_numpy(x))
    assert data.train.labels.tolist() == y and data.classes == 4
    assert len(data.test) == 2


def test_an_archive_without_labels_or_held_out_images(tmp_path):
    write_zip(tmp_path / "cifar10-32x32.zip", images(3))
    data = load("cifar10", archive(tmp_path, "cifar10", "cifar10-32x32"), "cpu")
    assert data.classes == 0 and data.train.labels is None and data.test is None


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no zip at all", "cannot be read as a zip archive"),
        (None, "holds no PNG or JPEG"),
    ],
)
def test_what_is_no_archive(tmp_path, content, message):
    path = tmp_path / "x.zip"
    path.write_bytes(content) if content else write_zip(path, [], extra={"a.txt": "x"})
    with pytest.raises(FlowbenchError, match=message):
        ZipImages(path)


def test_damaged_odd_and_unlabelled_images_are_named(tmp_path):
    write_zip(tmp_path / "a.zip", images(2), extra={"00000/img1.png": b"broken"})
    with pytest.raises(FlowbenchError, match=r"img1\.png .* cannot be decoded"):
        ZipImages(tmp_path / "a.zip")[0:3]
    write_zip(tmp_path / "b.zip", [*images(2), images(1, side=9)[0]])
    with pytest.raises(FlowbenchError, match=r"img00000002\.png .* \(3, 9, 9\)"):
        ZipImages(tmp_path / "b.zip")[0:3]
    write_zip(tmp_path / "c.zip", images(3), labels=[0, 1])
    with pytest.raises(FlowbenchError, match="does not label every image"):
        ZipImages(tmp_path / "c.zip").labels()


def test_data_that_are_not_here_say_what_is_missing(flowbench, tmp_path):
    code, output = flowbench("run", "cfm", "--dataset", "imagenet64")
    assert code == 2 and len(output.strip().splitlines()) == 1
    assert "imagenet-64x64.zip" in output and "--data-root" in output
    words = ["run", "cfm", "--dataset", "imagenet64", "--data-root", str(tmp_path)]
    code, output = flowbench(*words)
    assert code == 2 and f"{tmp_path} has neither" in output


def test_an_unknown_data_set_gets_the_nearest_name(flowbench):
    code, output = flowbench("run", "cfm", "--dataset", "digit")
    assert code == 2 and "did you mean digits?" in output


def test_every_data_set_of_the_catalogue_has_a_summary():
    assert all(entry.summary for entry in plugins.datasets().values())
