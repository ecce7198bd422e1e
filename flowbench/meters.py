"""The bill: what a run costs in evaluations, seconds and memory, counted around the network."""

import copy
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
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


def median_seconds(
    work: Callable[[], object], device: str, repeats: int = 5, most: float = 10.0
) -> float:
    """The median time of `work` over `repeats` calls after one that is discarded.

    Once they have taken `most` seconds together, there are no more.
    """
    work()
    times: list[float] = []
    while len(times) < repeats and sum(times) < most:
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


def held_mib(device: str, network: torch.nn.Module) -> float:
    """MiB of tensors on a GPU that are not the network's, such as the data; 0 elsewhere."""
    if not device.startswith("cuda"):
        return 0.0
    own = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    return (torch.cuda.memory_allocated(device) - own) / 2**20


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


@dataclass(frozen=True)
class Estimate:
    """Bytes that training a network holds: `fixed` and `activations` wait for the backward pass.

    `activations` are those of one example, `fixed` what does not grow with the batch, such as
    weights in another precision.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    fixed: int
    activations: int

    def total(self, micro_batch: int) -> int:
        """Bytes with so many examples in the network at once."""
        held = self.weights + self.gradients + self.optimizer + self.average + self.fixed
        return held + micro_batch * self.activations

    def sentence(self, micro_batch: int) -> str:
        """The total and its parts, for people."""
        parts = {name: getattr(self, name) for name in ("weights", "gradients", "optimizer")}
        named = ", ".join(f"{name} {gib(size)}" for name, size in parts.items())
        grown = gib(self.fixed + micro_batch * self.activations)
        return (
            f"{gib(self.total(micro_batch))} ({named}, average {gib(self.average)},"
            f" activations {grown} at micro-batch {micro_batch})"
        )


def gib(size: float) -> str:
    """Bytes for people: "3.1 GiB"."""
    return f"{size / 2**30:.2g} GiB" if size < 2**33 else f"{size / 2**30:.0f} GiB"


def room(device: str) -> int:
    """Bytes that this process may still use on a GPU; of a CPU, all the memory that it has.

    What a CPU has free changes with every page of a file that is read, so no plan hangs on it.
    """
    if device.startswith("cuda"):
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def training_bytes(
    net: nn.Module, shape: tuple[int, ...], batch: int = 3, times: int = 1
) -> Estimate:
    """What training `net` with Adam and an average holds, before anything is allocated.

    `net` is called as net(x, t, None) with x (B, *shape) float32 and t (B,), or (B, 2) with
    `times` 2. What autograd keeps is counted exactly, in runs of two and of `batch` > 2 examples
    on tensors without memory; a loss that calls the network twice keeps twice as much. Raises
    whatever a network raises that cannot be called so.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = next(net.parameters()).device
    with FakeTensorMode():
        shadow = _shadow(net)
        few, many = (_kept(shadow, n, shape, times, device) for n in (2, max(3, batch)))
    each = (many - few) // (max(3, batch) - 2)
    weights = sum(p.nbytes for p in net.parameters()) + sum(b.nbytes for b in net.buffers())
    learned = sum(p.nbytes for p in net.parameters() if p.requires_grad)
    return Estimate(weights, learned, 2 * learned, weights, max(0, few - 2 * each), each)


def _shadow(net: nn.Module) -> nn.Module:
    """A copy of `net` whose tensors have no memory; made inside a FakeTensorMode."""
    memo: dict[int, object] = {}
    for tensor in (*net.parameters(), *net.buffers()):
        like = torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
        learned = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(like, tensor.requires_grad) if learned else like
    return copy.deepcopy(net, memo)


def _kept(net: nn.Module, n: int, shape: tuple[int, ...], times: int, device: torch.device) -> int:
    """Bytes that autograd keeps of one forward of `n` examples, beside the weights."""
    own = [tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())]
    kept: dict[int, Tensor] = {}  # holds the tensors, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    x = torch.zeros(n, *shape, device=device)
    t = torch.full((n,) if times == 1 else (n, times), 0.5, device=device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(x, t, None)
    sizes = {key: tensor.untyped_storage().nbytes() for key, tensor in kept.items()}
    del output
    return sum(size for key, size in sizes.items() if key not in own)
