"""The best that a device does in arithmetic and with its memory, measured.

No data sheet is read: the best of some matrix products and convolutions counts, and of a copy and
a sum of vectors that no cache holds, with as many threads as the work that is divided by it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.speed.counting import Operator
from benchmarks.speed.harness import Times, Work, repeat
from benchmarks.speed.networks import on_gpu
from flowbench import meters

Candidate = tuple[str, float, Work]  # name, FLOP or bytes, what does them
REPEATS = 20  # the best of them counts


@dataclass(frozen=True)
class Roof:
    """The best rates that were reached: `peak` in FLOP/s, `bandwidth` in bytes/s."""

    peak: float
    bandwidth: float

    def seconds(self, operators: Iterable[Operator]) -> tuple[float, float]:
        """The least time of these one after the other: of those that arithmetic, or memory, bounds.

        An operator takes what the slower of the two takes, as if it did both at once.
        """
        arithmetic = memory = 0.0
        for each in operators:
            computed, moved = each.flops / self.peak, each.bytes / self.bandwidth
            if computed >= moved:
                arithmetic += computed
            else:
                memory += moved
        return arithmetic, memory


@dataclass(frozen=True)
class Reached:
    """What was done at the highest rate: `size` is FLOP or bytes, `times` those of each repeat."""

    name: str
    size: float
    times: Times

    @property
    def rate(self) -> float:
        """FLOP/s or bytes/s of the shortest repeat."""
        return self.size / self.times.least


def best(candidates: Iterable[Candidate], device: str, quick: bool) -> Reached:
    """The one that was done at the highest rate."""

    def run(work: Work) -> None:
        work()
        meters.synchronise(device)

    repeats = 3 if quick else REPEATS
    found = [
        Reached(name, n, repeat(partial(run, work), repeats, 2)) for name, n, work in candidates
    ]
    return max(found, key=lambda each: each.rate)


def products(quick: bool, device: str, dtype: torch.dtype) -> Iterator[Candidate]:
    """Matrix products and convolutions in sizes that suit the device."""
    kind: dict[str, Any] = {"device": device, "dtype": dtype}
    gpu = on_gpu(device)
    for n in (64,) if quick else (4096, 8192, 16384) if gpu else (256, 512, 1024, 2048):
        a, b, c = (torch.randn(n, n, **kind) for _ in range(3))
        yield f"product of {n}x{n}", 2.0 * n**3, partial(torch.mm, a, b, out=c)
    for channels in (8,) if quick else (256, 512) if gpu else (64, 128):
        layout = {"memory_format": torch.channels_last}
        x = torch.randn(256 if gpu else 4, channels, 32, 32, **kind).to(**layout)
        weight = torch.randn(channels, channels, 3, 3, **kind).to(**layout)
        work = partial(torch.conv2d, x, weight, padding=1)
        yield f"3x3 convolution, {channels} channels", 2.0 * 9 * channels * x.numel(), work


def copies(quick: bool, device: str) -> Iterator[Candidate]:
    """A copy of a vector, and a sum of two with a factor."""
    n = 1000 if quick else 2**28 if on_gpu(device) else 2**26
    a, b, c = (torch.ones(n, device=device) for _ in range(3))
    yield "copy", 2.0 * a.nbytes, partial(a.copy_, b)
    yield "a = b + 3c", 3.0 * a.nbytes, partial(torch.add, b, c, alpha=3, out=a)
