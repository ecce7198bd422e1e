"""Several suites over one database divide the work: nothing is done twice, nothing is left."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from filelock import FileLock

from flowbench import agenda, division, suites
from flowbench.records import FlowbenchError
from flowbench.store import leases
from flowbench.store.leases import Held, Holder

SUITE = """
[suite]
title = "T"
dataset = "moons"
seeds = [0, 1]
steps = {steps}
batch = 16
samples = 50
nfe = [1]

[[method]]
label = "EDM"
method = "edm"

[[method]]
label = "LMM"
method = "lmm"
options = {{ pairs = 64, pair_steps = 3 }}
"""


@pytest.fixture
def start(tmp_path):
    """Start a suite in a process of its own, on a database that all of them share."""
    started = []
    (tmp_path / "suite.toml").write_text(SUITE.format(steps=30))

    def run(*words, folder=tmp_path, steps=None):
        folder.mkdir(exist_ok=True)
        if steps is not None:
            (tmp_path / "suite.toml").write_text(SUITE.format(steps=steps))
        command = [
            sys.executable,
            "-m",
            "flowbench",
            "run",
            "--suite",
            str(tmp_path / "suite.toml"),
        ]
        command += ["--jobs", "1", "--checkpoint-every", "0.3", *words]
        environment = os.environ | {"FLOWBENCH_DB": str(folder / "results.db")}
        environment |= {"FLOWBENCH_LEASE": "6", "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdout.close()


def rows(folder, query):
    with sqlite3.connect(folder / "results.db") as connection:
        return connection.execute(query).fetchall()


def attempts(folder):
    """(run, outcome) of all attempts."""
    return rows(folder, "select name, outcome from attempts join runs on runs.id = run_id")


def scores(folder):
    """Every score but times and memory; raises AssertionError for one that is there twice."""
    query = """select key, scores.name, nfe, subject, n, value from scores
        join attempts on attempts.id = attempt_id join runs on runs.id = run_id
        where scores.name not like '%seconds%'
        and scores.name not in ('ms-per-sample', 'peak-mib')"""
    found = sorted(rows(folder, query))
    assert len({row[:5] for row in found}) == len(found), "a score was made twice"
    return found


def until(condition, process, seconds=120):
    """Wait until something is so, while a process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_suites_started_together_divide_the_work(start, tmp_path):
    together = [start() for _ in range(3)]
    outputs = [process.communicate()[0] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], outputs
    assert all("all 4 runs are there" in output for output in outputs)
    ended = attempts(tmp_path)
    assert len(ended) == len(set(ended)) == 4 and {outcome for _, outcome in ended} == {"ok"}
    scores(tmp_path)


@pytest.mark.slow
def test_what_a_killed_and_a_stopped_suite_held_is_taken_over(start, tmp_path):
    alone = start(folder=tmp_path / "undisturbed", steps=200)
    output, _ = alone.communicate()
    assert alone.returncode == 0, output
    stopped = start()
    until(lambda: list((tmp_path / "runs").glob("moons-edm-s0-*/train.pt")), stopped)
    stopped.send_signal(signal.SIGSTOP)
    ((worker,),) = rows(tmp_path, "select pid from attempts where outcome = 'running'")
    os.kill(worker, signal.SIGSTOP)  # it holds the lock of its run, and nobody beats for it
    killed = start()
    until(lambda: list((tmp_path / "runs").glob("moons-edm-s1-*/train.pt")), killed)
    killed.kill()
    last = start()
    output, _ = last.communicate()
    assert last.returncode == 0 and "all 4 runs are there" in output, output
    assert f"process {worker} shows no sign of life" in output
    outcomes = dict(rows(tmp_path, "select pid, outcome from attempts"))
    assert outcomes[worker] == "lost"
    ok = [name for name, outcome in attempts(tmp_path) if outcome == "ok"]
    assert len(ok) == len(set(ok)) == 4
    assert scores(tmp_path) == scores(tmp_path / "undisturbed")
    stopped.send_signal(signal.SIGCONT)
    output, _ = stopped.communicate()
    assert stopped.returncode == 0 and "all 4 runs are there" in output, output
    assert [outcome for _, outcome in attempts(tmp_path)].count("ok") == 4


@pytest.mark.slow
def test_a_run_whose_lock_is_held_is_waited_for_and_is_no_failure(start, tmp_path):
    path = tmp_path / "suite.toml"
    task, *_ = agenda.tasks(suites.read(path))
    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "runs" / f"{task.plan.spec.name}.lock"):
        process = start("--seed", "0")
        lines = [next(process.stdout) for _ in range(2)]
    output, _ = process.communicate()
    assert lines == ["start EDM on moons, seed 0\n", "elsewhere EDM on moons, seed 0\n"]
    assert process.returncode == 0 and "all 2 runs are there" in output, output
    assert {outcome for _, outcome in attempts(tmp_path)} == {"ok"}


