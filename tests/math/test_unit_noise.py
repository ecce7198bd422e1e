"""Noise and labels by sample index."""

import numpy as np
import pytest
import torch

from flowbench import noise
from flowbench.data import vectors
from flowbench.noise import Stream, balanced_labels, unit_noise


def test_a_row_does_not_depend_on_its_batch():
    whole = unit_noise(3, range(20), (2, 5))
    assert whole.dtype == torch.float32 and whole.shape == (20, 2, 5)
    for rows in ([7], [7, 7, 19, 0], list(reversed(range(20)))):
        assert torch.equal(unit_noise(3, rows, (2, 5)), whole[rows])
    generator = torch.Generator().manual_seed(3)
    sequential = torch.randn(20, 10, generator=generator)[:, :5]
    generator = torch.Generator().manual_seed(3)
    assert not torch.equal(torch.randn(20, 5, generator=generator), sequential)  # control


def test_a_longer_row_starts_with_the_shorter():
    """Rows are streams: shapes of the same size hold the same numbers."""
    assert torch.equal(unit_noise(0, [4], (6,)).view(2, 3), unit_noise(0, [4], (2, 3))[0])


def test_seeds_indices_and_draws_are_streams_of_their_own():
    streams = [
        unit_noise(seed, [index], (4096,), draw)[0]
        for seed in (0, 1)
        for index in (0, 1, 2**40)
        for draw in (0, 1)
    ]
    gram = torch.stack(streams) @ torch.stack(streams).T / 4096
    assert (gram - torch.eye(len(streams))).abs().max() < 6 / 64  # six standard errors, and 1 alone


def test_moments():
    x = unit_noise(0, range(2000), (64,)).double()
    n = x.numel()
    assert abs(x.mean().item()) < 5 / n**0.5
    assert x.square().mean().item() == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    assert x.pow(3).mean().item() == pytest.approx(0, abs=5 * (15 / n) ** 0.5)
    assert x.pow(4).mean().item() == pytest.approx(3, abs=5 * (96 / n) ** 0.5)
    assert (x[:-1] * x[1:]).mean().item() == pytest.approx(0, abs=5 / n**0.5)


def test_a_stream_gives_each_sample_fresh_draws_of_its_own():
    stream = Stream(5, [3, 9], (4,), "cpu")
    first, second = stream(), stream()
    assert first.shape == (2, 4) and not torch.equal(first, second)
    alone = Stream(5, [9], (4,), "cpu")
    assert torch.equal(alone()[0], first[1]) and torch.equal(alone()[0], second[1])


def test_a_stream_never_gives_the_noise_that_sampling_starts_from():
    """`unit_noise(seed, indices, shape)` is draw 0; a stream goes on from there."""
    start, stream = unit_noise(5, [3, 9], (4,)), Stream(5, [3, 9], (4,), "cpu")
    for _ in range(5):
        assert not torch.equal(stream(), start)


def test_labels_are_balanced():
    assert balanced_labels([0, 9, 10, 23], 10).tolist() == [0, 9, 0, 3]
    assert balanced_labels([0, 1], 0) is None
    assert balanced_labels(range(600), 10).bincount().tolist() == [60] * 10


def test_no_noise_equals_the_draws_that_data_are_made_of():
    """Row 0 of mog128 holds its first 126 unit Gaussians behind the two modal coordinates."""
    data = torch.from_numpy(vectors.mog128().train[:100])
    noise = torch.cat([unit_noise(seed, range(100), (128,)) for seed in range(3)])
    assert (torch.cdist(data[:, 2:], noise[:, 2:]) > 5).all()


def alone(seed: int, index: int, shape: tuple[int, ...], draw: int, use: int) -> np.ndarray:
    """The noise of one index from a generator of its own, as stored results were made."""
    bits = np.random.Philox(key=[seed, use], counter=[0, 0, index, draw])
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (7,), (3, 5, 5), (3, 32, 32)])
@pytest.mark.parametrize(("draw", "use"), [(0, noise.SAMPLES), (3, noise.PAIRS)])
def test_each_row_is_what_a_generator_of_its_own_gives(shape, draw, use):
    indices = [0, 5, 1, 2**40, 5]
    found = noise.unit_noise(11, indices, shape, draw, use=use).numpy()
    for row, index in zip(found, indices, strict=True):
        assert np.array_equal(row, alone(11, index, shape, draw, use))


def test_threads_change_no_bit(monkeypatch):
    one = noise.unit_noise(3, range(101), (3, 8, 8))
    monkeypatch.setattr(noise, "ENOUGH", 1000)
    for threads in (2, 3, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(noise.unit_noise(3, range(101), (3, 8, 8)), one)


def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(noise, "ENOUGH", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(OverflowError):
        noise.unit_noise(3, [0, 1, 2, 2**64], (4,))
