"""`python tests/crash --kills 200 --seed 0`: kill small runs everywhere, go on, and compare."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))

import crash_matrix
import crash_trial
from crash_jobs import JOBS, World
from crash_matrix import Kill, Known
from crash_server import Server
from crash_trial import Result


def main() -> int:
    """Carry out what the command line asks for; 1 where anything differed."""
    asked = _parse()
    jobs = [job for job in JOBS if asked.job in (None, job.name)]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(asked.folder or folder), Server())
        known = Known(world, jobs)
        for job in jobs:
            print(f"{job.name}: undisturbed in {known[job.name].seconds:.1f} s", flush=True)
        missed = crash_matrix.unreached(jobs, known) if asked.job is None else []
        numbers = [asked.only] if asked.only is not None else range(asked.kills)
        kills = [crash_matrix.chosen(asked.seed, number, jobs, known) for number in numbers]
        results = _all(world, kills, known)
        world.server.close()
    _tell(results, asked.seed, time.monotonic() - begun)
    for name in missed:
        print(f"no job reaches {name}: it was renamed, or is no place to kill at")
    return int(bool(missed) or any(result.trouble for result in results))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="[default: 200]")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    parser.add_argument("--job", choices=[job.name for job in JOBS], help="[default: all]")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this kill, as in the long form")
    parser.add_argument("--folder", help="where to work, and leave everything")
    return parser.parse_args()


def _all(world: World, kills: Sequence[Kill], known: Known) -> list[Result]:
    """Carry out all kills, with a line of progress."""
    results, begun = [], time.monotonic()
    for kill in kills:
        results.append(crash_trial.carried_out(world, kill, known[kill.job.name]))
        for trouble in results[-1].trouble:
            print(f"{kill.words}: {trouble}", flush=True)
        done, spent = len(results), time.monotonic() - begun
        left = spent / done * (len(kills) - done)
        line = f"{done} of {len(kills)} kills, {sum(not r.trouble for r in results)} equal"
        if sys.stderr.isatty():
            print(f"\r{line}, {left:.0f} s left\033[K", end="", file=sys.stderr, flush=True)
        elif done % 20 == 0:
            print(f"{line}, {left:.0f} s left", flush=True)
    return results


def _tell(results: Sequence[Result], seed: int, seconds: float) -> None:
    """The table, and how what differed can be repeated."""
    print(f"\n{'boundary':18}{'signal':10}{'kills':>7}{'too late':>10}{'resumed':>9}{'equal':>7}")
    cells = sorted({(r.kill.stage, r.kill.signal.name) for r in results}, key=_order)
    for stage, name in cells:
        some = [r for r in results if (r.kill.stage, r.kill.signal.name) == (stage, name)]
        print(f"{stage:18}{name:10}{_counts(some)}")
    print(f"{'all':28}{_counts(results)}")
    second = sum(max(0, r.struck - 1) for r in results)
    print(
        f"second kills: {second}; steps repeated by one kill: at most"
        f" {max(map(_repeated, results), default=0)}; a polite signal ended within"
        f" {max((r.grace for r in results), default=0.0):.1f} s; {seconds:.0f} s in all"
    )
    for result in results:
        if result.trouble:
            print(f"differs: --seed {seed} --only {result.kill.number}: {result.kill.words}")


def _repeated(result: Result) -> int:
    """Steps for each kill, of a job that keeps each step."""
    return -(-result.repeated // max(1, result.struck)) * (result.kill.job.every == 0)


def _order(cell: tuple[str, str]) -> tuple[int, str]:
    return crash_matrix.STAGES.index(cell[0]), cell[1]


def _counts(some: Sequence[Result]) -> str:
    late, resumed = sum(not r.struck for r in some), sum(r.resumed for r in some)
    equal = sum(not r.trouble for r in some)
    return f"{len(some) - late:7}{late:10}{resumed:9}{equal:7}"


if __name__ == "__main__":
    raise SystemExit(main())
