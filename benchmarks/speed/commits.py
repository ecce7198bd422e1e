"""How many scores per second several processes store in one SQLite file, a commit each.

Every writer works on runs of its own, as workers of a suite do: it opens an attempt, adds scores
one by one, and ends it. Nothing but the store takes time, which is the worst case for its lock.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.speed.harness import Result, Times
from flowbench.records import Budget, Score, Spec
from flowbench.store import Store

MACHINE = {"python": "3.11", "torch": "2", "device": "cpu"}
PROTOCOL = {"ema": True, "data": "0" * 64, "reference": ["train", 50_000]}
SCORES = 20  # of an attempt, which makes two commits more


def measure(quick: bool) -> Iterator[Result]:
    """Commits per second of 1, 4 and 16 writers."""
    for writers in (1, 2) if quick else (1, 4, 16):
        yield _result(writers, 1 if quick else 64 // writers, 1 if quick else 5)


def _result(writers: int, attempts: int, repeats: int) -> Result:
    count = writers * attempts * (SCORES + 2)
    with tempfile.TemporaryDirectory() as folder:
        found = [trial(Path(folder, f"{n}.db"), writers, attempts) for n in range(repeats)]
    facts = {
        **{"count": count, "writers": writers, "attempts": attempts, "scores": SCORES},
        "commits per second": sorted(round(count / seconds) for seconds, _ in found),
        "longest wait of one commit, s": max(longest for _, longest in found),
    }
    case = f"{writers} {'writer' if writers == 1 else 'writers'} on one SQLite file"
    times = Times(tuple(seconds for seconds, _ in found))
    return Result(case, "", times, unit="commits/s", facts=facts)


def trial(path: Path, writers: int, attempts: int) -> tuple[float, float]:
    """Seconds until all have stored everything, and the longest that one commit took.

    Raises RuntimeError unless every score is there afterwards.
    """
    url = f"sqlite:///{path}"
    with closing(Store(url)):
        pass
    spawned = multiprocessing.get_context("spawn")
    ready, told = spawned.Barrier(writers + 1), spawned.Queue()
    own = [(url, number, attempts, ready, told) for number in range(writers)]
    workers = [spawned.Process(target=write, args=some) for some in own]
    for worker in workers:
        worker.start()
    ready.wait()
    begun = time.perf_counter()
    longest = max(told.get() for _ in workers)
    seconds = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    with closing(Store(url)) as store:
        there = len(store.measured())
    if there != writers * attempts * SCORES:
        raise RuntimeError(f"{writers * attempts * SCORES} scores were added, {there} are stored")
    return seconds, longest


def write(url: str, number: int, attempts: int, ready: Any, told: Any) -> None:
    """One process: its attempts after each other; tells the longest that a score took."""
    longest = 0.0
    with closing(Store(url)) as store:
        store.measured()  # connected, and everything imported
        ready.wait()
        for attempt in range(attempts):
            spec = Spec(f"method-{number}", "toy", attempt, Budget(1000, 64), data="0" * 64)
            with store.attempt(spec, MACHINE) as opened:
                for score in scores():
                    begun = time.perf_counter()
                    opened.add(score)
                    longest = max(longest, time.perf_counter() - begun)
    told.put(longest)


def scores() -> Iterator[Score]:
    """The numbers of one attempt."""
    for number in range(SCORES):
        name = f"metric-{number // 4}"
        yield Score(name, float(number), 2 ** (number % 4), n=600, goal="min", protocol=PROTOCOL)
