"""Every form in which people hold images: read to equal pixels and labels, or refused in a line."""

import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from picture_files import (
    cifar_batches,
    encoded,
    images,
    python2_batch,
    write_folder,
    write_tar,
    write_zip,
)
from PIL import Image

from flowbench.data import recipes
from flowbench.data.batches import unpickle
from flowbench.data.pictures import Pictures, center_crop, dhariwal_crop, resize
from flowbench.data.sources import folder, open_source, zipped
from flowbench.records import FlowbenchError

CIFAR = recipes.RECIPES["cifar10"]
INNER = "cifar-10-batches-py"


def read(name, path, split="train", **words):
    """Pixels and labels of a source in a known form, whatever its number of images."""
    recipe = recipes.find(name)
    source = open_source(recipe, path, split, exact=False)
    return Pictures(source, **words)[:], source.labels


def refused(path, message, name="cifar10", split="train", exact=False):
    """The one line with which a source is refused; it names the file."""
    with pytest.raises(FlowbenchError, match=message) as caught:
        recipe = recipes.find(name)
        source = open_source(recipe, path, split, exact)
        Pictures(source, "none", recipe.side)[:]
    assert len(str(caught.value).splitlines()) == 1 and path.name in str(caught.value)


# CIFAR-10


@pytest.fixture
def cifar(tmp_path):
    x, y = images(12, 32), np.arange(12) % 10
    inner = tmp_path / INNER
    inner.mkdir()
    for name, content in cifar_batches(x, y).items():
        (inner / name).write_bytes(content)
    members = {f"{INNER}/{file.name}": file.read_bytes() for file in inner.iterdir()}
    write_tar(tmp_path / "cifar-10-python.tar.gz", members)
    return x, y, tmp_path


@pytest.mark.parametrize("where", ["cifar-10-python.tar.gz", INNER, "."])
def test_cifar_is_read_from_its_tar_and_its_folder(cifar, where):
    x, y, root = cifar
    for split, rows in (("train", slice(10)), ("test", slice(10, 12))):
        pixels, labels = read("cifar10", root / where, split)
        assert (pixels == x[rows]).all() and (labels == y[rows]).all()


def test_torchvision_reads_the_same_cifar(cifar, monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    theirs = CIFAR10(str(cifar[2]))
    pixels, labels = read("cifar10", cifar[2] / INNER)
    assert (theirs.data == pixels.transpose(0, 2, 3, 1)).all() and theirs.targets == labels.tolist()


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_of_newer_pythons_are_read_too(protocol):
    content = {"data": images(2, 32).reshape(2, -1), "labels": [1, 2], "batch_label": b"x"}
    value = unpickle(pickle.dumps(content, protocol), "a batch")
    assert (value["data"] == content["data"]).all() and value["labels"] == [1, 2]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("opened",)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps({"data": Evil()}), r"holds (posix|nt)\.mkdir, which is no array"),
        (pickle.dumps([1]), "no dictionary"),
        (b"\x80\x02}(U", "cannot be read as CIFAR-10's batches"),
        (b"no pickle", "cannot be read as CIFAR-10's batches"),
        (python2_batch(images(2, 8), [1, 2]), r"no uint8 data of shape \(n, 3072\)"),
        (python2_batch(images(2, 32), [1, 10]), "one label from 0 to 9"),
        (python2_batch(images(2, 32), [1]), "one label from 0 to 9"),
    ],
    ids=["code", "list", "cut", "text", "shape", "label", "unlabelled"],
)
def test_a_batch_that_is_none_is_refused(cifar, content, message, monkeypatch):
    monkeypatch.chdir(cifar[2])
    (cifar[2] / INNER / "data_batch_3").write_bytes(content)
    refused(cifar[2] / INNER, f"data_batch_3 in .*{message}")
    assert not (cifar[2] / "opened").exists(), "the pickle was obeyed"


def test_cifar_with_another_checksum_is_refused(cifar):
    refused(cifar[2] / "cifar-10-python.tar.gz", "has the MD5 .* not c58f3010", exact=True)
    with pytest.raises(FlowbenchError, match="data_batch_1 has the MD5"):
        open_source(CIFAR, cifar[2] / INNER, "train")
    (cifar[2] / INNER / "data_batch_2").unlink()
    with pytest.raises(FlowbenchError, match="data_batch_2 is missing"):
        open_source(CIFAR, cifar[2] / INNER, "train", exact=False)


