"""Clocks that jump by hours, in both directions: nothing is refused, no duration is absurd."""

import datetime
import itertools
import sys
import time

import pytest
from fault_tools import JOB, SHORT, outcomes, query, scores

from flowbench import training
from flowbench.records import Budget

HOUR = 3600.0
JUMPS = {"back": -5 * HOUR, "to and fro": 7 * HOUR}


@pytest.fixture
def jumping(monkeypatch):
    """Let the clock of the system jump at every look; the monotonic one cannot."""

    def start(kind):
        real, looks = time.time, itertools.count(1)

        def now():
            look = next(looks)
            sign = (-1) ** look if kind == "to and fro" else look
            return max(0.0, real() + sign * JUMPS[kind])

        class Jumping(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.datetime.fromtimestamp(now(), tz)

        monkeypatch.setattr(time, "time", now)
        for name, module in list(sys.modules.items()):
            if name.startswith("flowbench") and vars(module).get("datetime") is datetime.datetime:
                monkeypatch.setattr(module, "datetime", Jumping)
        return looks

    return start


@pytest.mark.parametrize("kind", JUMPS)
def test_a_run_under_a_clock_that_jumps_is_the_same_run(flowbench, tmp_path, jumping, kind):
    calm, wild = tmp_path / "calm.db", tmp_path / "wild.db"
    words = [word for word in JOB if word != "--quiet"]
    assert flowbench(*words, "--db", str(calm), "--runs", str(tmp_path / "a"))[0] == 0
    looks = jumping(kind)
    code, output = flowbench(*words, "--db", str(wild), "--runs", str(tmp_path / "b"))
    assert code == 0 and next(looks) > 2, "the clock was looked at"
    assert "ETA -" not in output and "-0 images/s" not in output
    assert scores(wild) == scores(calm) and outcomes(wild) == ["ok"]
    times = "select value from scores where name like 'train-seconds%' or name = 'ms-per-sample'"
    spent = [value for (value,) in query(wild, times)]
    assert spent and all(0 <= value < 60 for value in spent)
    assert flowbench("compare", "--db", str(wild))[0] == 0
    assert flowbench("report", "--db", str(wild), "-o", str(tmp_path / "r.md"))[0] == 0
    assert flowbench(*words, "--db", str(wild), "--runs", str(tmp_path / "b"), "--force")[0] == 0
    assert outcomes(wild) == ["ok", "ok"]


def test_a_run_that_was_interrupted_in_the_future_goes_on(flowbench, database, monkeypatch):
    """The clock was wrong by a day when it was killed, and is right again."""
    from small_runs import failing

    with monkeypatch.context() as patch:
        failing(patch, KeyboardInterrupt())
        real = time.time
        patch.setattr(time, "time", lambda: real() + 24 * HOUR)
        assert flowbench(*SHORT, "--nfe", "1,2")[0] == 4
    assert flowbench(*SHORT, "--nfe", "1,2")[0] == 0
    assert outcomes(database) == ["interrupted", "ok"]


def test_checkpoints_are_written_by_a_clock_that_does_not_jump(tmp_path, monkeypatch):
    """The clock of the system stands still or goes back; the interval goes on all the same."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    saved = []
    monkeypatch.setattr(training, "save_state", lambda path, state: saved.append(state["step"]))

    class Rows:
        def __len__(self):
            return 8

        def prepare(self):
            pass

        def draw(self, rows):
            return (rows,)

    run = training.Run(Budget(20, 2), tmp_path, every=6.0)
    for _ in run.batches(Rows()):
        pass
    assert len(saved) > 3 and saved[-1] == 20
