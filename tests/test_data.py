"""Data: hashes, scaling, one copy, no second copy, batches ahead, augmentation."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from flowbench import planning, plugins
from flowbench.augment import Augment
from flowbench.data import placement
from flowbench.data.ahead import Ahead, drawer
from flowbench.data.base import Arrays, Facts, Split, load, measure, quantise, scale
from flowbench.ranks import Part

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
    monkeypatch.setattr(placement, "CHUNK_BYTES", 3 * 8 * 8 * 10)
    lazy = Lazy(images(95))
    data = load("x", Arrays(lazy), "cpu")
    assert lazy.most == 10
    assert lazy.rows == 95 + 1, "each row once, and one look at the size of a row"
    assert torch.equal(data.train.values, torch.from_numpy(lazy.array))
    assert data.sha256 == load("x", Arrays(lazy.array), "cpu").sha256
    assert data.std == pytest.approx(scale(data.train.values).std(correction=0).item(), rel=1e-4)


def test_what_does_not_fit_on_the_gpu_stays_in_pinned_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert placement.home(799, "cuda:0", None) == {"device": "cuda:0"}
    assert placement.home(801, "cuda:0", None) == {"device": "cpu", "pin_memory": True}
    assert placement.home(801, "cuda:0", 900) == {"device": "cuda:0"}
    assert placement.home(10**12, "cpu", None) == {"device": "cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batches_equal_those_on_the_device():
    x, y = images(64), np.arange(64) % 2
    here = load("x", Arrays(x, None, y, classes=2), "cuda:0")
    pinned = load("x", Arrays(x, None, y, classes=2), "cuda:0", room=0)
    assert here.train.values.is_cuda and pinned.train.values.is_pinned()
    rows = torch.tensor([3, 1, 60])
    for a, b in zip(here.train.draw(rows), pinned.train.draw(rows), strict=True):
        assert a.is_cuda and torch.equal(a, b)
    for rows, (a, b) in batches(pinned.train, None, n=50, size=32):
        assert a.is_cuda and torch.equal(a, here.train.draw(rows)[0])
        assert b.is_cuda and torch.equal(b, here.train.draw(rows)[1])


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("kind", ["image", "vector"])
def test_measuring_finds_what_loading_finds(kind, held_out, monkeypatch):
    monkeypatch.setattr(placement, "CHUNK_BYTES", 3 * 8 * 8 * 10)
    x, y, heard = images(95), np.arange(95) % 3, []
    x = x if kind == "image" else x.reshape(95, -1) / 9
    arrays = Arrays(x, x if held_out else None, y, y if held_out else None, classes=3)
    facts = measure(arrays, lambda done, rows: heard.append((done, rows)))
    data = load("x", arrays, "cpu")
    assert facts == Facts(data.sha256, data.std)
    total = 190 if held_out else 95
    assert heard[-1] == (total, total) and len(heard) > 9


def test_known_facts_are_believed_and_nothing_is_measured():
    lazy = Lazy(images(9))
    data = load("x", replace(Arrays(lazy), facts=Facts("ab", 0.25)), "cpu")
    assert (data.sha256, data.std) == ("ab", 0.25)


def on_disk(path, x, order="C"):
    np.save(path, np.asarray(x, order=order))
    return path


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_a_mapped_file_is_used_in_place_and_stays_as_it_is(tmp_path, mode):
    x = images(20, side=64)  # larger than a page of memory
    path = on_disk(tmp_path / "x.npy", x)
    whole = np.load(path, mmap_mode=mode)
    data = load("x", Arrays(whole[:15], whole[15:]), "cpu")
    assert torch.equal(data.train.values, torch.from_numpy(x[:15]))
    assert torch.equal(data.test.values, torch.from_numpy(x[15:])), "a part knows where it begins"
    assert data.sha256 == load("x", Arrays(x[:15], x[15:]), "cpu").sha256
    data.train.values[0] = 77
    assert np.array_equal(np.load(path), x), "what writes into the data must not reach the file"
    other = np.load(path, mmap_mode="r+")
    other[16] = 5
    other.flush()
    assert (data.test.values[1] == 5).all(), "there is no second copy"


def test_mapped_files_that_cannot_be_used_in_place_are_copied(tmp_path):
    x = images(20)
    turned = np.load(on_disk(tmp_path / "f.npy", x, "F"), mmap_mode="r")
    floats = np.load(on_disk(tmp_path / "d.npy", x / 255), mmap_mode="r")
    for values in (turned, floats, turned[::2]):
        assert placement.mapped(values) is None
        data = load("x", Arrays(values), "cpu")
        assert torch.equal(data.train.values, torch.tensor(np.array(values)).to(data.train.values))


class SlowLane:
    """A lane whose copies happen as late as they may: when someone waits for them."""

    def __init__(self):
        self.pending, self.busy = {}, {}

    def buffer(self, shape, dtype):
        return torch.full(shape, 99).to(dtype)

    def send(self, buffers):
        assert id(buffers[0]) not in self.busy.values(), "the last copy may still read this buffer"
        copies = tuple(None if b is None else torch.zeros_like(b) for b in buffers)
        event = object()
        self.pending[event], self.busy[event] = (buffers, copies), id(buffers[0])
        return copies, event

    def receive(self, batch, event):
        for buffer, copy in zip(*self.pending.pop(event), strict=True):
            if copy is not None:
                copy.copy_(buffer)
        return batch

    def wait(self, event):
        del self.busy[event]


def batches(split, lane, n=9, size=4):
    """Batches drawn ahead, each with its rows."""
    ahead = Ahead(split, size, lane)
    rows = list(torch.randint(len(split), (n, size), generator=torch.Generator().manual_seed(1)))
    return [(rows[i], ahead.draw(rows[i], rows[i + 1] if i + 1 < n else None)) for i in range(n)]


@pytest.mark.parametrize("labelled", [True, False])
def test_batches_drawn_ahead_are_those_drawn_when_wanted(labelled):
    y = np.arange(30) % 4 if labelled else None
    split = load("x", Arrays(images(30), None, y, classes=4), "cpu").train
    for rows, (x, labels) in batches(split, SlowLane()):
        expected, expected_labels = split.draw(rows)
        assert torch.equal(x, expected)
        assert labels is None if y is None else torch.equal(labels, expected_labels)


def test_the_slow_lane_shows_a_buffer_that_is_used_too_early():
    split = load("x", Arrays(images(30)), "cpu").train
    careless = SlowLane()
    careless.wait = lambda event: None
    with pytest.raises(AssertionError, match="may still read"):
        batches(split, careless)
    lane, only = SlowLane(), torch.zeros(4, 3, 8, 8).byte()
    lane.buffer = lambda shape, dtype: only
    ahead, rows = Ahead(split, 4, lane), torch.arange(8).reshape(2, 4)
    lane.send = forgetful(lane)
    assert not torch.equal(ahead.draw(rows[0], rows[1])[0], split.draw(rows[0])[0])


def forgetful(lane):
    """`send` of a lane that does not know which buffers are busy."""
    send = lane.send

    def sent(buffers):
        lane.busy.clear()
        return send(buffers)

    return sent


def test_augmentation_is_drawn_when_a_batch_is_wanted_and_not_ahead():
    plain = load("x", Arrays(images(30), None, np.arange(30) % 4, classes=4), "cpu").train
    split = replace(plain, augment=Augment("edm", 0.5))
    torch.manual_seed(3)
    found = batches(split, SlowLane())
    torch.manual_seed(3)
    for rows, (x, y) in found:
        expected, labels = split.draw_for_training(rows)
        assert torch.equal(x, expected) and torch.equal(y, labels)


def test_what_training_draws_is_augmented_and_nothing_else():
    y = np.arange(30) % 4
    plain = load("x", Arrays(images(30), None, y, classes=4), "cpu").train
    rows = torch.arange(30)
    x, labels = plain.draw(rows)
    again = plain.draw_for_training(rows)
    assert torch.equal(again[0], x) and torch.equal(again[1], labels)
    flipped = replace(plain, augment=Augment("flip")).draw_for_training(rows)
    assert not torch.equal(flipped[0], x) and torch.equal(flipped[1], labels)
    split = replace(plain, augment=Augment("edm", 0.9))
    changed, told = split.draw_for_training(rows)
    assert told.shape == (30, 10) and told.dtype == torch.float32
    assert torch.equal(told[:, 0].long(), labels) and not torch.equal(changed, x)
    assert torch.equal(split.draw(rows)[0], x) and torch.equal(split.spread(30)[0], x)
    alone = replace(split, labels=None).draw_for_training(rows)[1]
    assert (alone[:, 0] == -1).all()


def test_splits_with_further_fields_take_them_where_they_always_did():
    @dataclass(frozen=True)
    class Named(Split):
        name: str = ""

    x = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    split = Named(x, None, "cpu", "mine")
    assert split.name == "mine" and split.augment is None


def test_only_rows_that_wait_on_the_host_are_drawn_ahead(monkeypatch):
    made = []
    monkeypatch.setattr("flowbench.data.ahead.Lane", lambda device: made.append(1) or SlowLane())
    split = load("x", Arrays(images(30)), "cpu").train

    def drawn(split):
        draw, generator = drawer(split, Part(0, 4, 4)), torch.Generator().manual_seed(5)
        found = [draw(generator, step < 5)[0] for step in range(6)]
        return found, generator.get_state()

    here, state = drawn(split)
    assert not made
    monkeypatch.setattr(Split, "here", False)
    ahead, same_state = drawn(split)
    assert made and torch.equal(state, same_state), "the order knows nothing of the batch ahead"
    assert all(torch.equal(a, b) for a, b in zip(here, ahead, strict=True))


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


def test_a_map_that_does_not_fit_on_a_gpu_stays_a_map(tmp_path):
    np.save(tmp_path / "x.npy", images(9))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    placed, _ = placement.place(mapped, None, "cuda:0", 0, None, True)
    assert np.shares_memory(placed.numpy(), mapped), "16 GB would be pinned for ImageNet"
