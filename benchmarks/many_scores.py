"""How long `compare` and `report` take on many scores, and how large the page is.

`python benchmarks/many_scores.py 100000` fills a database in a temporary folder with random
numbers (10 data sets, 25 methods, 4 seeds) and times the commands as a user starts them.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Table, insert

from flowbench.records import Budget, Score, Spec
from flowbench.store import Store
from flowbench.store.tables import AttemptRow, Base, RunRow, ScoreRow

NOW = "2026-01-01T00:00:00.000+00:00"
NFES = (1, 2, 4, 8)
COMMANDS = (
    *(("compare",), ("compare", "--baseline", "method-0"), ("report",)),
    *(("report", "--format", form) for form in ("md", "latex", "csv", "json", "html")),
)


@dataclass(frozen=True)
class Shape:
    """How many runs there are: every method on every data set with every seed."""

    datasets: int = 10
    methods: int = 25
    seeds: int = 4


USUAL = Shape()


def specs(shape: Shape = USUAL) -> Iterator[Spec]:
    """The runs of a database."""
    for dataset in range(shape.datasets):
        for method in range(shape.methods):
            for seed in range(shape.seeds):
                place = (f"method-{method}", f"data-{dataset}", seed, Budget(1000, 64))
                yield Spec(*place, data=f"{dataset:064d}", code="c" * 64, version="none")


def scores(spec: Spec, count: int) -> Iterator[Score]:
    """So many numbers of a run: metrics at four NFE, and a few costs."""
    protocol = {"ema": True, "data": spec.data, "reference": ["train", 50_000]}
    for number in range(count):
        name = "fd-clf" if number < len(NFES) else f"metric-{number // len(NFES)}"
        nfe = NFES[number % len(NFES)]
        yield Score(name, random.gauss(10, 1), nfe, n=600, goal="min", protocol=protocol)


def fill(path: Path, total: int, shape: Shape = USUAL) -> int:
    """A database with about `total` scores, the same for each run; returns how many there are."""
    store = Store(f"sqlite:///{path}")
    runs, attempts, rows = [], [], []
    found = list(specs(shape))
    for id, spec in enumerate(found, 1):
        place = {"method": spec.method, "dataset": spec.dataset, "seed": spec.seed}
        facts = {"key": spec.key, "name": spec.name, "spec": asdict(spec), "created": NOW}
        runs.append({"id": id, **place, **facts})
        ended = {"host": "", "pid": 1, "started": NOW, "ended": NOW, "outcome": "ok", "notes": []}
        attempts.append({"id": id, "run_id": id, "number": 1, "generation": 1, **ended})
        for score in scores(spec, round(total / len(found))):
            parts = score._asdict() | {"kind": "finite", "fingerprint": "", "created": NOW}
            rows.append({"attempt_id": id, **parts})
    with store._database.transaction(write=True) as connection:
        for table, values in ((RunRow, runs), (AttemptRow, attempts), (ScoreRow, rows)):
            connection.execute(insert(_table(table)), values)
    return len(rows)


def _table(mapped: type[Base]) -> Table:
    assert isinstance(mapped.__table__, Table)
    return mapped.__table__


def main(total: int) -> None:
    """Print the seconds of each command, the best of three, and the size of what it wrote."""
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        database, out = Path(folder) / "results.db", Path(folder) / "out"
        print(f"{fill(database, total)} scores")
        for words in COMMANDS:
            line = [sys.executable, "-m", "flowbench", *words, "--db", str(database)]
            best = min(_seconds(line, out) for _ in range(1 if "html" in words else 3))
            print(f"{best:6.2f} s  {out.stat().st_size / 1e6:7.2f} MB  {' '.join(words)}")


def _seconds(line: list[str], out: Path) -> float:
    begun = time.perf_counter()
    with out.open("wb") as file:
        subprocess.run(line, stdout=file, check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
