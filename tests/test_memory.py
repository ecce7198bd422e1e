"""Memory: what training holds, before and while it does, and data that take none."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from flowbench import meters, nets
from flowbench.nets.backbone import Backbone
from flowbench.nets.settings import ADM, DDPMpp


def saved(net, n, shape, times=1):
    """Bytes that autograd keeps of a real forward, each part of memory counted once."""
    weights = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    t = torch.rand(n) + 0.1 if times == 1 else torch.rand(n, times)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(torch.randn(n, *shape), t, None)
    total = sum(size for place, (_, size) in kept.items() if place not in weights)
    del output
    return total


def unet(times=1):
    return nets.UNet((3, 32, 32), classes=10, width=32, times=times)


def denoiser(settings, classes=0):
    return nets.Denoiser(Backbone(settings, (3, 16, 16), classes), 0.5)


SMALL = {"channels": 32, "mult": (1, 2), "blocks": 1, "attention": (8,)}


@pytest.mark.parametrize(
    "make, shape, times",
    [
        (unet, (3, 32, 32), 1),
        (lambda: unet(2), (3, 32, 32), 2),
        (lambda: nets.MLP((128,)), (128,), 1),
        (lambda: denoiser(DDPMpp(**SMALL)), (3, 16, 16), 1),
        (lambda: denoiser(DDPMpp(**SMALL, precision="bfloat16"), 5), (3, 16, 16), 1),
        (lambda: denoiser(ADM(**SMALL), 5), (3, 16, 16), 1),
    ],
)
def test_activations_are_those_that_a_real_forward_keeps(make, shape, times):
    net = make()
    found = meters.training_bytes(net, shape, times=times)
    for n in (2, 9):
        counted = found.fixed + n * found.activations
        assert counted == pytest.approx(saved(net, n, shape, times), rel=0.1)


def test_a_frozen_network_keeps_nothing():
    found = meters.training_bytes(unet().requires_grad_(False), (3, 32, 32))
    assert found.activations == found.gradients == found.optimizer == 0 < found.weights


class Linear(nn.Linear):
    """One layer, called as all networks are; `twice` makes autograd keep its output, too."""

    twice = False

    def forward(self, x, t, y=None):
        output = super().forward(x)
        return output.square() if self.twice else output


def test_a_layer_keeps_its_input_and_its_weights_count_once_and_twice_for_adam():
    net = Linear(64, 32)
    found = meters.training_bytes(net, (64,))
    size = 4 * (64 * 32 + 32)
    assert (found.weights, found.gradients, found.average) == (size, size, size)
    assert found.optimizer == 2 * size and found.fixed == 0
    assert found.activations == 4 * 64
    assert found.total(10) == 5 * size + 10 * 4 * 64
    net.twice = True
    assert meters.training_bytes(net, (64,)).activations == 4 * (64 + 32)


def test_the_estimate_leaves_network_and_memory_alone():
    net = unet()
    before = [p.clone() for p in net.parameters()]
    found = meters.training_bytes(net, (3, 32, 32), batch=10**6)
    assert found.total(10**6) > 2**36, "more than this machine could hold was counted, not used"
    for p, kept in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, kept) and p.grad is None and type(p) is nn.Parameter


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_real_step_is_near_the_estimate():
    code = """
import torch
from flowbench import meters, nets
net = nets.UNet((3, 32, 32), width=64)
x, t = torch.randn(96, 3, 32, 32), torch.rand(96)
meters.training_bytes(net, (3, 32, 32))
net(x[:2], t[:2]).sum().backward()
meters.reset_peak("cpu")
before = meters.peak_mib("cpu")
net(x, t).square().mean().backward()
print(meters.peak_mib("cpu") - before)
"""
    need = meters.training_bytes(nets.UNet((3, 32, 32), width=64), (3, 32, 32))
    expected = 96 * need.activations / 2**20
    assert 0.8 * expected < float(python(code)) < 1.5 * expected


def test_sizes_for_people():
    assert meters.gib(3.14 * 2**30) == "3.1 GiB" and meters.gib(70 * 2**30) == "70 GiB"
    found = meters.Estimate(2**30, 2**30, 2**31, 2**30, 0, 2**26)
    assert found.sentence(128) == (
        "13 GiB (weights 1 GiB, gradients 1 GiB, optimizer 2 GiB, average 1 GiB,"
        " activations 8 GiB at micro-batch 128)"
    )


def python(code, *words):
    """What a process of its own prints."""
    run = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(run, capture_output=True, text=True, check=True, timeout=300).stdout


GROWTH = """
import sys
import numpy as np, torch
from pathlib import Path
from flowbench.data import placement
from flowbench.data.base import Arrays, Facts, load

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**10

path, device = sys.argv[1:]
placement.home = lambda size, device, room: {"device": "cpu" if device == "cpu" else "cpu:0"}
x = np.load(path, mmap_mode="c")
load("warm", Arrays(x[:9]), device)
before = anonymous()
data = load("x", Arrays(x, None, np.arange(len(x)) % 9, None, 9, facts=Facts("", 0.5)), device)
for _ in range(10):
    rows = torch.randint(len(x), (128,))
    batch = data.train.values[rows]
print(anonymous() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_imagenet_64_takes_no_memory_on_a_cpu(tmp_path):
    """A sparse file, a quarter of it: it has 3.9 GB to read, and takes no disk."""
    shape = (1_280_000 // 4, 3, 64, 64)
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, shape)
    del file
    assert (tmp_path / "x.npy").stat().st_size > 3.9e9
    assert float(python(GROWTH, tmp_path / "x.npy", "cpu")) < 100 / 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_data_for_a_gpu_are_copied_once(tmp_path):
    """The GPU's memory stands in plain memory, which shows a copy beside it."""
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (20_000, 3, 64, 64))
    del file
    size = 20_000 * 3 * 64 * 64 / 2**20
    assert size < float(python(GROWTH, tmp_path / "x.npy", "cuda:0")) < 1.1 * size
