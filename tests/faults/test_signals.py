"""Signals while a run stores how it ended: it ends at once, and the next command loses nothing."""

import os

import pytest
from fault_tools import JOB, outcomes, scores
from small_runs import failing

from flowbench.store.attempts import Attempt


@pytest.fixture
def expected(flowbench, tmp_path):
    other = tmp_path / "other.db"
    assert flowbench(*JOB, "--db", str(other), "--runs", str(tmp_path / "other"))[0] == 0
    return scores(other)


def interrupt(*words, **options):
    raise KeyboardInterrupt


def test_a_second_ctrl_c_while_the_first_is_stored(flowbench, database, monkeypatch, expected):
    with monkeypatch.context() as patch:
        patch.setattr("flowbench.runner.Examination.every_nfe", interrupt)
        patch.setattr(Attempt, "close", interrupt)
        code, output = flowbench(*JOB)
    assert code == 4 and "\ninterrupted; the same command goes on" in f"\n{output}"
    assert "Traceback" not in output
    assert outcomes(database) == ["running"], "its end could not be stored"
    assert flowbench(*JOB)[0] == 0
    assert outcomes(database) == ["lost", "ok"] and scores(database) == expected


@pytest.mark.parametrize("where", ["os.replace", "os.fsync"])
def test_ctrl_c_in_the_middle_of_a_write(
    flowbench, database, tmp_path, monkeypatch, expected, where
):
    """The old checkpoint stays, the half-written file goes, and the next command goes on."""
    name = where.removeprefix("os.")
    real, calls = getattr(os, name), []

    def write(*words):
        calls.append(words)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(where, write)
        code, output = flowbench(*JOB)
    assert code == 4 and "Traceback" not in output
    assert not list((tmp_path / "runs").rglob("*.[ps][ta]*.*.part"))
    assert outcomes(database) == ["interrupted"]
    assert flowbench(*JOB)[0] == 0 and scores(database) == expected


def test_a_failure_whose_outcome_cannot_be_stored_keeps_its_own_words(
    flowbench, database, monkeypatch
):
    from flowbench.records import FlowbenchError

    def full(self, error=None):
        raise FlowbenchError("r.db has no space left")

    with monkeypatch.context() as patch:
        failing(patch, RuntimeError("out of luck"))
        patch.setattr(Attempt, "close", full)
        words = ["run", "cfm", "--dataset", "moons", "--steps", "9", "--batch", "8"]
        code, output = flowbench(*words, "--samples", "50", "--nfe", "1,2", "--quiet")
    assert code == 3 and "out of luck" in output
    assert outcomes(database) == ["running"]
