"""Hard limits, faults and new tries, workers that die, and polite ends."""

import errno
import signal
import sqlite3
import time
from types import SimpleNamespace

import pytest
from suite_workers import obey, resist

from flowbench import agenda, division, faults, limits, processes, workers
from flowbench.limits import Limits
from flowbench.records import Diverged, FlowbenchError, RunFailed
from flowbench.suites import Cell
from flowbench.workers import Status


@pytest.mark.parametrize(
    "word, seconds",
    [("90", 90), ("30s", 30), ("5m", 300), ("2h", 7200), ("0.5h", 1800), (".5", 0.5)],
)
def test_times_are_written_as_people_write_them(word, seconds):
    assert limits.seconds(word) == seconds
    assert limits.seconds(limits.span(seconds)) == seconds


@pytest.mark.parametrize("word", ["0", "-1", "5x", "1d", "", "nan", "inf", "1e3", "9999999h", "٣"])
def test_a_time_that_is_none_is_one_line(flowbench, database, word):
    code, output = flowbench("run", "cfm", "--dataset", "moons", f"--timeout={word}")
    assert code == 2 and "write seconds, or 30s, 5m, 2h" in output and "Traceback" not in output
    assert not database.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["cfm", "--dataset", "moons", "--max-hours", "1"], "belong to --suite"),
        (["cfm", "--dataset", "moons", "--retries", "2"], "belong to --suite"),
        (["cfm", "--dataset", "moons", "--timeout", "9", "--pdb"], "leave out --smoke, --pdb"),
        (["cfm", "--dataset", "moons", "--timeout", "9", "--profile"], "leave out --smoke, --pdb"),
        (["cfm", "--dataset", "moons", "--timeout", "9", "--smoke"], "leave out --smoke, --pdb"),
        (["--suite", "x.toml", "--max-hours", "0"], "'--max-hours'"),
        (["--suite", "x.toml", "--retries", "-1"], "'--retries'"),
    ],
)
def test_words_of_limits_that_do_not_fit_are_one_line(flowbench, database, words, message):
    code, output = flowbench("run", *words)
    assert code == 2 and message in output and "Traceback" not in output
    assert not database.exists()


def raised(error, cause):
    """An error as it is when it was raised for another one."""
    error.__cause__ = cause
    return error


def locked(text="database is locked"):
    return raised(FlowbenchError("results.db is locked"), sqlite3.OperationalError(text))


