"""The bill: what a run costs in evaluations, seconds and memory, counted around the network."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from flowbench.hookspecs import hookimpl


@hookimpl(wrapper=True, tryfirst=True)
def sample(network, noise, meter):
    """Count the rows of every forward of `network`: `meter["nfe"]` is rows per sample.

    Guidance is thus counted twice, whether it is two calls or one doubled batch. Sampling runs
    in evaluation mode and without gradients.
    """
    rows = 0

    def count(module, args, kwargs):
        nonlocal rows
        rows += len(args[0] if args else next(iter(kwargs.values())))

    handle = network.register_forward_pre_hook(count, with_kwargs=True)
    network.eval()
    try:
        with torch.no_grad():
            samples = yield
    finally:
        handle.remove()
    meter["nfe"] = meter.get("nfe", 0.0) + rows / len(noise)
    return samples


def synchronise(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def median_seconds(work: Callable[[], object], device: str, repeats: int = 5) -> float:
    """The median time of `work` over `repeats` calls after one that is discarded."""
    work()
    times = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def reset_peak(device: str) -> None:
    """Forget the highest memory use so far, where the system allows it."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # other systems: the peak is then that of the whole process


def peak_mib(device: str) -> float:
    """The peak since `reset_peak` in MiB: of tensors on a GPU, else of the whole process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def parameters(network: torch.nn.Module) -> int:
    """How many numbers the network has learned."""
    return sum(parameter.numel() for parameter in network.parameters())


@dataclass
class Arithmetic:
    """What a sampler's call took: 1e6 floating-point operations, parameters per evaluation."""

    mflop: float = 0.0
    parameters: float = 0.0


@contextmanager
def arithmetic(network: torch.nn.Module) -> Iterator[Arithmetic]:
    """Count the arithmetic and the parameters that the calls inside use of `network`.

    A multiplication with an addition counts as two operations; only products of matrices and
    convolutions are counted. A part of a network that an evaluation leaves out costs it nothing.
    """
    counted, evaluations, used = Arithmetic(), 0, 0

    def root(module, args):
        nonlocal evaluations
        evaluations += 1

    def part(module, args):
        nonlocal used
        used += sum(parameter.numel() for parameter in module.parameters(recurse=False))

    handles = [network.register_forward_pre_hook(root)]
    handles += [module.register_forward_pre_hook(part) for module in network.modules()]
    try:
        with FlopCounterMode(display=False) as flops:
            yield counted
    finally:
        for handle in handles:
            handle.remove()
    counted.mflop = flops.get_total_flops() / 1e6
    counted.parameters = used / max(1, evaluations)
