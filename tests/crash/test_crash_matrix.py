"""Killed anywhere, by any signal, and started again: all is as if nothing had happened.

`python tests/crash` is the long form.
"""

import functools
import os
import signal
import subprocess
import sys

import crash_matrix
import crash_picture
import crash_trial
import pytest
from crash_jobs import CHEAP, JOBS, World, environment
from crash_matrix import STAGES, Kill, Known
from crash_server import LIMITS, Server

KILLS = 20
SEED = 8
JOB = {job.name: job for job in JOBS}
EACH_STEP = JOB["lmm-moons"]
# Defects, and the kill that brings each to light.
DEFECTS = {
    "in_place": ("SIGKILL", "pathlib:Path.open[*.pt*]", "torn", 30),
    "uncommitted": ("SIGKILL", "flowbench.execution:_keep", "after", 20),
    "step_back": ("SIGKILL", "flowbench.training:Run._save", "after", 30),
    "reseeded": ("SIGKILL", "flowbench.training:Run._save", "after", 30),
    "from_scratch": ("SIGKILL", "flowbench.training:Run._save", "after", 30),
    "unrecorded": ("SIGTERM", "flowbench.training:Run._save", "after", 30),
    "littering": ("SIGKILL", "pathlib:Path.open[*.pt*]", "torn", 30),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    server = Server()
    yield World(tmp_path_factory.mktemp("world"), server)
    server.close()


@pytest.fixture(scope="module")
def known(world):
    return Known(world, CHEAP)


@pytest.mark.slow
def test_a_forked_victim_is_as_a_fresh_process(world, known, tmp_path):
    words = [sys.executable, "-m", "flowbench", *JOB["cfm-moons"].words]
    own = os.environ | environment(tmp_path) | dict.fromkeys(LIMITS, "1")
    subprocess.run(words, cwd=tmp_path, env=own, check=True)
    found = crash_picture.scores(tmp_path)
    named = {f"database: {name}": score for name, score in found.items()}
    assert named and named.items() <= known["cfm-moons"].picture.items()


@pytest.mark.slow
def test_twenty_kills_change_nothing(world, known):
    kills = [crash_matrix.chosen(SEED, number, CHEAP, known) for number in range(KILLS)]
    here = {stage for stage in STAGES if any(stage in job.stages for job in CHEAP)}
    assert {kill.stage for kill in kills} == here | {crash_matrix.ANY}
    assert {kill.signal for kill in kills} == set(crash_matrix.SIGNALS)
    assert any(kill.again for kill in kills)
    assert crash_matrix.unreached(CHEAP, known) == []
    results = [crash_trial.carried_out(world, kill, known[kill.job.name]) for kill in kills]
    assert [(r.kill.words, r.trouble) for r in results if r.trouble] == []
    assert sum(r.struck > 0 for r in results) > KILLS / 2


@pytest.mark.slow
def test_a_polite_signal_saves(world, known):
    """Between two checkpoints, and yet no step is taken twice but the one at hand."""
    job, place = JOB["cfm-moons"], "flowbench.step:Step.__call__"
    kill = Kill(1001, "training", job, signal.SIGTERM, place, "after", 17)
    result = crash_trial.carried_out(world, kill, known[job.name])
    assert (result.trouble, result.struck) == ([], 1)
    assert result.repeated <= 1


@pytest.fixture(scope="module")
def tried(world, known):
    """What is wrong after a kill in training, of a product with a defect or none."""

    @functools.cache
    def trouble(name, place, moment, nth, defect=""):
        kill = Kill(1000, "training", EACH_STEP, signal.Signals[name], place, moment, nth)
        return crash_trial.carried_out(world, kill, known[EACH_STEP.name], defect).trouble

    return trouble


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_the_matrix_catches(tried, defect):
    assert tried(*DEFECTS[defect]) == []
    assert tried(*DEFECTS[defect], defect)