class Fake:
    """A store with the holders and attempts that a test wants."""

    def __init__(self, *holders, tried=()):
        self.found, self.attempts = [{h.key: h for h in some} for some in holders], list(tried)

    def holders(self, keys):
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, Exception):
            raise found
        return found

    def tried(self, *words):
        return self.attempts


def holder(attempt=7, beats=1, here=False, alive=None, pid=1, birth=""):
    return Holder(attempt, 1, "key", beats, here, alive, pid, "now", birth)


def shared(store, left=lambda task: False, before=()):
    notes = []
    return division.Shared(store, before, left, notes.append), notes


CELL = SimpleNamespace(
    key="key", plan=SimpleNamespace(spec=SimpleNamespace(dataset="moons", method="edm", seed=0))
)


def tried(id, outcome, error=""):
    return SimpleNamespace(id=id, number=1, outcome=outcome, error=error, spec=CELL)


@pytest.mark.parametrize(
    "outcomes, left, settled",
    [
        ([], True, None),
        ([(8, "ok")], False, ""),
        ([(8, "ok")], True, None),  # of other NFEs, say
        ([(8, "failed")], True, "because (in attempt 1, elsewhere)"),
        ([(8, "diverged")], True, "because (in attempt 1, elsewhere)"),
        ([(8, "timeout")], True, "because (in attempt 1, elsewhere)"),
        ([(8, "interrupted")], True, None),
        ([(8, "lost")], True, None),
        ([(8, "failed"), (9, "ok")], False, ""),
        ([(6, "failed")], True, None),  # before this suite began
        ([(5, "ok")], False, ""),  # it was under way then
        ([(5, "failed")], True, "because (in attempt 1, elsewhere)"),
        ([(8, "ok"), (10, "failed")], False, ""),  # the last is this suite's own
    ],
)
def test_what_another_worker_has_ended_is_settled_here_too(outcomes, left, settled):
    found, _ = shared(
        Fake([], tried=[tried(*words, "because") for words in outcomes]),
        lambda task: left,
        before=[tried(5, "running"), tried(6, "failed"), tried(7, "ok")],
    )
    found.opened(10)
    assert found.settled(CELL) == settled


def test_a_holder_without_a_sign_of_life_is_no_holder_after_its_lease(monkeypatch):
    monkeypatch.setenv("FLOWBENCH_LEASE", "0.2")
    found, notes = shared(Fake([holder()]))
    assert found.held([CELL]) and not found.expired
    deadline = time.monotonic() + 30
    while found.held([CELL]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found.expired == {7} and notes == [], "there is no process of another machine to end"


def test_one_that_beats_is_held_and_a_dead_process_is_not(monkeypatch):
    monkeypatch.setenv("FLOWBENCH_LEASE", "0.2")
    found, _ = shared(Fake(*([holder(beats=n)] for n in range(40))))
    for _ in range(30):
        assert found.held([CELL])
        time.sleep(0.02)
    found, _ = shared(Fake([holder(here=True, alive=False)]))
    assert not found.held([CELL]) and found.expired == {7}


def test_a_stopped_process_is_ended_only_if_it_is_the_one_that_was_meant():
    sleeper = subprocess.Popen(["sleep", "600"])
    sleeper.send_signal(signal.SIGSTOP)
    notes, birth = [], leases.birth(sleeper.pid)
    here = {"here": True, "alive": True, "pid": sleeper.pid}
    division.end(holder(**here, birth=f"{birth}0"), notes.append)
    division.end(holder(**here, birth=""), notes.append)
    division.end(holder(**here | {"here": False}, birth=birth), notes.append)
    assert notes == [] and sleeper.poll() is None
    division.end(holder(**here, birth=birth), notes.append)
    assert sleeper.wait(10) == -signal.SIGKILL and "its run taken over" in notes[0]


def test_a_database_that_is_away_changes_nothing_for_a_while(monkeypatch):
    store = Fake([holder()])
    store.found.append(FlowbenchError("locked"))
    found, _ = shared(store)
    known = found.held([CELL])
    assert found.held([CELL]) == known != {}
    monkeypatch.setattr(division, "PATIENCE", 0.0)
    with pytest.raises(FlowbenchError, match="locked"):
        found.held([CELL])


def test_one_run_waits_for_a_sign_of_life_from_another_machine(monkeypatch):
    monkeypatch.setenv("FLOWBENCH_LEASE", "0.3")
    notes = []
    assert division.awaited(Fake([]), "key", notes.append) == set()
    assert division.awaited(Fake([holder(here=True, alive=True)]), "key", notes.append) == set()
    assert notes == []
    with pytest.raises(Held, match="another process"):
        division.awaited(Fake([holder()], [holder(beats=2)]), "key", notes.append)
    assert division.awaited(Fake([holder()]), "key", notes.append) == {7}
    assert "watched for a sign of life" in notes[0]
