"""Streamed moments against NumPy's, whatever the blocks."""

import numpy as np
import pytest
import torch

from flowbench.checkpoints import read_tensors, save_tensors
from flowbench.metrics.statistics import Statistics
from flowbench.records import FlowbenchError

ROWS, DIMS = 500, 20


@pytest.fixture(params=[0.0, 100.0], ids=["centred", "far"])
def features(request):
    draw = np.random.default_rng(0)
    return draw.normal(size=(ROWS, DIMS)) @ draw.normal(size=(DIMS, DIMS)) + request.param


def streamed(features, sizes):
    statistics = Statistics.empty(DIMS)
    for part in torch.from_numpy(features).split(sizes):
        statistics.add(part)
    return statistics


def error(found, features):
    truth = np.cov(features, rowvar=False)
    return np.abs(np.asarray(found) - truth).max() / np.abs(truth).max()


@pytest.mark.parametrize("sizes", [1, 7, 250, ROWS, [3, 0, 400, 97]])
def test_any_blocks_give_numpys_mean_and_covariance(features, sizes):
    statistics = streamed(features, sizes)
    mean, covariance = statistics.moments
    assert statistics.n == ROWS
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-12, atol=1e-13)
    assert error(covariance, features) < 1e-12
    assert torch.equal(covariance, covariance.T)


def test_the_bound_is_one_that_plain_sums_miss():
    far = np.random.default_rng(0).normal(size=(ROWS, DIMS)) + 1e4
    mean = far.mean(0)
    plain = (far.T @ far - ROWS * np.outer(mean, mean)) / (ROWS - 1)
    assert error(plain, far) > 1e-10
    assert error(streamed(far, 7).covariance, far) < 1e-12


def test_parts_merge_to_the_whole_in_any_order(features):
    parts = [streamed(part, 11) for part in np.split(features, [13, 200])]
    for order in ([0, 1, 2], [2, 0, 1]):
        whole = Statistics.empty(DIMS)
        for i in order:
            whole.merge(parts[i])
        assert error(whole.covariance, features) < 1e-12
    whole.merge(Statistics.empty(DIMS))
    assert whole.n == ROWS


def test_statistics_survive_a_file_bit_for_bit(features, tmp_path):
    statistics = streamed(features, 100)
    save_tensors(tmp_path / "s.safetensors", statistics.tensors("pool"), {})
    again = Statistics.from_tensors(read_tensors(tmp_path / "s.safetensors")[0], "pool")
    assert again.n == ROWS
    assert torch.equal(again.m2, statistics.m2) and torch.equal(again.mean, statistics.mean)


def test_no_memory_is_added_by_rows(features):
    statistics = Statistics.empty(DIMS)
    places = statistics.mean.data_ptr(), statistics.m2.data_ptr()
    for part in torch.from_numpy(features).half().split(50):
        statistics.add(part)
    assert (statistics.mean.data_ptr(), statistics.m2.data_ptr()) == places
    assert statistics.m2.dtype == torch.float64


def test_one_row_has_no_covariance():
    statistics = Statistics.empty(3)
    statistics.add(torch.zeros(1, 3))
    with pytest.raises(FlowbenchError, match="at least 2 rows, not 1"):
        _ = statistics.covariance
