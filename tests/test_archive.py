"""Prepared image sets: found, decoded once, mapped and measured once, refused when damaged."""

import os

import numpy as np
import pytest
from picture_files import encoded, images, write_folder, write_zip

from flowbench import cache
from flowbench.data import archive as module
from flowbench.data.archive import archive, by_path
from flowbench.data.base import Arrays, load, measure
from flowbench.data.pictures import Pictures
from flowbench.records import Absent, FlowbenchError, RunFailed

STEM = "cifar10-32x32"


def find(root):
    return archive(root, "cifar10", STEM)


def write_arrays(path, x, y=None):
    path.mkdir()
    np.save(path / "images.npy", x)
    if y is not None:
        np.save(path / "labels.npy", np.array(y))


def test_an_archive_in_edms_layout(tmp_path):
    x, y = images(5), [3, 1, 2, 0, 1]
    write_zip(tmp_path / f"{STEM}-train.zip", x, y)
    write_zip(tmp_path / f"{STEM}-test.zip", x[:2], y[:2])
    arrays = find(tmp_path)
    assert isinstance(arrays.train, np.memmap) and isinstance(arrays.test, np.memmap)
    data = load("cifar10", arrays, "cpu")
    assert (data.train.values.numpy() == x).all()
    assert data.train.labels.tolist() == y and data.classes == 10
    assert (data.test.values.numpy() == x[:2]).all() and data.test.labels.tolist() == y[:2]


def test_an_archive_without_labels_or_held_out_images(tmp_path):
    write_zip(tmp_path / f"{STEM}.zip", images(3))
    data = load("cifar10", find(tmp_path), "cpu")
    assert data.classes == 0 and data.train.labels is None and data.test is None


@pytest.mark.parametrize("form", ["zip", "array", "folder"])
def test_the_facts_are_those_of_the_pixels_in_every_form(tmp_path, form):
    x, y = images(6), np.arange(6) % 3
    path = tmp_path / ("x.zip" if form == "zip" else "x")
    if form == "zip":
        write_zip(path, x, y)
    elif form == "array":
        write_arrays(path, x, y)
    else:
        write_folder(path, np.concatenate([x[0::3], x[1::3], x[2::3]]), sorted("abcabc"))
        x, y = np.concatenate([x[0::3], x[1::3], x[2::3]]), np.sort(y)
    arrays = by_path(path)
    assert arrays.facts == measure(Arrays(x, None, y)) and arrays.classes == 3
    assert (arrays.train == x).all() and (arrays.labels == y).all()
    assert load("x", arrays, "cpu").sha256 == load("x", Arrays(x, None, y), "cpu").sha256


def test_a_set_is_decoded_and_measured_once_for_each_state_of_its_file(tmp_path, monkeypatch):
    path, counts = tmp_path / "a.zip", {"decoded": 0, "measured": 0}
    pixels, measured = Pictures.pixels, module.measure

    def count(what, function):
        def counted(*words):
            counts[what] += 1
            return function(*words)

        return counted

    monkeypatch.setattr(Pictures, "pixels", count("decoded", pixels))
    monkeypatch.setattr(module, "measure", count("measured", measured))
    write_zip(path, images(4))
    first = by_path(path)
    seen = dict(counts)
    assert seen["measured"] == 1 and seen["decoded"] >= 4
    again = by_path(path)
    assert counts == seen and again.facts == first.facts and (again.train == first.train).all()
    write_zip(path, images(4, seed=1))
    os.utime(path, ns=(10**18, 10**18))
    other = by_path(path)
    assert counts["measured"] == 2 and other.facts.sha256 != first.facts.sha256
    assert (other.train == images(4, seed=1)).all() and (first.train == images(4)).all()
    assert len([p for p in cache.folder("decoded").glob("a-*/*") if p.is_dir()]) == 1


def test_what_is_written_into_a_mapped_image_stays_in_memory(tmp_path):
    write_arrays(tmp_path / "x", images(2))
    by_path(tmp_path / "x").train[:] = 7
    assert (by_path(tmp_path / "x").train == images(2)).all()


def test_damaged_facts_are_measured_anew(tmp_path):
    write_arrays(tmp_path / "x", images(2))
    facts = by_path(tmp_path / "x").facts
    (kept,) = cache.folder("facts").iterdir()
    kept.write_text("{")
    assert by_path(tmp_path / "x").facts == facts


