"""What share of the device's arithmetic and of its memory's bandwidth our work makes use of.

Operations and the bytes that operators ask for are counted without compiling (see `counting`), and
divided by the time and by the best rates that are measured here (see `roofs`). Of a compiled step
only the time is its own. Float32 is without TF32, unlike in `training` on a GPU.

A share of the bandwidth can be above 100 %: caches serve what was written a moment ago, and a
compiler joins operators that then ask for less.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import inception_file, networks
from benchmarks.speed.counting import Counter, count
from benchmarks.speed.harness import LeftOut, Result, Times, Work, missing, repeat
from benchmarks.speed.loops import Bare, Case
from benchmarks.speed.networks import on_gpu
from benchmarks.speed.roofs import Reached, Roof, best, copies, products
from benchmarks.speed.training import flow_matching
from flowbench import meters, solvers
from flowbench.determinism import without_tf32
from flowbench.metrics import extractors
from flowbench.nets.backbone import compile_blocks
from flowbench.noise import unit_noise

SECONDS, QUICK = 4.0, 0.1  # of one row
REPEATS = 7
LEAST = 0.5  # of the time has to be explained by the roof, else neither part of it is the limit


@dataclass(frozen=True)
class Task:
    """Something to measure: `work` is counted, then `prepare` is called once, then `work` timed."""

    name: str
    work: Work
    dtype: str = "float32"
    prepare: Callable[[], object] | None = None


def measure(quick: bool, device: str = "cpu") -> Iterator[Result | LeftOut]:
    """The roofs, then training steps, samples of one evaluation, and Inception's features."""
    with without_tf32(), tempfile.TemporaryDirectory() as folder:
        moving = best(copies(quick, device), device, quick)
        yield _roof("copies and sums of vectors", moving, "GB/s")
        roofs = {}
        for dtype in ("float32", "bfloat16") if on_gpu(device) else ("float32",):
            computing = best(products(quick, device, getattr(torch, dtype)), device, quick)
            yield _roof(f"matrix products and convolutions, {dtype}", computing, "GFLOP/s")
            roofs[dtype] = Roof(computing.rate, moving.rate)
        for task in chain(training(quick, device), sampling(quick, device)):
            yield measured(task, roofs[task.dtype], device, QUICK if quick else SECONDS)
        yield from _evaluator(quick, device, Path(folder), roofs["float32"])


def training(quick: bool, device: str) -> Iterator[Task]:
    """The step of each network; on a GPU that of images also in bfloat16, and compiled."""
    for make in (networks.vectors, networks.digits, networks.images):
        case = make(quick, device)
        yield Task(f"training step, {case.name}", _loop(case).step)
    if on_gpu(device):
        case = networks.images(quick, device, "bfloat16")
        name, loop = f"training step, {case.name}, bfloat16", _loop(case)
        yield Task(name, loop.step, "bfloat16")
        yield Task(f"{name}, compiled", loop.step, "bfloat16", partial(compile_blocks, loop.net))


def sampling(quick: bool, device: str) -> Iterator[Task]:
    """One batch by one evaluation, with its noise by sample index."""
    many = 2 if quick else 1000 if on_gpu(device) else 32
    for make, rows in ((networks.vectors, 500), (networks.images, many)):
        case = make(quick, device)
        words = case.name.rpartition(", batch")[0]
        yield Task(f"sampling, NFE 1, {words}, {rows} at once", partial(_draw, case, rows))


@torch.no_grad()
def _draw(case: Case, rows: int) -> Tensor:
    noise = unit_noise(0, range(rows), tuple(case.values.shape[1:]), device=case.device)
    return solvers.euler(case.network.eval(), noise, None, 1)


def _evaluator(quick: bool, device: str, folder: Path, roof: Roof) -> Iterator[Result | LeftOut]:
    """Inception's features of as many images as go through it at once."""
    reason = missing("torch_fidelity")
    if reason is not None:
        yield LeftOut("Inception features", reason)
        return
    with torch.no_grad():
        path = inception_file.write(folder / "inception.pth")
    extractor = extractors.load("inception", path, device)
    n = 1 if quick else extractors.GPU_BATCH if on_gpu(device) else extractors.CPU_BATCH
    images = inception_file.pictures(n, 1, 1.0).to(device)
    task = Task(f"Inception features, {n} images at once", partial(extractor, images))
    yield measured(task, roof, device, QUICK if quick else SECONDS)
    extractors.load.cache_clear()


def measured(task: Task, roof: Roof, device: str, seconds: float) -> Result:
    """Count, then time for about so many `seconds`; both as shares of the roof."""
    task.work()  # what the first call makes, such as the state of Adam, is no part of it
    counter = count(task.work)
    if task.prepare is not None:
        task.prepare()
    times = timed(task.work, device, seconds)
    facts = shares(counter, roof, times.median) | {"dtype": task.dtype}
    words = "{peak:.0%} of the peak, {bandwidth:.0%} of the bandwidth, {intensity:.3g} FLOP/B"
    case = f"{task.name}: {words}, limited by {{limit}}".format(**facts)
    return Result(case, "", times, unit="ms", facts=facts)


def shares(counter: Counter, roof: Roof, seconds: float) -> dict[str, Any]:
    """What was counted, and what part of the roof it is in so many `seconds`.

    `arithmetic` and `memory` are the shares of that time which operators would take at the roof,
    by what bounds each. The limit is the larger; neither, where both together are below a half:
    then calls and small operators are.
    """
    arithmetic, memory = (each / seconds for each in roof.seconds(counter.operators))
    limit = "arithmetic" if arithmetic >= memory else "memory"
    return {
        "flop": counter.flops,
        "bytes": counter.bytes,
        "operators": len(counter.operators),
        "peak": counter.flops / roof.peak / seconds,
        "bandwidth": counter.bytes / roof.bandwidth / seconds,
        "intensity": counter.flops / counter.bytes,
        "arithmetic": arithmetic,
        "memory": memory,
        "limit": limit if arithmetic + memory >= LEAST else "neither",
    }


def timed(work: Work, device: str, seconds: float) -> Times:
    """Seconds of one call, in blocks of calls, so that waiting for the device is hardly in it."""

    def block(calls: int) -> None:
        for _ in range(calls):
            work()
        meters.synchronise(device)

    once = repeat(partial(block, 1), 2).median
    calls = max(1, round(seconds / REPEATS / once))
    times = repeat(partial(block, calls), REPEATS, 0)
    return Times(tuple(t / calls for t in times.seconds), tuple(t / calls for t in times.cpu))


def _roof(words: str, found: Reached, unit: str) -> Result:
    case = f"roof: {words}, best {found.rate / 1e9:,.4g} {unit} ({found.name})"
    return Result(case, "", found.times, unit=unit, facts={"count": found.size / 1e9})


def _loop(case: Case) -> Bare:
    """The step as ours is, which takes as long (see `training`)."""
    return Bare(case, flow_matching, 1000, fused=True if on_gpu(case.device) else None)
