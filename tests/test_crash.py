"""kill -9 in every stage, then the same command: the same scores as an undisturbed run."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from loss_weights import efficientnet, vgg16

WORDS = [
    *[
        "run",
        "lmm",
        "--dataset",
        "digits",
        "--steps",
        "60",
        "--batch",
        "32",
        "--samples",
        "100",
        "--nfe",
        "1,2,4",
    ],
    *["-o", "pairs=600", "-o", "pair_steps=6", "-o", "width=16", "--checkpoint-every", "0.2"],
]
# What is on disk or in the database when a stage is under way.
STAGES = {
    "teacher": "digits-edm-*/train.pt",
    "pairs": "pairs-*/*.safetensors",
    "lines": "digits-lmm-*/lines.pt",
    "sampling": "digits-lmm-*/samples-nfe1-*",
}
COSTS = ("ms-per-sample", "peak-mib", "train-seconds", "train-seconds:teacher")


def start(folder, words=WORDS):
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"FLOWBENCH_DB": str(folder / "results.db")}
    command = [sys.executable, "-m", "flowbench", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A shell's background jobs ignore SIGINT, and so would what they start.
    return subprocess.Popen(command, env=environment, text=True, preexec_fn=listen, **pipes)


def listen():
    """Let Ctrl-C reach the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def query(folder, words):
    with sqlite3.connect(folder / "results.db") as connection:
        return connection.execute(words).fetchall()


def scores(folder):
    """Every score except times and memory."""
    words = "select subject, name, nfe, n, value from scores where name not like '%-seconds%'"
    found = query(folder, words)
    kept = [row for row in found if row[1] not in COSTS]
    assert len({row[:4] for row in kept}) == len(kept), "a score was made twice"
    return sorted(kept)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return scores(folder)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_loses_nothing(stage, undisturbed, tmp_path):
    process = start(tmp_path)
    while not list((tmp_path / "runs").glob(STAGES[stage])):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert query(tmp_path, "select outcome from attempts") == [("running",)]
    process = start(tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert query(tmp_path, "select outcome from attempts") == [("lost",), ("ok",)]
    assert scores(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_is_recorded_and_resumed(number, undisturbed, tmp_path):
    process = start(tmp_path)
    while not list((tmp_path / "runs").glob(STAGES["lines"])):
        time.sleep(0.005)
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 4 and "Traceback" not in output
    assert query(tmp_path, "select outcome from attempts") == [("interrupted",)]
    process = start(tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert scores(tmp_path) == undisturbed


# Perceptual, adversarial and sampling-optimised training, on networks of random weights.
RECIPE = [
    *("run", "lmm", "--dataset", "digits", "--preset", "cifar10", "--network", "small"),
    *(
        "--precision",
        "fp32",
        "--augment",
        "none",
        "--steps",
        "10",
        "--batch",
        "2",
        "--samples",
        "40",
    ),
    *("-o", "pairs=600", "-o", "pair_steps=6", "-o", "width=16", "--checkpoint-every", "0"),
    *("-o", "sizes=32,128", "-o", "features=efficientnet", "-o", "adversarial=0.6"),
]
RECIPE_STAGES = {
    **{name: STAGES[name] for name in ("teacher", "pairs", "lines")},
    "adversarial": "digits-lmm-*/adversarial.pt",
    "adversarial-sot": "digits-lmm-*/adversarial-sot.pt",
    "sampling": STAGES["sampling"],
}


@pytest.mark.slow
def test_a_recipe_that_is_killed_in_every_stage_loses_nothing(tmp_path):
    files = {"vgg16": vgg16(tmp_path), "efficientnet": efficientnet(tmp_path)}
    words = [*RECIPE, *(f"--feature-weights={name}={file}" for name, file in files.items())]
    process = start(tmp_path / "undisturbed", words)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    folder = tmp_path / "killed"
    for pattern in RECIPE_STAGES.values():
        process = start(folder, words)
        while not list((folder / "runs").glob(pattern)):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        process.kill()
        process.communicate()
    process = start(folder, words)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    outcomes = query(folder, "select outcome from attempts")
    assert outcomes == [*[("lost",)] * len(RECIPE_STAGES), ("ok",)]
    assert scores(folder) == scores(tmp_path / "undisturbed")