def test_a_decoding_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    from flowbench.data import rows

    monkeypatch.setattr(rows, "CHUNK", 2)
    write_zip(tmp_path / "a.zip", images(7), [0] * 7)

    def stop(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_path(tmp_path / "a.zip", stop)
    steps = []
    arrays = by_path(tmp_path / "a.zip", lambda p: steps.append(p.step))
    assert steps[:2] == [6, 7], "the first four were there"
    assert (arrays.train == images(7)).all()


def test_a_full_cache_is_told_in_a_line(tmp_path, monkeypatch):
    from flowbench.data import rows

    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows, "write", full)
    write_zip(tmp_path / "a.zip", images(2))
    with pytest.raises(RunFailed, match=r"a\.zip cannot be decoded into .*FLOWBENCH_CACHE"):
        by_path(tmp_path / "a.zip")


def test_arrays_and_zips_are_found_under_their_stem(tmp_path):
    with pytest.raises(Absent, match=r"cifar10 needs .*has neither"):
        find(tmp_path)
    write_arrays(tmp_path / f"{STEM}-train", images(3, seed=1))
    assert (find(tmp_path).train == images(3, seed=1)).all()
    write_arrays(tmp_path / f"{STEM}-test", images(2))
    assert len(find(tmp_path).test) == 2
    write_zip(tmp_path / f"{STEM}.zip", images(4))
    assert len(find(tmp_path).train) == 4 and len(find(tmp_path).test) == 2


def test_images_of_the_whole_set_are_not_held_out_of_it(tmp_path):
    write_zip(tmp_path / f"{STEM}.zip", images(4), extra={"flowbench.json": '{"split": "all"}'})
    write_zip(tmp_path / f"{STEM}-test.zip", images(2))
    assert find(tmp_path).test is None


def test_sets_without_classes_have_none_whatever_an_archive_calls_labels(tmp_path):
    write_zip(tmp_path / "afhqv2-64x64.zip", images(4), [0, 0, 1, 1])
    labelled = by_path(tmp_path / "afhqv2-64x64.zip")
    arrays = archive(tmp_path, "afhq64", "afhqv2-64x64")
    assert labelled.classes == 2 and arrays.classes == 0 and arrays.labels is None
    assert arrays.facts == measure(Arrays(images(4))) != labelled.facts


@pytest.mark.parametrize(
    "train, test, message",
    [
        (images(3), images(2, 9), "two shapes"),
        ((images(3), [0, 1, 0]), images(2), "has labels, the other has none"),
    ],
)
def test_splits_that_do_not_belong_together_are_refused(tmp_path, train, test, message):
    write_zip(tmp_path / f"{STEM}.zip", *(train if isinstance(train, tuple) else (train,)))
    write_zip(tmp_path / f"{STEM}-test.zip", test)
    with pytest.raises(FlowbenchError, match=message):
        find(tmp_path)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (images(3).astype(np.float32), None, "no uint8 images"),
        (images(3)[0], None, "no uint8 images"),
        (np.array([{}], object), None, "cannot be read as a NumPy array"),
        (images(3), [0, 1], "not one label from 0 for each image"),
        (images(3), [0, -1, 1], "not one label from 0 for each image"),
        (images(3), [0.0, 1.0, 2.0], "not one label from 0 for each image"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, x, y, message):
    write_arrays(tmp_path / "x", x, y)
    with pytest.raises(FlowbenchError, match=rf"x/(images|labels)\.npy .*{message}"):
        by_path(tmp_path / "x")


def test_an_array_that_is_cut_off_and_paths_where_nothing_is(tmp_path):
    write_arrays(tmp_path / "x", images(3))
    file = tmp_path / "x" / "images.npy"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(FlowbenchError, match=r"images\.npy cannot be read"):
        by_path(tmp_path / "x")
    with pytest.raises(Absent, match="does not exist"):
        by_path(tmp_path / "y")


def test_a_damaged_image_is_named_and_nothing_of_the_set_is_used(tmp_path):
    good = encoded(images(1)[0])
    write_zip(tmp_path / "a.zip", images(2), extra={"00000/img1.png": b"broken"})
    for _ in range(2):
        with pytest.raises(FlowbenchError, match=r"img1\.png .* cannot be read"):
            by_path(tmp_path / "a.zip")
    write_zip(tmp_path / "a.zip", images(2), extra={"00000/img1.png": good})
    os.utime(tmp_path / "a.zip", ns=(10**18, 10**18))
    assert len(by_path(tmp_path / "a.zip").train) == 3


def test_a_known_set_has_its_classes_whatever_a_trial_holds(tmp_path):
    write_zip(tmp_path / "cifar10-32x32.zip", images(3, 32), [0, 1, 2])
    assert archive(tmp_path, "cifar10", "cifar10-32x32").classes == 10
    write_zip(tmp_path / "imagenet-32x32.zip", images(3, 32), [0, 1, 1000])
    with pytest.raises(FlowbenchError, match="a label 1000, and imagenet32 has 1000 classes"):
        archive(tmp_path, "imagenet32", "imagenet-32x32")
