"""Preparing image sets: forms that agree, the same bytes after any crash, `flowbench data`."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from picture_files import (
    cifar_batches,
    encoded,
    images,
    write_folder,
    write_tar,
    write_zip,
)
from PIL import Image

from flowbench.data import recipes, rows
from flowbench.data.archive import archive, by_path
from flowbench.data.base import Arrays, measure
from flowbench.data.pictures import Pictures, center_crop
from flowbench.data.prepare import Order, prepare
from flowbench.data.verify import check
from flowbench.records import FlowbenchError, RunFailed

MINE = recipes.find("mine", 8, "center-crop")


@pytest.fixture
def source(tmp_path):
    """23 pictures of odd sizes in three classes."""
    sizes = np.random.default_rng(0).integers(9, 40, (23, 2))
    pictures = [np.random.default_rng(i).integers(0, 256, (3, *s)) for i, s in enumerate(sizes)]
    path = tmp_path / "source"
    write_folder(path, [p.astype(np.uint8) for p in pictures], [f"c{i % 3}" for i in range(23)])
    return path


def order(source, output, **words):
    return Order(MINE, source, output, **words)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_zip_is_edms_layout_with_the_pixels_of_the_transform(source, tmp_path):
    target, facts = prepare(order(source, tmp_path / "out"))
    assert target == tmp_path / "out" / "mine.zip"
    files = sorted(source.rglob("*.png"))
    with zipfile.ZipFile(target) as zipped:
        names = zipped.namelist()
        labels = json.loads(zipped.read("dataset.json"))["labels"]
        assert json.loads(zipped.read("flowbench.json")) == facts
        assert {info.compress_type for info in zipped.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time[0] for info in zipped.infolist()} == {1980}, "no time of writing"
        for number, file in enumerate(files):
            name = f"00000/img{number:08d}.png"
            assert names[number] == name and labels[number] == [name, int(file.parent.name[1])]
            with zipped.open(name) as stream, Image.open(stream) as ours, Image.open(file) as whole:
                assert ours.format == "PNG" and ours.tobytes() == center_crop(whole, 8).tobytes()
    assert zipfile.ZipFile(target).getinfo(names[0]).file_size > 8 * 8 * 3, "not compressed"
    assert (facts["n"], facts["shape"], facts["classes"]) == (23, [3, 8, 8], 3)
    assert (facts["transform"], facts["filter"]) == ("center-crop", "Lanczos")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine.zip"]


def test_all_forms_and_numbers_of_threads_give_one_hash(source, tmp_path):
    target, facts = prepare(order(source, tmp_path / "a"))
    parallel, _ = prepare(order(source, tmp_path / "b", jobs=3))
    assert digest(target) == digest(parallel)
    folder, array = prepare(order(source, tmp_path / "c", form="array", jobs=2))
    assert array["sha256"] == facts["sha256"]
    assert sorted(p.name for p in folder.iterdir()) == [
        *["flowbench.json", "images.npy", "labels.npy"]
    ]
    x, y = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    assert measure(Arrays(x, None, y)).sha256 == facts["sha256"]
    for path in (target, folder):
        arrays = by_path(path)
        assert arrays.facts.sha256 == facts["sha256"] and arrays.facts.std == facts["std"]
        assert (arrays.train == x).all() and (arrays.labels == y).all()


def test_threads_decode_as_one_does(source, monkeypatch):
    from flowbench.data import pictures
    from flowbench.data.sources import folder

    monkeypatch.setattr(pictures, "TILE", 2)
    whole = Pictures(folder(source), "center-crop", 8)
    with whole.threads(4) as parallel:
        assert (parallel[3:20] == Pictures(folder(source), "center-crop", 8)[3:20]).all()


@pytest.mark.parametrize("form", ["zip", "array"])
@pytest.mark.parametrize("chunks", [0, 1, 4])
def test_an_interruption_costs_a_chunk_and_changes_no_byte(
    source, tmp_path, monkeypatch, form, chunks
):
    monkeypatch.setattr(rows, "CHUNK", 4)
    undisturbed, _ = prepare(order(source, tmp_path / "a", form=form))

    def stop(progress):
        if progress.stage.startswith("decode") and progress.step == 4 * (chunks + 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order(source, tmp_path / "b", form=form), stop)
    decoded = []
    pixels = Pictures.pixels
    monkeypatch.setattr(
        Pictures, "pixels", lambda self, name: decoded.append(name) or pixels(self, name)
    )
    disturbed, _ = prepare(order(source, tmp_path / "b", form=form))
    assert len(decoded) == 23 - 4 * (chunks + 1) + 1, "the rest, and one for the shape"
    pairs = [(undisturbed, disturbed)]
    if form == "array":
        pairs = [(undisturbed / p.name, disturbed / p.name) for p in undisturbed.iterdir()]
    assert pairs and all(digest(a) == digest(b) for a, b in pairs)
    assert len(list((tmp_path / "b").iterdir())) == 1


def test_a_source_that_changed_meanwhile_is_begun_anew(source, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 4)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(order(source, tmp_path / "a"), stop)
    first = min(source.rglob("*.png"))
    other, size = encoded(images(1, 9, seed=9)[0]), first.stat().st_size
    first.write_bytes(other + bytes(size - len(other)))
    os.utime(first, ns=(10**18, 10**18))
    target, _ = prepare(order(source, tmp_path / "a"))
    with Image.open(first) as image:
        theirs = np.asarray(center_crop(image, 8)).transpose(2, 0, 1)
    assert (by_path(target).train[0] == theirs).all()


KILLED = """
import sys, time
from pathlib import Path
from flowbench.data import recipes, rows
from flowbench.data.prepare import Order, prepare
rows.CHUNK = 4
source, output = map(Path, sys.argv[1:])
prepare(Order(recipes.find("mine", 8, "center-crop"), source, output), lambda p: time.sleep(0.2))
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing(source, tmp_path, monkeypatch):
    words = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "b")]
    process = subprocess.Popen(words)
    while not any(p.read_text() in ("8", "12") for p in (tmp_path / "b").rglob(rows.DONE)):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setattr(rows, "CHUNK", 4)
    steps = []
    disturbed, _ = prepare(order(source, tmp_path / "b"), lambda p: steps.append(p.step))
    assert steps[0] in (12, 16)
    assert digest(disturbed) == digest(prepare(order(source, tmp_path / "a"))[0])


