"""How long commands take as a user starts them: a new process each, from start to end.

The database is one of random scores. A first start, which compiles Python's files, does not count;
they are kept in a folder of this benchmark's own, because a stale one would be compiled each time.
"""

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.many_scores import Shape, fill
from benchmarks.speed.harness import Result, Work, repeat

SOON, LARGE = "at most 0.2 s", "at most 1 s"
FEW = Shape(datasets=1, methods=5, seeds=2)
FORMS = ("md", "csv", "json")
OUTSIDE = ("PYTHONDONTWRITEBYTECODE", "FLOWBENCH_DB", "FLOWBENCH_PLUGINS", "FLOWBENCH_RUNS")


def measure(quick: bool) -> Iterator[Result]:
    """Starts, `compare` and `report` by the number of scores, methods and data sets."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), 1 if quick else 9)
        yield bench.result("flowbench --help", ["--help"], SOON)
        yield bench.result("flowbench methods", ["methods"])
        number = 1000 if quick else 100_000
        few, many = bench.filled(100, FEW), bench.filled(number)
        yield bench.result("compare, 100 scores", ["compare", *few])
        goal = "" if quick else LARGE
        yield bench.result(f"compare, {number:,} scores", ["compare", *many], goal)
        if not quick:
            yield from _others(bench, few, many)
            yield from _grown(bench)


def _others(bench: "Bench", few: list[str], many: list[str]) -> Iterator[Result]:
    """Verdicts, and reports as they are printed and in the formats that are files."""
    judged = ["compare", "--baseline", "method-0", *many]
    yield bench.result("compare --baseline, 100,000 scores", judged)
    yield bench.result("report, 100 scores", ["report", *few])
    yield bench.result("report, 100,000 scores", ["report", *many])
    for form in FORMS:
        line = ["report", "--format", form, *many]
        yield bench.result(f"report --format {form}, 100,000 scores", line)


def _grown(bench: "Bench") -> Iterator[Result]:
    """`compare` and `report` on ever more methods, and on ever more data sets."""
    for methods in (25, 50, 100):
        place = bench.filled(400 * methods, Shape(1, methods, 4))
        for command in ("compare", "report"):
            case = f"{command}, {methods} methods with 400 scores each"
            yield bench.result(case, [command, *place])
    for datasets in (10, 20, 40):
        place = bench.filled(1000 * datasets, Shape(datasets, 10, 4))
        case = f"compare, {datasets} data sets with 1,000 scores each"
        yield bench.result(case, ["compare", *place])


class Bench:
    """Times commands in a folder of their own."""

    def __init__(self, folder: Path, repeats: int):
        self.folder, self.repeats, self.made = folder, repeats, 0
        kept = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
        self.outside = kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}

    def filled(self, scores: int, shape: Shape | None = None) -> list[str]:
        """The option that names a new database of so many scores."""
        self.made += 1
        path = self.folder / f"{self.made}.db"
        random.seed(0)
        fill(path, scores, *filter(None, [shape]))
        return ["--db", str(path)]

    def result(self, case: str, words: list[str], goal: str = "") -> Result:
        """The times of one command; the CPU time is that of the command."""
        times = repeat(self._command(words), self.repeats, 1, clock=_of_commands)
        facts = {"words": words, "bytes": (self.folder / "out").stat().st_size}
        facts |= {"cpu": sorted(times.cpu), "least": times.least}
        return Result(case, "", times, unit="ms", goal=goal, facts=facts)

    def _command(self, words: list[str]) -> Work:
        line = [sys.executable, "-m", "flowbench", *words]

        def work() -> None:
            with (self.folder / "out").open("wb") as file:
                subprocess.run(line, stdout=file, check=True, cwd=self.folder, env=self.outside)

        return work


def _of_commands() -> tuple[float, float]:
    """The wall clock, and the CPU time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), used.ru_utime + used.ru_stime