def test_a_tar_that_is_cut_off_or_lacks_a_batch_is_refused(cifar):
    path = cifar[2] / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[:3000])
    refused(path, "cannot be read as a tar archive")
    write_tar(path, {f"{INNER}/data_batch_1": b"x"})
    refused(path, "lacks data_batch_2")


@pytest.mark.parametrize("name", ["../data_batch_1", "/data_batch_1", f"{INNER}/../../x"])
def test_a_tar_that_points_out_of_itself_is_refused(tmp_path, name):
    write_tar(tmp_path / "a.tar.gz", {name: b"x"})
    refused(tmp_path / "a.tar.gz", "points out of the archive")


def test_a_tar_with_a_link_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo(f"{INNER}/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    refused(tmp_path / "a.tar.gz", "is a link or device")


# The official downsampled ImageNet


def write_npz(path, x, y):
    np.savez_compressed(path, data=x.reshape(len(x), -1), labels=y, mean=np.zeros(3))


def test_downsampled_imagenet_is_read_in_the_order_of_its_batches(tmp_path):
    x, y = images(11, 32), np.arange(1, 12)
    for number, rows in ((1, slice(4)), (2, slice(4, 9)), (10, slice(9, 11))):
        write_npz(tmp_path / f"train_data_batch_{number}.npz", x[rows], y[rows])
    write_npz(tmp_path / "val_data.npz", x[:2], y[:2])
    pixels, labels = read("imagenet32", tmp_path)
    assert (pixels == x).all() and (labels == y - 1).all()
    assert (read("imagenet32", tmp_path / "val_data.npz", "test")[0] == x[:2]).all()
    assert (read("imagenet32", tmp_path, "test")[1] == y[:2] - 1).all()


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"data": images(2, 32).reshape(2, -1), "labels": [0, 1]}, "outside 1 to 1000"),
        ({"data": images(2, 32).reshape(2, -1), "labels": [1, 1001]}, "outside 1 to 1000"),
        ({"data": images(2, 32).reshape(2, -1), "labels": [1]}, "not one label for each"),
        ({"data": images(2, 64).reshape(2, -1), "labels": [1, 2]}, r"shape \(n, 3072\)"),
        ({"data": images(2, 32).reshape(2, -1)}, "cannot be read as npz with labels"),
        ({"data": np.array([Evil()]), "labels": [1]}, "cannot be read as npz with data"),
    ],
)
def test_npz_files_that_are_no_imagenet_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "val_data.npz", **arrays)
    refused(tmp_path / "val_data.npz", message, "imagenet32", "test")


def test_an_npz_that_is_cut_off_is_refused(tmp_path):
    write_npz(tmp_path / "val_data.npz", images(2, 32), [1, 2])
    content = (tmp_path / "val_data.npz").read_bytes()
    (tmp_path / "val_data.npz").write_bytes(content[:-200])
    refused(tmp_path / "val_data.npz", "cannot be read as npz", "imagenet32", "test")
    (tmp_path / "val_data.npz").unlink()
    refused(tmp_path, "lacks val_data.npz", "imagenet32", "test")


# Oxford Flowers


@pytest.fixture
def flowers(tmp_path):
    from scipy.io import savemat

    home = tmp_path / "flowers-102"
    x = [images(1, 10 + i)[0] for i in range(9)]
    for number, picture in enumerate(x, 1):
        (home / "jpg").mkdir(parents=True, exist_ok=True)
        (home / "jpg" / f"image_{number:05d}.jpg").write_bytes(encoded(picture, "JPEG"))
    labels = np.array([[3, 1, 102, 4, 5, 6, 7, 8, 9]], np.uint8)
    savemat(home / "imagelabels.mat", {"labels": labels})
    ids = {"trnid": [[7, 1, 4]], "valid": [[2, 3]], "tstid": [[9, 8, 5, 6]]}
    savemat(home / "setid.mat", {key: np.array(value) for key, value in ids.items()})
    return home


def test_flowers_are_those_of_torchvision(flowers, monkeypatch):
    from torchvision.datasets import Flowers102

    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)
    for split in ("train", "val", "test"):
        theirs = Flowers102(str(flowers.parent), split)
        known = {
            file.name: label
            for file, label in zip(theirs._image_files, theirs._labels, strict=True)
        }
        source = open_source(recipes.find("flowers128"), flowers.parent, split, exact=False)
        ours = dict(
            zip((name.removeprefix("jpg/") for name in source.names), source.labels, strict=True)
        )
        assert ours == known and list(ours) == sorted(ours)
    pixels, labels = read("flowers128", flowers, "all", transform="center-crop", side=128)
    assert pixels.shape == (9, 3, 128, 128)
    assert labels.tolist() == [2, 0, 101, 3, 4, 5, 6, 7, 8]


