"""A real Ray cluster of two nodes on this machine, with PostgreSQL between its jobs."""

import itertools
import os
import signal
import sys

import launched
import pytest
import servers


@pytest.fixture(scope="module")
def ray_cluster():
    """The address of a cluster whose two nodes have a processor each; nothing leaves here."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    if " " in sys.executable:
        pytest.skip("Ray itself starts no worker of a Python whose path has a space")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    memory = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    before = signal.getsignal(signal.SIGTERM)
    cluster = cluster_utils.Cluster()
    try:
        cluster.add_node(include_dashboard=False, **memory)
        cluster.add_node(**memory)
        signal.signal(signal.SIGTERM, before)  # Ray has one of its own
        yield cluster.address
    finally:
        cluster.shutdown()
        del os.environ["RAY_USAGE_STATS_ENABLED"]


@pytest.fixture(scope="module")
def shared():
    """The URL of an empty database on a real server."""
    if reason := servers.missing():
        pytest.skip(reason)
    with servers.serving() as server:
        yield server.new()


def overlapping(store):
    """Whether two attempts were open at the same time."""
    times = sorted((t.started, t.ended) for t in store.tried("moons"))
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(times))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray.*")
def test_both_nodes_make_the_same_numbers_and_a_killed_worker_is_tried_again(
    tmp_path, start, undisturbed, ray_cluster, shared
):
    launched.write(tmp_path, launched.SUITE)
    far = ("--launcher", f"ray,address={ray_cluster}", "--retries", "1")
    process = start(tmp_path, *far, url=shared)
    launched.training(tmp_path, process)
    os.kill(launched.until(lambda: launched.worker(tmp_path, shared), process), signal.SIGKILL)
    output = launched.ended(process, 0)
    assert "its Ray worker ended: " in output and "it is tried again in 2 s" in output
    assert output.index("done EDM") < output.index("queued LMM") < output.index("start LMM")
    assert launched.scores(tmp_path, shared) == undisturbed
    of_cfm = [outcome for method, outcome in launched.outcomes(tmp_path, shared) if method == "cfm"]
    assert of_cfm == ["lost", "ok"]
    assert overlapping(launched.store(tmp_path, shared)), "one processor each: on both nodes"
    assert servers.PASSWORD not in output and not (tmp_path / "runs/.jobs").exists()
    again = launched.ended(start(tmp_path, *far, url=shared), 0)
    assert "queued" not in again, "all is there"
