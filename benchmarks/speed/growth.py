"""How cost grows with images, samples, evaluations, scores and methods: exponents of n.

An exponent is the slope of the line through the median times over n, both as logarithms; 1 is
twice the time for twice as much. What cannot be linear says so.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from click.testing import CliRunner
from scipy import stats

from benchmarks import many_scores
from benchmarks.speed import networks
from benchmarks.speed.harness import Result, Times, Work, repeat
from flowbench import coupling, solvers
from flowbench.cli import cli
from flowbench.data.base import Arrays, load
from flowbench.noise import unit_noise

MOST = 1.1  # an exponent; a tenth is noise
BATCH = 500  # samples that are drawn together, as in a run


@dataclass(frozen=True)
class Growth:
    """Work that is done at several sizes; `make` prepares it, so that only calls are timed."""

    case: str
    sizes: Sequence[int]
    make: Callable[[int], Work]
    most: float = MOST
    why: str = ""  # it may grow faster than in proportion


def measure(quick: bool) -> Iterator[Result]:
    """All that grows, each from the smallest to the largest size; largest first in the table."""
    with tempfile.TemporaryDirectory() as folder:
        for growth in growths(Path(folder), 16 if quick else 1):
            yield measured(growth, 2 if quick else 5)


def growths(folder: Path, less: int) -> Iterator[Growth]:
    """What is measured, at sizes divided by `less`."""

    def sizes(*numbers: int) -> list[int]:
        return [max(1, number // less) for number in numbers]

    yield Growth("loading 32x32 images", sizes(4000, 8000, 16000, 32000), loading)
    yield Growth("drawing a batch of 256, by images", sizes(4000, 8000, 16000, 32000), drawing)
    yield Growth("sampling, NFE 1, by samples", sizes(2000, 4000, 8000, 16000), sampling)
    yield Growth("sampling 500, by NFE", [2, 4, 8, 16], evaluating)
    some = [1000, 2000] if less > 1 else [4000, 16000, 64000]  # a thousand runs have them
    scores = Growth("compare, by scores", some, comparing(folder))
    suites = Growth(
        "plan of a suite, by runs", [2, 4] if less > 1 else [4, 8, 16, 32], planning(folder)
    )
    yield from (scores, suites)
    why = "a network simplex: between quadratic and cubic"
    ns = sizes(128, 256, 512, 1024)
    yield Growth("exact coupling of 32x32 images, by rows", ns, transporting, 3.1, why)


def measured(growth: Growth, repeats: int) -> Result:
    """The times at each size, as one result: those of the largest, and the exponent."""
    times = [repeat(growth.make(size), repeats) for size in growth.sizes]
    found = exponent(growth.sizes, times)
    first, last = growth.sizes[0], growth.sizes[-1]
    facts = {"exponent": found, "sizes": list(growth.sizes), "why": growth.why}
    facts["seconds"] = [each.median for each in times]
    case = f"{growth.case}, {first:,} to {last:,}: grows as n^{found:.2f}"
    goal = f"exponent at most {growth.most}"
    return Result(case, "", times[-1], unit="ms", goal=goal, met=found <= growth.most, facts=facts)


def exponent(sizes: Sequence[int], times: Sequence[Times]) -> float:
    """The slope of log time over log size."""
    logs = [math.log(size) for size in sizes], [math.log(each.median) for each in times]
    return float(stats.linregress(*logs).slope)


def loading(n: int) -> Work:
    """Reading, hashing and placing `n` images of 32x32 pixels."""
    values = np.random.default_rng(0).integers(256, size=(n, 3, 32, 32), dtype=np.uint8)
    return lambda: load("images", Arrays(values), "cpu")


def drawing(n: int) -> Work:
    """A batch of 256 out of `n` images, 20 times."""
    split = load("images", Arrays(np.zeros((n, 3, 32, 32), np.uint8)), "cpu").train
    rows = [torch.randint(n, (256,)) for _ in range(20)]
    return lambda: [split.draw(some) for some in rows]


def sampling(n: int) -> Work:
    """`n` vectors from their noise, one evaluation each."""
    net = networks.vectors(True, "cpu").network.eval()

    def work() -> None:
        for start in range(0, n, BATCH):
            noise = unit_noise(0, range(start, min(start + BATCH, n)), (2,))
            solvers.euler(net, noise, None, 1)

    return work


def evaluating(nfe: int) -> Work:
    """500 vectors at this number of evaluations."""
    net, noise = networks.vectors(True, "cpu").network.eval(), unit_noise(0, range(BATCH), (2,))
    return lambda: solvers.euler(net, noise, None, nfe)


def transporting(n: int) -> Work:
    """The exact coupling of `n` noises with `n` images."""
    noise, x = torch.randn(n, 3, 32, 32), torch.rand(n, 3, 32, 32)
    generator = torch.Generator()
    return lambda: coupling.couple(coupling.exact, noise, x, None, generator)


def comparing(folder: Path) -> Callable[[int], Work]:
    """`flowbench compare` on a database of so many scores."""

    def make(n: int) -> Work:
        path = folder / f"scores-{n}.db"
        many_scores.fill(path, n)
        return lambda: command("compare", "--db", str(path))

    return make


def planning(folder: Path) -> Callable[[int], Work]:
    """`flowbench run --suite ... --dry-run` of so many runs of one method."""

    def make(n: int) -> Work:
        path = folder / f"suite-{n}.toml"
        head = '[suite]\ntitle = "Growth"\ndataset = "moons"\nnfe = [1]\nsteps = 10\nbatch = 8\n'
        rows = [f'[[method]]\nlabel = "{i}"\nmethod = "cfm"\nsteps = {i + 1}\n' for i in range(n)]
        path.write_text("\n".join([head, *rows]), "utf-8")
        place = str(folder / "plans.db")
        return lambda: command("run", "--suite", str(path), "--dry-run", "--db", place)

    return make


def command(*words: str) -> None:
    """A command line in this process: what grows is not the start of Python."""
    with patch.dict(os.environ, {"COLUMNS": "200"}):
        done = CliRunner().invoke(cli, words)
    if done.exit_code:
        raise RuntimeError(f"flowbench {' '.join(words)}: {done.output}")
