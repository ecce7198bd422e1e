"""Shares of the device's arithmetic and memory: what is counted, and what it is divided by."""

from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import loops, networks, roofline, roofs
from benchmarks.speed.counting import Counter, Operator, count
from benchmarks.speed.roofs import Roof
from benchmarks.speed.training import flow_matching


def test_operations_of_a_linear_layer_and_a_convolution():
    x = torch.randn(5, 7, requires_grad=True)
    linear = nn.Linear(7, 3)
    assert count(lambda: linear(x)).flops == 2 * 5 * 7 * 3
    assert count(lambda: linear(x).sum().backward()).flops == 3 * 2 * 5 * 7 * 3
    images = torch.randn(2, 3, 8, 8)  # without a gradient: only the weights have one
    layer = nn.Conv2d(3, 4, 3, padding=1)
    forward = 2 * (2 * 8 * 8) * (3 * 4 * 9)
    assert count(lambda: layer(images)).flops == forward
    assert count(lambda: layer(images).sum().backward()).flops == 2 * forward


@pytest.mark.parametrize("make", [networks.vectors, networks.digits, networks.images])
def test_operations_of_a_step_are_those_that_pytorch_counts(make):
    loop = loops.Bare(make(True, "cpu"), flow_matching, 100)
    with FlopCounterMode(display=False) as expected:
        loop.step()
    assert count(loop.step).flops == expected.get_total_flops() > 0


N = 1000
A, B, C = torch.ones(N), torch.ones(N), torch.ones(N)


@pytest.mark.parametrize(
    ("work", "vectors"),
    [
        (lambda: A + B, 3),
        (lambda: A * A, 2),
        (lambda: A.add_(B), 3),
        (lambda: torch.add(A, B, out=C), 3),
        (lambda: C.copy_(A), 2),
        (lambda: A.double(), 3),
        (lambda: torch.zeros(N), 1),
        (lambda: torch._foreach_add_([A, B], [C, C]), 5),
        (lambda: A.view(10, 100).T[3:].detach(), 0),
        (lambda: torch.ops.aten._unsafe_view(A, [10, 100]), 0),
        (lambda: torch.empty(N), 0),
        (lambda: A[:1].expand(N).contiguous(), 1 + 1 / N),
    ],
)
def test_bytes_that_operators_ask_for(work, vectors):
    assert count(work).bytes == round(4 * N * vectors)


def test_the_backward_pass_is_counted():
    x = torch.ones(N, requires_grad=True)
    assert "aten.mul.Tensor" in [each.name for each in count((x * 2).sum().backward).operators]


def counted(*operators):
    counter = Counter()
    counter.operators = [Operator("any", *each) for each in operators]
    return counter


@pytest.mark.parametrize(
    ("seconds", "limit"), [(10, "arithmetic"), (16, "arithmetic"), (16.1, "neither")]
)
def test_shares(seconds, limit):
    found = roofline.shares(counted((500, 10), (0, 15)), Roof(100.0, 5.0), seconds)
    assert (found["flop"], found["bytes"], found["intensity"]) == (500, 25, 20)
    assert found["peak"] == pytest.approx(5 / seconds)
    assert found["bandwidth"] == pytest.approx(5 / seconds)
    assert found["arithmetic"] == pytest.approx(5 / seconds)  # its bytes take 2 s of these
    assert found["memory"] == pytest.approx(3 / seconds) and found["limit"] == limit


def test_memory_may_be_the_limit():
    assert roofline.shares(counted((500, 10), (0, 30)), Roof(100.0, 5.0), 11)["limit"] == "memory"


def test_the_roof_is_the_best_rate():
    candidates = [("less", 1.0, lambda: None), ("most", 1e9, lambda: None)]
    found = roofs.best(candidates, "cpu", True)
    assert found.name == "most" and found.rate == 1e9 / found.times.least
    kept = {name: (size, work) for name, size, work in roofs.copies(True, "cpu")}
    kept |= {name: each for name, *each in roofs.products(True, "cpu", torch.float32)}
    sizes = {"copy": "bytes", "a = b + 3c": "bytes"}
    for name, (size, work) in kept.items():
        assert size == getattr(count(work), sizes.get(name, "flops"))


def test_what_is_compiled_is_counted_before_and_timed_after():
    """The branch for a GPU, here: its tiny networks, and no compiler."""
    with (
        patch.object(roofline, "on_gpu", lambda device: True),
        patch.object(roofline, "compile_blocks") as compiling,
    ):
        *_, eager, compiled = roofline.training(True, "cpu")
    assert (eager.dtype, eager.prepare) == ("bfloat16", None)
    order = []

    def work():
        order.append("work")
        return A @ B

    task = roofline.Task("any", work, prepare=lambda: order.append("compiled"))
    assert roofline.measured(task, Roof(1.0, 1.0), "cpu", 0.0).facts["bytes"] == 8 * N + 4
    assert order[:4] == ["work", "work", "compiled", "work"] and order.count("compiled") == 1
    compiled.prepare()
    compiling.assert_called_once()


def test_every_task_says_its_shares(monkeypatch):
    monkeypatch.setattr(roofline, "REPEATS", 2)
    tasks = [*roofline.training(True, "cpu"), *roofline.sampling(True, "cpu")]
    for task in tasks:
        found = roofline.measured(task, Roof(1e30, 1e-30), "cpu", 0.01)
        assert found.case.startswith(f"{task.name}: 0% of the peak, ")
        assert found.case.endswith(" FLOP/B, limited by memory")
        assert found.facts["flop"] > 0 and len(found.ours.seconds) == roofline.REPEATS
    assert len(tasks) == 5