def test_flowers_that_are_damaged_are_refused(flowers):
    (flowers / "jpg" / "image_00003.jpg").unlink()
    with pytest.raises(FlowbenchError, match=r"image_00003\.jpg is missing"):
        read("flowers128", flowers, "val")
    (flowers / "imagelabels.mat").write_bytes(b"nothing")
    with pytest.raises(FlowbenchError, match=r"imagelabels\.mat cannot be read"):
        read("flowers128", flowers, "val")


# Folders


def test_a_folder_by_class_is_that_of_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    x = images(9)
    write_folder(tmp_path / "train", x, [f"n{i % 4:08d}" for i in range(9)])
    (tmp_path / "train" / "n00000001" / "._hidden.png").write_bytes(b"")
    (tmp_path / "train" / "README.txt").write_text("no image")
    (tmp_path / "train" / "n00000001" / "._hidden.png").unlink()
    theirs = ImageFolder(str(tmp_path / "train"))
    source = open_source(recipes.find("mine"), tmp_path, "train")
    assert [str(tmp_path / "train" / name) for name in source.names] == [f for f, _ in theirs.imgs]
    assert source.labels.tolist() == theirs.targets
    pixels = Pictures(source)[:]
    assert (pixels == np.stack([np.asarray(i).transpose(2, 0, 1) for i, _ in theirs])).all()


def test_folders_with_labels_in_a_file_without_any_and_hidden_files(tmp_path):
    files = write_folder(tmp_path, images(3), ["00000"] * 3)
    (tmp_path / "00000" / "._image_0000.png").write_bytes(b"no image")
    assert len(folder(tmp_path)) == 3
    pairs = [[file.relative_to(tmp_path).as_posix(), i] for i, file in enumerate(files)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": pairs}))
    assert folder(tmp_path).labels.tolist() == [0, 1, 2]
    write_folder(tmp_path / "flat", images(2), ["", ""])
    assert folder(tmp_path / "flat").labels is None


def test_splits_of_a_folder_are_named(tmp_path):
    write_folder(
        tmp_path, images(5), ["train/cat", "train/dog", "test/cat", "test/dog", "test/dog"]
    )
    afhq = recipes.find("afhq64")
    counts = {s: len(open_source(afhq, tmp_path, s, exact=False)) for s in afhq.counts}
    assert counts == {"train": 2, "test": 3, "all": 5}
    assert open_source(afhq, tmp_path, "train", exact=False).labels is None
    with pytest.raises(FlowbenchError, match=r"split by name: .*14336.*15803"):
        afhq.split(None)
    refused(tmp_path, "holds train and test: name one of them with --split", "mine", "all")
    refused(tmp_path, "holds 2 images, but this split of afhq64 has 14336", "afhq64", exact=True)


def test_folders_that_are_mislabelled_are_refused(tmp_path):
    write_folder(tmp_path / "a", images(2, 32), ["", ""])
    refused(tmp_path / "a", "has no labels, but cifar10 has 10 classes")
    write_folder(tmp_path / "b", images(2, 32), ["cat", ""])
    refused(tmp_path / "b", r"image_0001\.png lies in no class folder", "mine", "all")
    write_folder(tmp_path / "c", images(11, 32), [str(i) for i in range(11)])
    refused(tmp_path / "c", "label 10, but the classes of cifar10 are 0 to 9")
    (tmp_path / "d").mkdir()
    refused(tmp_path / "d", "holds no PNG or JPEG")
    refused(tmp_path / "e", "does not exist; cifar10 needs cifar-10-python")


# Zips


def test_a_zip_in_edms_layout(tmp_path):
    x, y = images(5, 32), [3, 1, 2, 0, 1]
    write_zip(tmp_path / "a.zip", x, y)
    pixels, labels = read("cifar10", tmp_path / "a.zip")
    assert (pixels == x).all() and labels.tolist() == y


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 1], "does not label every image: KeyError"),
        ([0, 1, 11], r"img00000002\.png .* label 11, but the classes"),
        ([0, 1, -1], r"gives 00000/img00000002\.png the label -1"),
    ],
)
def test_zips_that_are_mislabelled_are_refused(tmp_path, labels, message):
    write_zip(tmp_path / "a.zip", images(3, 32), labels)
    refused(tmp_path / "a.zip", message)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"labels": [["a.png", 0], ["b.png", 1]]}', r"labels b\.png, which is not there"),
        ('{"labels": [["a.png", 0], ["a.png", 1]]}', "which is not there once"),
        ('{"labels": [["a.png", 0.5]]}', r"label 0\.5"),
        ('{"labels": [["a.png", true]]}', "label True"),
        ('{"labels": [["a.png", [0, 1]]]}', "label"),
        ('{"labels": 3}', "does not label every image"),
        ("[]", "does not label every image"),
        ("{", "does not label every image"),
    ],
    ids=["absent", "twice", "half", "bool", "vector", "number", "list", "cut"],
)
def test_tables_of_labels_that_do_not_match_are_refused(tmp_path, text, message):
    extra = {"a.png": encoded(images(1, 32)[0]), "dataset.json": text}
    write_zip(tmp_path / "a.zip", [], extra=extra)
    refused(tmp_path / "a.zip", message)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "..\\a.png", "C:\\a.png"])