def test_the_same_order_again_does_nothing_and_another_is_refused(source, tmp_path):
    target, facts = prepare(order(source, tmp_path))
    before = target.stat().st_mtime_ns
    steps = []
    assert prepare(order(source, tmp_path), steps.append) == (target, facts)
    assert target.stat().st_mtime_ns == before and steps == []
    other = recipes.find("mine", 8, "center-crop-dhariwal")
    with pytest.raises(FlowbenchError, match=r"made otherwise .*center-crop-dhariwal, not center"):
        prepare(Order(other, source, tmp_path))
    write_zip(target, images(3))
    with pytest.raises(FlowbenchError, match="was not made by this command"):
        prepare(order(source, tmp_path))


def test_two_processes_do_not_prepare_one_set(source, tmp_path):
    from filelock import FileLock

    part = tmp_path / "mine.zip.part"
    part.mkdir()
    with FileLock(part / "lock"), pytest.raises(FlowbenchError, match="another process prepares"):
        prepare(order(source, tmp_path))


def test_a_full_disk_is_told_in_a_line(source, tmp_path, monkeypatch):
    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows, "write", full)
    with pytest.raises(RunFailed, match=r"mine\.zip cannot be written: .*No space left"):
        prepare(order(source, tmp_path))
    monkeypatch.undo()
    assert prepare(order(source, tmp_path))[1]["n"] == 23


def test_a_trial_takes_images_at_equal_distances_under_a_name_of_its_own(source, tmp_path):
    target, facts = prepare(order(source, tmp_path, limit=5, form="array"))
    assert target.name == "mine-limit5" and facts["n"] == 5
    whole, _ = prepare(order(source, tmp_path, form="array"))
    pick = np.arange(5) * 23 // 5
    assert (np.load(target / "images.npy") == np.load(whole / "images.npy")[pick]).all()
    assert (np.load(target / "labels.npy") == np.load(whole / "labels.npy")[pick]).all()


def test_lossy_sources_are_noted_and_never_lost_again(tmp_path):
    grey = [np.full((3, 32, 32), 40 * i, np.uint8) for i in range(4)]
    write_folder(tmp_path / "small", grey, "aabb", "JPEG")
    cifar = recipes.find("cifar10")
    target, facts = prepare(Order(cifar, tmp_path / "small", tmp_path, exact=False))
    assert facts["remark"] == "source is lossy JPEG" and target.name == "cifar10-32x32-train.zip"
    assert (by_path(target).train == by_path(tmp_path / "small").train).all()
    large = [np.zeros((3, 70, 80), np.uint8)] * 2
    write_folder(tmp_path / "large", large, "ab", "JPEG")
    imagenet = recipes.find("imagenet64")
    facts = prepare(Order(imagenet, tmp_path / "large", tmp_path, exact=False))[1]
    assert facts["remark"] == ""


def test_a_zip_of_a_known_set_is_taken_at_its_final_size_only(tmp_path):
    write_zip(tmp_path / "a.zip", images(3, 64), [0, 999, 5])
    imagenet = recipes.find("imagenet64")
    target, facts = prepare(Order(imagenet, tmp_path / "a.zip", tmp_path / "out", exact=False))
    assert facts["transform"] == "none" and (by_path(target).train == images(3, 64)).all()
    write_zip(tmp_path / "b.zip", images(3, 65), [0, 999, 5])
    with pytest.raises(FlowbenchError, match="is 65x65, not 64x64"):
        prepare(Order(imagenet, tmp_path / "b.zip", tmp_path / "out2", exact=False))


