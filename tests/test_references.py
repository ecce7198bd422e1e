"""Reference statistics: made once, resumed, guarded against damage; and their commands."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_extractor import DIMS, Fake, features_of

from flowbench import cache, checkpoints, cli
from flowbench.data.base import Split, scattered, spread
from flowbench.metrics import extractors, reference_building
from flowbench.metrics.references import build, built, facts, find_built, read
from flowbench.records import FlowbenchError, RunFailed

N = 103
IMAGES = torch.randint(0, 256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
SPLIT = Split(IMAGES, None, "cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Shards of 20 images in blocks of 8."""
    monkeypatch.setattr(reference_building, "SHARD", 20)
    monkeypatch.setattr(reference_building, "SHARDS", 10)
    monkeypatch.setattr(reference_building, "BLOCK", 8)


def make(extractor, rows=None, data="d" * 64, split="train", **more):
    return build(SPLIT, data, split, extractor, rows, label="tiny", **more)


def agrees(reference, rows=N):
    """Whether a reference is that of these rows, by NumPy."""
    truth = features_of(IMAGES[scattered(N, rows)]).numpy()
    np.testing.assert_allclose(reference.pool.mean, truth.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        reference.pool.covariance, np.cov(truth, rowvar=False), rtol=1e-4, atol=1e-5
    )
    return reference.n == rows


def test_statistics_are_those_of_the_chosen_rows():
    whole, some = make(Fake()), make(Fake(), rows=50)
    assert agrees(whole) and agrees(some, 50)
    np.testing.assert_allclose(whole.features, features_of(IMAGES), atol=1e-4)
    spatial = features_of(IMAGES)[:, :4].square().numpy()
    np.testing.assert_allclose(whole.spatial.mean, spatial.mean(0), rtol=1e-5)
    np.testing.assert_allclose(whole.spatial.covariance, np.cov(spatial, rowvar=False), rtol=1e-3)
    with pytest.raises(AssertionError):
        agrees(some)


def test_features_are_kept_at_equal_distances(monkeypatch):
    monkeypatch.setattr(reference_building, "KEPT", 10)
    found = make(Fake(spatial=False))
    assert agrees(found) and found.spatial is None and found.features.dtype == torch.float32
    np.testing.assert_allclose(found.features, features_of(IMAGES[spread(N, 10)]), atol=1e-4)


def test_large_sets_are_made_in_few_shards(monkeypatch):
    monkeypatch.setattr(reference_building, "SHARDS", 2)
    with pytest.raises(KeyboardInterrupt):
        make(Fake(fail_after=100))
    assert [path.name for path in shards()] == ["rows-00000000-00000052.safetensors"]


def test_it_is_made_once_for_the_same_facts():
    first, again = make(Fake()), Fake()
    found = make(again)
    assert again.images == 0 and torch.equal(found.pool.covariance, first.pool.covariance)
    assert torch.equal(found.features, first.features) and found.facts == first.facts
    path = find_built(facts("d" * 64, "train", N, again.protocol))
    assert torch.equal(read(path).pool.mean, first.pool.mean)
    assert [header["label"] for _, header in built()] == ["tiny"] and not shards()


@pytest.mark.parametrize("change", [{"rows": 50}, {"data": "e" * 64}, {"split": "test"}])
def test_other_facts_are_another_reference(change):
    make(Fake())
    other = Fake()
    make(other, **change)
    assert other.images == change.get("rows", N)


def test_another_extractor_is_another_reference():
    make(Fake())
    other = Fake(seed=1)
    make(other)
    assert other.images == N
    assert find_built(facts("d" * 64, "train", N, Fake(seed=2).protocol)) is None


def shards():
    return sorted(cache.folder("references").glob("*/rows-*"))


def interrupted(after=50):
    with pytest.raises(KeyboardInterrupt):
        make(Fake(fail_after=after))


def test_an_interrupted_build_goes_on():
    interrupted()
    rest, told = Fake(), []
    assert agrees(make(rest, watch=told.append))
    assert rest.images == N - 40 and not shards()
    assert told[-1].step == told[-1].steps == N
    whole = make(Fake(), data="e" * 64)
    assert torch.equal(whole.pool.covariance, make(Fake()).pool.covariance)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", [damage, lambda p: p.write_bytes(p.read_bytes()[:100])])
def test_a_damaged_shard_is_made_anew_with_a_note(how):
    interrupted()
    how(shards()[0])
    rest, notes = Fake(), []
    assert agrees(make(rest, note=notes.append))
    assert rest.images == N - 20 and len(notes) == 1 and "made anew" in notes[0]