def test_a_zip_that_points_out_of_itself_is_refused(tmp_path, name):
    write_zip(tmp_path / "a.zip", images(1, 32), extra={name: b""})
    refused(tmp_path / "a.zip", "points out of the archive")


def test_what_is_no_zip_of_images_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"no zip at all")
    refused(path, "cannot be read as a zip archive")
    write_zip(path, [], extra={"a.txt": "x"})
    refused(path, "holds no PNG or JPEG")
    write_zip(path, images(4, 32), [0] * 4)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "cannot be read as a zip archive")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as twice:
        twice.writestr("a.png", b"")
        twice.writestr("a.png", b"")
    refused(path, "two members of one name")


# Pixels


def test_damaged_and_odd_images_are_named(tmp_path):
    good = images(1, 32)[0]
    png, jpeg = encoded(good), encoded(good, "JPEG")
    deep = io.BytesIO()
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(deep, "PNG")
    cases = {
        "a.png": (png[:-400], "cannot be read"),
        "b.jpg": (jpeg[:-400], "cannot be read"),
        "c.png": (b"broken", "cannot be read"),
        "d.png": (deep.getvalue(), "more than 8 bits"),
        "e.png": (encoded(images(1, 33)[0]), "is 33x33, not 32x32"),
        "f.png": (png[:60] + b"\0" * 40 + png[100:], "cannot be read"),
    }
    for name, (content, message) in cases.items():
        write_zip(tmp_path / "a.zip", [], extra={"0.png": png, name: content})
        source = zipped(tmp_path / "a.zip")
        with pytest.raises(FlowbenchError, match=f"^{name} in .*a.zip .*{message}"):
            Pictures(source, "none", 32)[:]


def test_images_of_several_sizes_need_a_transform(tmp_path):
    write_folder(tmp_path, [*images(2), images(1, 9)[0]], [""] * 3)
    with pytest.raises(FlowbenchError, match=r"image_0002\.png .* \(3, 9, 9\), .* transform"):
        Pictures(folder(tmp_path))[:]
    assert Pictures(folder(tmp_path), "resize", 4)[:].shape == (3, 3, 4, 4)
    wide = np.zeros((3, 8, 9), np.uint8)
    (tmp_path / "image_0001.png").write_bytes(encoded(wide))
    with pytest.raises(FlowbenchError, match=r"image_0001\.png .* 9x8 is not square"):
        Pictures(folder(tmp_path), "resize", 4)[:]


def test_every_mode_becomes_rgb_and_grey_sets_stay_grey(tmp_path):
    grey = images(1)[0, 0]
    modes = ["RGB", "L", "P", "RGBA", "1"]
    pictures = [Image.fromarray(grey).convert(mode) for mode in modes]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    pictures.append(Image.fromarray(grey).convert("CMYK"))
    pictures[-1].save(tmp_path / "5.jpg", quality=100)
    pixels = Pictures(folder(tmp_path))[:]
    assert pixels.shape == (6, 3, 8, 8)
    for row in (0, 1, 2, 3):
        assert (pixels[row] == grey).all()
    assert (pixels[4] == np.asarray(pictures[4].convert("L"))).all()
    for number in (0, 2, 3, 5):
        (tmp_path / f"{number}.{'jpg' if number == 5 else 'png'}").unlink()
    assert Pictures(folder(tmp_path))[:].shape == (2, 1, 8, 8)
    Image.fromarray(grey).convert("RGB").save(tmp_path / "7.png")
    with pytest.raises(FlowbenchError, match=r"7\.png .* in colour, but the first image is grey"):
        Pictures(folder(tmp_path))[:]