def test_a_damaged_set_is_found_out(source, tmp_path):
    target, facts = prepare(order(source, tmp_path / "a"))
    folder, _ = prepare(order(source, tmp_path / "b", form="array"))
    assert check(target)["sha256"] == check(folder)["sha256"] == facts["sha256"]
    arrays = np.load(folder / "images.npy", mmap_mode="r+")
    arrays[3, 1, 2, 2] ^= 1
    arrays.flush()
    with pytest.raises(FlowbenchError, match="not what its manifest says: sha256 is"):
        check(folder)
    content = bytearray(target.read_bytes())
    content[5000] ^= 1
    target.write_bytes(content)
    with pytest.raises(FlowbenchError, match=r"img\d+\.png in .* cannot be read"):
        check(target)
    pixels = np.load(folder / "images.npy")
    np.save(folder / "images.npy", pixels[:-1])
    np.save(folder / "labels.npy", np.load(folder / "labels.npy")[:-1])
    with pytest.raises(FlowbenchError, match="n is 22, not 23"):
        check(folder)


def test_a_set_without_a_manifest_is_held_against_the_published_count(tmp_path):
    write_zip(tmp_path / "cifar10-32x32.zip", images(3, 32))
    assert check(tmp_path / "cifar10-32x32.zip")["manifest"] is False
    with pytest.raises(FlowbenchError, match="holds 3 images, but cifar10 has 50000"):
        check(tmp_path / "cifar10-32x32.zip", recipes.find("cifar10"))


# The commands


def write_cifar(path):
    x, y = images(12, 32), np.arange(12) % 10
    batches = cifar_batches(x, y).items()
    write_tar(path, {f"cifar-10-batches-py/{name}": content for name, content in batches})
    return x, y


def test_prepare_check_and_list(flowbench, tmp_path):
    x, y = write_cifar(tmp_path / "cifar-10-python.tar.gz")
    words = ["data", "prepare", "cifar10", "--source", str(tmp_path / "cifar-10-python.tar.gz")]
    words += ["--output", str(tmp_path), "--jobs", "2", "--check"]
    code, output = flowbench(*words)
    assert code == 2 and "has the MD5" in output and len(output.strip().splitlines()) == 1
    for split in ("train", "test"):
        code, output = flowbench(*words, "--split", split, "--allow-other-count")
        assert code == 0 and "as its manifest says" in output, output
    arrays = archive(tmp_path, "cifar10", "cifar10-32x32")
    assert (arrays.train == x[:10]).all() and (arrays.test == x[10:]).all()
    assert (arrays.labels == y[:10]).all() and arrays.classes == 10
    code, output = flowbench("data", "check", "cifar10", "--data-root", str(tmp_path), "-q")
    assert code == 0 and output.count("as its manifest says") == 2
    code, output = flowbench("data", "list", "--data-root", str(tmp_path))
    assert code == 0 and "cifar10-32x32-train.zip, cifar10-32x32-test.zip; source" in output
    assert all(name in output for name in recipes.RECIPES)


@pytest.mark.parametrize(
    "words, message",
    [
        (["prepare", "../x", "--source", "."], "is no name for a data set"),
        (["prepare", "digits", "--source", "."], "digits comes with flowbench"),
        (["prepare", "mine", "--source", "nowhere"], "nowhere does not exist"),
        (["prepare", "afhq64", "--source", "."], "needs the split by name"),
        (["prepare", "ffhq64", "--source", ".", "--resolution", "32"], "give it another name"),
        (["check", "nothing"], "is none of cifar10"),
        (["check", "cifar10"], "is not prepared"),
        (["download", "imagenet64"], "register .*flowbench data prepare imagenet64 --source PATH"),
    ],
)
def test_wrong_words_get_one_line(flowbench, words, message, tmp_path, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    code, output = flowbench("data", *words)
    assert code == 2 and re.search(message, output), output
    assert len(output.strip().splitlines()) == 1 and list(tmp_path.iterdir()) == []


@pytest.fixture
def server(tmp_path):
    """The URL of a server of the files in `tmp_path`."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_download_fetches_by_torchvision_and_prepares(flowbench, tmp_path, monkeypatch, server):
    from torchvision.datasets import CIFAR10

    file = tmp_path / "published.tar.gz"
    x, _ = write_cifar(file)
    monkeypatch.setattr(CIFAR10, "url", f"{server}/{file.name}")
    words = ["data", "download", "cifar10", "--output", str(tmp_path / "out"), "-q"]
    code, output = flowbench(*words)
    assert code == 3 and "download of cifar10 failed" in output, "the checksum is another"
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(file.read_bytes()).hexdigest())
    code, output = flowbench(*words)
    assert code == 2 and "holds 10 images, but this split of cifar10 has 50000" in output
    known = recipes.RECIPES["cifar10"]
    monkeypatch.setitem(known.counts, "train", 10)
    monkeypatch.setitem(known.counts, "test", 2)
    code, output = flowbench(*words)
    assert code == 0 and (by_path(tmp_path / "out/cifar10-32x32-train.zip").train == x[:10]).all()


def test_listing_image_sets_imports_nothing_slow():
    code = "import sys; from flowbench.cli import cli; cli(['data', 'list'], standalone_mode=False)"
    code += "; sys.exit(bool({'torch', 'PIL', 'torchvision', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).returncode == 0