def test_damage_would_pass_unseen_without_the_checksums(monkeypatch):
    monkeypatch.setattr(reference_building, "checksum", lambda tensors: "")
    monkeypatch.setattr(checkpoints, "_checksum", lambda header, tensors: "")
    interrupted()
    damage(shards()[0])
    rest, notes = Fake(), []
    make(rest, note=notes.append)
    assert rest.images == N - 40 and not notes


def test_a_damaged_reference_is_refused_and_made_anew():
    wanted = make(Fake()).facts
    damage(find_built(wanted))
    with pytest.raises(FlowbenchError, match="damaged"):
        read(find_built(wanted))
    again, notes = Fake(), []
    assert agrees(make(again, note=notes.append))
    assert again.images == N and "made anew" in notes[0]


def test_another_process_is_waited_for():
    from filelock import FileLock

    make(Fake())
    [path] = [path for path, _ in built()]
    waiting, told = threading.Event(), Fake()
    lock = FileLock(path.parent.with_suffix(".lock"))
    with lock:
        thread = threading.Thread(
            target=make, args=(told,), kwargs={"note": lambda t: waiting.set()}
        )
        thread.start()
        assert waiting.wait(10) and thread.is_alive()
    thread.join(10)
    assert not thread.is_alive() and told.images == 0


def test_no_more_than_a_block_is_held():
    extractor = Fake()
    make(extractor)
    assert extractor.images == N and 0 < extractor.most_alive <= 8 + 8
    hoard = Fake()
    held = [hoard(part) for part in IMAGES.split(8)]
    assert len(held) == 13 and hoard.most_alive == N


def test_what_is_no_image_or_not_finite_is_refused():
    with pytest.raises(FlowbenchError, match="are no images"):
        build(Split(torch.zeros(9, 2), None, "cpu"), "d", "train", Fake())
    with pytest.raises(FlowbenchError, match="at least 2 images, not 1"):
        make(Fake(), rows=1)
    broken = Fake()
    broken.matrix[0, 0] = float("nan")
    with pytest.raises(RunFailed, match="fake gives pool features that are not finite"):
        make(broken)
    assert not list(built())


KILLED = """
import os, signal, sys
import torch
from test_references import Fake, make, reference_building
class Kill(Fake):
    def __call__(self, images):
        if self.images >= 60:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)
reference_building.SHARD, reference_building.BLOCK = 20, 8
make(Kill())
"""


@pytest.mark.slow
def test_a_killed_build_goes_on_and_leaves_no_lock():
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=Path(__file__).parent, timeout=120)
    assert done.returncode == -signal.SIGKILL and len(shards()) == 3
    rest = Fake()
    assert agrees(make(rest)) and rest.images == N - 60


@pytest.fixture
def command(flowbench, monkeypatch, tmp_path):
    """`flowbench ref`, with the fake in the place of Inception."""
    monkeypatch.setitem(cli.COMMANDS, "ref", "ref")
    monkeypatch.setattr(extractors, "load", lambda name, path, device: Fake())
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return flowbench


def test_build_show_and_list(command, tmp_path):
    words = ["--inception-weights", str(tmp_path / "weights.pth"), "--device", "cpu", "--quiet"]
    words += ["--rows", "30", "-o", str(tmp_path / "out.npz")]
    assert command("ref", "list") == (
        0,
        "there are none: make some with flowbench ref build DATASET\n",
    )
    assert command("ref", "build", "digits", *words) == (0, "")
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["mu"].shape == (DIMS,) and arrays["sigma"].dtype == np.float64
    code, listed = command("ref", "list")
    assert code == 0 and listed.startswith("digits train  n=30  fake  data ")
    code, shown = command("ref", "show", "digits")
    assert code == 0 and "30 of train" in shown and "made with: name fake" in shown
    code, shown = command("ref", "show", str(tmp_path / "out.npz"))
    assert code == 0 and "images: 30" in shown and "mu (6,) float64" in shown


@pytest.mark.parametrize(
    "words, reason",
    [
        (("build", "digits"), "flowbench weights download inception, or give --inception-weights"),
        (("build", "digits", "--extractor", "dinov2"), "give --dinov2-weights FILE"),
        (("show", "nothing.npz"), "there is no file nothing.npz"),
        (("build", "moons", "--inception-weights", "WEIGHTS"), "moons are no images"),
        (("build", "rose", "--split", "test", "--inception-weights", "WEIGHTS"), "rose"),
    ],
)
def test_wrong_words_are_answered_in_one_line(command, tmp_path, words, reason):
    weights = str(tmp_path / "weights.pth")
    code, output = command("ref", *(weights if word == "WEIGHTS" else word for word in words))
    assert code == 2 and reason in output and len(output.splitlines()) == 1