KERNELS = {
    "box": (0.5, lambda x: ((x > -0.5) & (x <= 0.5)).astype(float)),
    "bicubic": (
        2.0,
        lambda x: np.where(
            np.abs(x) < 1,
            1.5 * np.abs(x) ** 3 - 2.5 * x**2 + 1,
            np.where(np.abs(x) < 2, -0.5 * np.abs(x) ** 3 + 2.5 * x**2 - 4 * np.abs(x) + 2, 0.0),
        ),
    ),
    "lanczos": (3.0, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)),
}


def weights(old, new, name):
    """The matrix (new, old) that resamples a line with an antialiased kernel."""
    support, kernel = KERNELS[name]
    stretch = max(old / new, 1.0)
    centres = (np.arange(new)[:, None] + 0.5) * (old / new)
    columns = np.arange(old)
    reach = support * stretch
    # In this order: where a pixel lies on the very edge of a box, rounding decides.
    table = kernel((columns - centres + 0.5) * (1 / stretch))
    inside = (columns >= np.trunc(centres - reach + 0.5)) & (
        columns < np.trunc(centres + reach + 0.5)
    )
    table = table * inside
    return table / table.sum(1, keepdims=True)


def resampled(x, height, width, name):
    """x (H, W, C) resampled: rows of pixels first, then columns, rounded after each."""
    wide = nearest(np.einsum("wx,hxc->hwc", weights(x.shape[1], width, name), x))
    return nearest(np.einsum("hy,ywc->hwc", weights(x.shape[0], height, name), wide))


def nearest(x):
    return np.floor(x.clip(0, 255) + 0.5 + 1e-9)


def middle(x, height, width):
    top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
    return x[top : top + height, left : left + width]


def smooth(height, width):
    """A picture with large and small structure, (H, W, 3)."""
    rough = np.random.default_rng(height).integers(0, 256, (height, width, 3)) * 0.3
    wave = 90 + 80 * np.sin(np.add.outer(np.arange(height) / 9, np.arange(width) / 5))
    return (rough + wave[:, :, None]).clip(0, 255).astype(np.uint8)


ODD = [(75, 101), (101, 75), (64, 64), (33, 40), (131, 149), (20, 31), (16, 200)]


@pytest.mark.parametrize("size", ODD)
def test_edms_crop_is_the_middle_square_by_lanczos(size):
    x = smooth(*size)
    square = middle(x, min(size), min(size))
    theirs = resampled(square, 16, 16, "lanczos")
    ours = np.asarray(center_crop(Image.fromarray(x), 16)).astype(float)
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("size", ODD)
def test_adms_crop_halves_by_boxes_then_goes_to_size_by_bicubic(size):
    x = smooth(*size).astype(float)
    ours = np.asarray(dhariwal_crop(Image.fromarray(smooth(*size)), 16)).astype(float)
    while min(x.shape[:2]) >= 32:
        x = resampled(x, x.shape[0] // 2, x.shape[1] // 2, "box")
    factor = 16 / min(x.shape[:2])
    x = resampled(x, round(x.shape[0] * factor), round(x.shape[1] * factor), "bicubic")
    theirs = middle(x, 16, 16)
    assert ours.shape == (16, 16, 3)
    assert np.abs(ours - theirs).max() <= 1
    edm = np.asarray(center_crop(Image.fromarray(smooth(*size)), 16)).astype(float)
    if size != (16, 200):
        assert np.abs(edm - theirs).max() > 4, "the two transforms are told apart"


def test_resize_is_lanczos_and_none_of_them_changes_the_final_size():
    x = smooth(50, 50)
    ours = np.asarray(resize(Image.fromarray(x), 16)).astype(float)
    assert np.abs(ours - resampled(x, 16, 16, "lanczos")).max() <= 1
    for transform in (resize, center_crop, dhariwal_crop):
        assert (np.asarray(transform(Image.fromarray(x), 50)) == x).all()


def test_known_sets_have_one_size_and_transform():
    with pytest.raises(FlowbenchError, match="another data set, so give it another name"):
        recipes.find("imagenet64", transform="resize")
    with pytest.raises(FlowbenchError, match="needs --resolution"):
        recipes.find("mine", transform="resize")
    with pytest.raises(FlowbenchError, match="--resolution needs --transform"):
        recipes.find("mine", side=64)
    assert recipes.find("mine", 64, "resize").side == 64
    with pytest.raises(FlowbenchError, match="has no split 'val'"):
        recipes.find("cifar10").split("val")
    flowers = recipes.find("flowers128").counts
    afhq = recipes.find("afhq64").counts
    for counts in (flowers, afhq):
        assert sum(n for name, n in counts.items() if name != "all") == counts["all"]