PASSING = [
    OSError(errno.EIO, "x"),
    OSError(errno.ESTALE, "x"),
    TimeoutError(errno.ETIMEDOUT, "x"),
    OSError(errno.ENETDOWN, "x"),
    raised(RunFailed("train.pt cannot be written"), OSError(errno.EIO, "x")),
    locked(),
    locked("disk I/O error"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
]
LASTING = [
    OSError(errno.ENOSPC, "x"),
    OSError(errno.EDQUOT, "x"),
    OSError(errno.EACCES, "x"),
    OSError("the disk is gone"),
    FileNotFoundError(errno.ENOENT, "x"),
    raised(RunFailed("train.pt cannot be written"), OSError(errno.ENOSPC, "x")),
    locked("database or disk is full"),
    locked("attempt to write a readonly database"),
    locked("file is not a database"),
    FlowbenchError("its words are wrong"),
    RuntimeError("CUDA out of memory"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("shapes do not fit"),
    MemoryError(),
    Diverged("the loss became nan"),
    raised(ValueError("of a method"), OSError(errno.EIO, "x")),  # it has seen to its own cause
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_fault_of_the_machine_is_worth_a_new_try(error):
    assert faults.of_error(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_would_fail_again_is_not(error):
    assert not faults.of_error(error)


def test_exits_that_are_worth_a_new_try():
    kills = {signal.SIGKILL, signal.SIGTERM, signal.SIGBUS}
    crashes = {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
    assert all(faults.of_exit(-number) for number in kills)
    assert not any(faults.of_exit(-number) for number in crashes)
    assert not faults.of_exit(1) and not faults.of_exit(0) and not faults.of_exit(None)
    assert {faults.outcome(-number) for number in crashes} == {"failed"}
    assert faults.outcome(-signal.SIGKILL) == "lost"
    assert faults.outcome(-signal.SIGTERM) == faults.outcome(faults.INTERRUPTED) == "interrupted"


def test_memory_that_ran_out_is_told_from_the_counters_of_the_system(tmp_path, monkeypatch):
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    monkeypatch.setattr(faults, "_groups", lambda: iter([tmp_path / "memory.events"]))
    before = faults.killings()
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 3\n")
    assert faults.killings() == before + 1
    assert "which was out of memory" in faults.words(-signal.SIGKILL, starved=True)
    assert "perhaps for want of memory" in faults.words(-signal.SIGKILL, starved=False)
    assert "memory" not in faults.words(-signal.SIGSEGV, starved=True)


@pytest.fixture(scope="module")
def context():
    with processes.context(1) as found:
        yield found


def task(name):
    """A task that nothing was planned for."""
    row = SimpleNamespace(label=name, seconds=None)
    plan = SimpleNamespace(spec=SimpleNamespace(key=name, name=name), teacher=None, trained=None)
    return agenda.Task(Cell(row, "moons", 0), None, plan, missing=1)


class Books(division.Alone):
    """Keeps what is stored, and says that others have some attempts."""

    def __init__(self, others=()):
        self.stored, self.others, self.told = [], set(others), False

    def conclude(self, attempt, outcome, text):
        self.stored.append((attempt, outcome, text))

    def settled(self, task):
        return "" if self.told else None

    def beat(self, ids):
        self.told |= bool(self.others & set(ids))
        return self.others & set(ids)


@pytest.fixture
def crew(context, tmp_path):
    """Run tasks whose ends are given by name: (statuses by name, begins by name, notes)."""

    def run(bounds, books=None, steps=0, jobs=2, target=obey, **ends):
        log, notes = tmp_path / "log", []
        log.touch()
        numbers = {name: 5 + index for index, name in enumerate(ends)}

        def job(task):
            name = task.plan.spec.name
            words = {"log": str(log), "name": name, "end": ends[name], "steps": steps}
            return words | {"attempt": numbers[name], "pids": str(tmp_path / f"pids-{name}")}

        statuses = [Status(task(name)) for name in ends]
        engine = processes.Processes(context, target)
        one = workers.Crew(engine, job, jobs, lambda s, note: notes.append(note))
        one.limits, one.shared, one.pause = bounds, books or division.Alone(), 0.1
        one.run(statuses)
        lines = log.read_text().splitlines()
        begun = {name: lines.count(f"begin {name}") for name in ends}
        return {s.task.plan.spec.name: s for s in statuses}, begun, notes

    return run


def test_only_faults_of_the_machine_are_tried_again(crew):
    ends = {name: name for name in ("once", "kill", "term", "disk", "raise", "full", "segv")}
    books = Books()
    found, begun, notes = crew(Limits(retries=2), books, **ends)
    tries = {"once": 2, "kill": 3, "term": 3, "disk": 3, "raise": 1, "full": 1, "segv": 1}
    assert begun == tries
    assert found["once"].word == "done" and found["kill"].word == "failed"
    assert found["segv"].failure == "its process was killed by SIGSEGV"
    assert any("it is tried again" in note for note in notes)
    outcomes = {attempt: outcome for attempt, outcome, _ in books.stored}
    assert outcomes == {5: "lost", 6: "lost", 7: "interrupted", 11: "failed"}
    assert (11, "failed", "its process was killed by SIGSEGV") in books.stored


def test_without_retries_there_is_one_try(crew):
    found, begun, _ = crew(Limits(), once="once")
    assert begun == {"once": 1} and found["once"].word == "failed"


def test_a_run_that_another_worker_holds_is_given_back_and_looked_at_again(crew):
    found, begun, _ = crew(Limits(), held="held")
    assert begun == {"held": 2} and found["held"].refused == 1


def test_a_superseded_worker_is_ended_and_its_run_is_what_the_other_made(
    crew, monkeypatch, tmp_path
):
    monkeypatch.setenv("FLOWBENCH_LEASE", "1")
    found, _, _ = crew(Limits(), Books(others=[5]), steps=1000, slow="")
    assert found["slow"].word == "done" and found["slow"].failure == ""
    assert (tmp_path / "log").read_text() == "begin slow\n", "the worker went on"


def test_after_its_hours_a_suite_stores_where_it_is_and_begins_nothing(crew, tmp_path):
    books = Books()
    found, begun, _ = crew(Limits(hours=1 / 3600), books, steps=1000, jobs=1, first="", second="")
    assert [s.word for s in found.values()] == ["interrupted", "waiting"]
    assert begun == {"first": 1, "second": 0} and found["first"].left and found["second"].left
    assert books.stored == [(5, "interrupted", "")]
    assert (tmp_path / "log").read_text() == "begin first\n"


def gone(numbers):
    """Whether none of these processes runs; a dead one may not have been waited for yet."""
    for number in numbers:
        try:
            with open(f"/proc/{number}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] not in "ZX":
                    return False
        except OSError:
            continue
    return True


@pytest.mark.parametrize("database_answers", [True, False])
def test_a_limit_holds_to_two_seconds_with_all_that_was_started(
    context, tmp_path, database_answers
):
    """Also while the parent is busy, and while the database does not answer."""
    stored, pids = [], tmp_path / "pids"

    def conclude(worker):
        stored.append(worker)
        time.sleep(0 if database_answers else 30)

    begun = time.monotonic()
    worker = processes.spawn(context, resist, {"pids": str(pids)})
    while not pids.exists():
        assert time.monotonic() < begun + 60
        time.sleep(0.01)
    numbers = [int(word) for word in pids.read_text().split()]
    assert len(numbers) == 3 and not gone(numbers[:1])
    armed = time.monotonic()
    worker.limit(0.5, conclude)
    while not gone(numbers):
        assert time.monotonic() < armed + 2.5, "a limit of 0.5 s did not hold to 2 s"
        time.sleep(0.01)
    assert time.monotonic() >= armed + 0.5 and worker.overdue and stored == [worker]
    worker.close()


def test_a_timeout_is_a_failure_that_is_stored_and_not_tried_again(crew):
    books = Books()
    found, _, notes = crew(Limits(timeout=1.0, retries=3), books, target=resist, slow="")
    assert found["slow"].failure == "stopped after 1s, its limit (--timeout)"
    assert {row[1:] for row in books.stored} == {("timeout", found["slow"].failure)}
    assert not any("again" in note for note in notes)


STUBBORN = '''"""A method that counts its steps, and waits for ever after the first."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from flowbench import hookimpl, nets, solvers, training


@dataclass(frozen=True)
class Stubborn:
    """Ignores SIGTERM while it waits, and has a child."""

    place: str = ""

    @hookimpl
    def train(self, data, run):
        net, place = nets.default(data), Path(self.place)

        def loss(x, y):
            if run.started and not (place / "go").exists():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                child = subprocess.Popen(["sleep", "600"])
                (place / "pids").write_text(f"{os.getpid()} {child.pid}")
                while True:
                    time.sleep(600)
            with open(place / "steps", "a") as file:
                file.write("x")
            return net(x, x[:, 0], y).square().mean()

        return training.fit(net, loss, data.train, run)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        return solvers.euler(network, noise, labels, nfe)
'''


@pytest.mark.slow
def test_after_a_timeout_the_same_command_goes_on_from_its_checkpoint(
    flowbench, database, tmp_path, monkeypatch
):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(tmp_path / "stubborn.py"))
    words = ["run", "stubborn", "--dataset", "moons", "--steps", "20", "--batch", "16"]
    words += ["--samples", "50", "--nfe", "1", "--checkpoint-every", "0", "-o", f"place={tmp_path}"]
    code, output = flowbench(*words, "--timeout", "15s")
    assert code == 3 and "stopped after 15s, its limit (--timeout)" in output, output
    assert "Traceback" not in output
    assert gone(map(int, (tmp_path / "pids").read_text().split()))
    query = "select outcome, error_text from attempts"
    with sqlite3.connect(database) as connection:
        (row,) = connection.execute(query).fetchall()
    assert row == ("timeout", "stopped after 15s, its limit (--timeout)")
    (tmp_path / "go").touch()
    code, output = flowbench(*words)
    assert code == 0, output
    assert (tmp_path / "steps").read_text() == 20 * "x", "a step was taken twice"
    code, output = flowbench(*words, "--timeout", "1h")
    assert code == 0 and "every score is there already" in output


@pytest.mark.slow
def test_a_suite_ends_after_its_hours_and_says_how_to_go_on(flowbench, database, tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(
        '[suite]\ntitle = "T"\ndataset = "moons"\nseeds = [0, 1]\nsteps = 1000000\nbatch = 16\n'
        'samples = 50\nnfe = [1]\n[[method]]\nlabel = "CFM"\nmethod = "cfm"\n'
    )
    code, output = flowbench("run", "--suite", str(path), "--jobs", "1", "--max-hours", "0.002")
    assert code == 4 and "Traceback" not in output
    assert "stopped after 0.002 h (--max-hours): 2 of 2 runs are left" in output
    assert f"to go on: flowbench run --suite {path}" in output
    with sqlite3.connect(database) as connection:
        outcomes = connection.execute("select outcome from attempts").fetchall()
    assert outcomes == [("interrupted",)]
