"""Sixteen workers, some killed and some stalled, at one database that somebody reads meanwhile."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import many_workers
import pytest
from sqlalchemy import text

import flowbench
from flowbench.records import Score
from flowbench.store import Store

ROOT = str(Path(flowbench.__file__).parents[1])
SCORES = many_workers.SCORES
WORKERS, LEASE = 16, 1.5
COUNT = text("select count(*) from scores")


def test_the_check_sees_a_job_that_was_done_twice(store: Store) -> None:
    with store.attempt(many_workers.spec_of(0), {}) as attempt:
        for nfe in range(1, SCORES + 1):
            attempt.add(Score("fid", float(attempt.id), nfe))
    assert check(store, 1, set(), set()) == {"ok": 1}
    with store.attempt(many_workers.spec_of(0), {}) as attempt:
        attempt.add(Score("fid", float(attempt.id), 1))
    with pytest.raises(AssertionError, match="2"):
        check(store, 1, set(), set())


@contextmanager
def crew(url: str, jobs: int, seconds: float, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Sixteen workers; whatever happens to the test, they end with it."""
    words = [many_workers.__file__, url, str(jobs), str(WORKERS), str(seconds), *options]
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT, "FLOWBENCH_LEASE": str(LEASE)},
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def check(store: Store, jobs: int, killed: set[int], refused: set[int]) -> Counter[str]:
    """Every job is done once and for all, and everyone ended as he should; returns the outcomes."""
    with store._database.transaction() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("pragma integrity_check").scalars().all() == ["ok"]
            assert connection.exec_driver_sql("pragma foreign_key_check").all() == []
        words = (
            "select a.id, a.pid, a.outcome, r.seed from attempts a join runs r on r.id = a.run_id"
        )
        attempts = connection.exec_driver_sql(words).all()
        written = connection.exec_driver_sql("select attempt_id, nfe, value from scores").all()
    runs = {row.id: row.seed for row in attempts}
    scores = Counter((runs[row.attempt_id], row.nfe) for row in written)
    assert scores == {(job, nfe): 1 for job in range(jobs) for nfe in range(1, SCORES + 1)}
    assert all(row.value == row.attempt_id for row in written), "a score of another attempt"
    outcomes = {row.id: row.outcome for row in attempts}
    assert set(outcomes.values()) <= {"ok", "lost"}
    assert {runs[id] for id, outcome in outcomes.items() if outcome == "ok"} == set(range(jobs))
    authors = {(runs[row.attempt_id], row.attempt_id) for row in written}
    good = Counter(job for job, id in authors if outcomes[id] == "ok")
    assert max(good.values()) == 1, "two successful attempts have scores of one job"
    assert refused <= {id for id, outcome in outcomes.items() if outcome == "lost"}
    open_of_killed = Counter(row.outcome for row in attempts if row.pid in killed)
    assert set(open_of_killed) <= {"ok", "lost"}
    return Counter(outcomes.values())


def await_loss(store: Store, attempts: set[int]) -> None:
    """Wait until these were taken over."""
    give_up = time.monotonic() + 60
    while not attempts <= {tried.id for tried in store.tried() if tried.outcome == "lost"}:
        assert time.monotonic() < give_up, "nobody took over"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file", "postgresql"], indirect=True)
def test_sixteen_workers_lose_and_double_nothing(anywhere: Store, place: str) -> None:
    """Three are killed and three stalled for two leases, all of them in the middle of a job."""
    jobs, paused, killed, ended = 32, {}, set(), {}
    superseded = Counter()
    with anywhere._database.transaction() as reader, crew(place, jobs, 0.01, "--pause", "6") as it:
        assert reader.execute(COUNT).scalar_one() == 0
        assert it.stdout is not None
        for line in it.stdout:
            first, word, *rest = line.split()
            if word == "paused":
                paused[int(first)] = int(rest[0])
                number = signal.SIGKILL if len(paused) <= 3 else signal.SIGSTOP
                os.kill(int(first), number)
                killed |= {int(first)} if number == signal.SIGKILL else set()
                if len(paused) == 6:
                    await_loss(anywhere, set(paused.values()))
                    for pid in paused.keys() - killed:
                        os.kill(pid, signal.SIGCONT)
            superseded[int(first) if first.isdigit() else 0] += word == "superseded"
            assert word != "failed", line
            if first == "ended":
                ended[int(word)] = int(rest[0])
        if place.startswith("sqlite"):  # the snapshot of the moment at which it began
            assert reader.execute(COUNT).scalar_one() == 0
    assert ended == {pid: -9 if pid in killed else 0 for pid in ended} and len(ended) == WORKERS
    stalled = paused.keys() - killed
    # On a machine that is busy enough, others are late for a lease as well.
    assert stalled <= {pid for pid, times in superseded.items() if times}, "nobody wrote late"
    outcomes = check(anywhere, jobs, killed, set(paused.values()))
    assert outcomes["lost"] >= 6


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("place", ["file", "postgresql"], indirect=True)
def test_sixteen_workers_under_fire(anywhere: Store, place: str, seed: int) -> None:
    """Killed and stalled at random moments, also within a transaction, for 200 jobs."""
    dice, jobs, told = random.Random(seed), 200, Counter()
    running: set[int] = set()
    with anywhere._database.transaction() as reader, crew(place, jobs, 0.15, "--replace") as it:
        assert it.stdout is not None
        reader.execute(COUNT)
        fire = time.monotonic() + 1
        for line in it.stdout:
            first, word, *rest = line.split()
            assert word != "failed", line
            told[word if first.isdigit() else first] += 1
            if first == "started":
                running = {int(pid) for pid in [word, *rest]}
            if first == "ended":
                running.discard(int(word))
                assert int(rest[0]) in (0, -9)
            if running and time.monotonic() > fire and told["killed"] + told["stalled"] < 60:
                told[strike(dice, running)] += 1
                fire = time.monotonic() + 0.1
    outcomes = check(anywhere, jobs, set(), set())
    print(f"\nseed {seed}: {dict(told)}, {dict(outcomes)}")
    assert told["killed"] >= 10 and told["stalled"] >= 10
    assert outcomes["lost"] >= 5


def wake(pid: int) -> None:
    """Let a worker go on, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def strike(dice: random.Random, running: set[int]) -> str:
    """Kill one of the workers, or stop it for more than a lease; says which."""
    pid = dice.choice(sorted(running))
    try:
        if dice.random() < 0.5:
            os.kill(pid, signal.SIGKILL)
            running.discard(pid)
            return "killed"
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(4 * LEASE, wake, [pid]).start()
        return "stalled"
    except ProcessLookupError:
        return "missed"
