"""Memory that runs out: fewer rows at once on a device, the same numbers, and words for people."""

import pytest
import torch
from fault_tools import SHORT, one_line, outcomes, query, scores

from flowbench.nets.mlp import MLP
from flowbench.sampling import Sampler

JOB = [word for word in SHORT if word != "--quiet"]


@pytest.fixture
def crowded(monkeypatch):
    """Make a device with room for so many rows at once, in training or in sampling."""
    forward, call = MLP.forward, Sampler.call

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def limited(room, where):
        def train(self, x, *more, **given):
            full() if self.training and len(x) > room else None
            return forward(self, x, *more, **given)

        def sample(self, noise, *more):
            full() if len(noise) > room else None
            return call(self, noise, *more)

        if where == "training":
            monkeypatch.setattr(MLP, "forward", train)
        else:
            monkeypatch.setattr(Sampler, "call", sample)

    return limited


def test_training_goes_on_with_smaller_parts_as_if_they_had_been_asked_for(
    flowbench, tmp_path, crowded
):
    """Random numbers differ by the size of the parts, so that is what the scores are those of."""
    asked, found = tmp_path / "asked.db", tmp_path / "found.db"
    words = ["--runs", str(tmp_path / "one"), "--db", str(asked)]
    assert flowbench(*SHORT, *words, "--micro-batch", "8")[0] == 0
    crowded(8, "training")
    code, output = flowbench(*JOB, "--runs", str(tmp_path / "two"), "--db", str(found))
    assert code == 0 and "memory ran out with 16 rows at once: stage train goes on with 8" in output
    assert scores(found) == scores(asked)


@pytest.mark.parametrize("room", [40, 8])
def test_samples_are_the_same_however_many_fit(flowbench, tmp_path, crowded, room):
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    assert flowbench(*SHORT, "--runs", str(tmp_path / "runs"), "--db", str(one))[0] == 0
    for path in (tmp_path / "runs").glob("moons-cfm-*/samples-*"):
        path.unlink()
    crowded(room, "sampling")
    code, output = flowbench(*JOB, "--runs", str(tmp_path / "runs"), "--db", str(other))
    assert code == 0 and "the device is full: 25 samples are drawn together" in output
    assert scores(other) == scores(one)


def test_a_device_without_room_for_one_row_is_a_line(flowbench, database, crowded):
    crowded(0, "training")
    code, output = flowbench(*SHORT)
    assert code == 3 and "no room for a single row: take a smaller --network" in output
    assert outcomes(database) == ["failed"]


def test_what_was_done_about_it_is_stored_with_the_attempt(flowbench, database, crowded):
    crowded(8, "training")
    assert flowbench(*SHORT)[0] == 0
    ((notes,),) = query(database, "select notes from attempts")
    assert "memory ran out with 16 rows at once: stage train goes on with 8" in notes


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 3.2 TiB for an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4398 TB."),
    ],
)
def test_the_memory_of_the_host_is_a_failure_in_words(flowbench, database, monkeypatch, error):
    forward = MLP.forward

    def full(self, x, *more, **given):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(MLP, "forward", full)
        code, output = flowbench(*SHORT)
    line = one_line(output)
    assert code == 3 and "out of memory: " in line
    assert line.endswith("give a smaller --batch than 16, or a smaller --network")
    assert outcomes(database) == ["failed"]
    assert MLP.forward is forward and flowbench(*SHORT)[0] == 0


def test_an_allocation_that_is_really_too_large_is_a_failure_in_words(
    flowbench, database, monkeypatch
):
    def greedy(self, x, *more, **given):
        return torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(MLP, "forward", greedy)
    code, output = flowbench(*SHORT)
    assert code == 3 and "out of memory: " in one_line(output)
    assert outcomes(database) == ["failed"]
