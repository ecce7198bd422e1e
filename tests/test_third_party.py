"""A method in a package of its own: `pip install` and an entry point are all it takes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "third_party"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process in which the package is installed."""
    folder = tmp_path_factory.mktemp("third party")  # with a space
    source = shutil.copytree(PACKAGE, folder / "source")
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    pip = [sys.executable, "-m", "pip", *words, "--target", str(folder / "site"), str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    return os.environ | {"PYTHONPATH": str(folder / "site"), "FLOWBENCH_DB": str(folder / "r.db")}


def call(environment, *words):
    command = [sys.executable, "-m", "flowbench", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_method_is_about_thirty_lines():
    assert len((PACKAGE / "flowbench_rectified.py").read_text().splitlines()) <= 32


def test_it_is_listed_with_its_origin_without_being_imported(installed):
    done = call(installed, "methods")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("rectified"))
    assert "Learn the constant velocity" in line and "[flowbench-rectified 1.2]" in line
    assert "hopeless" in done.stdout


def test_it_runs_and_is_compared_beside_ours(installed):
    small = ["--steps", "20", "--batch", "32", "--nfe", "1,2", "--samples", "200"]
    for method in ("rectified", "cfm"):
        done = call(installed, "run", method, "--dataset", "ring", *small)
        assert done.returncode == 0, done.stderr
    done = call(installed, "compare", "--metric", "w2", "--metric", "spread")
    assert done.returncode == 0, done.stderr
    assert "rectified" in done.stdout and "cfm" in done.stdout and "spread @ 2" in done.stdout
    again = call(installed, "run", "rectified", "--dataset", "ring", *small)
    assert "every score is there already" in again.stdout


def test_without_a_velocity_its_straightness_stays_empty(installed):
    done = call(installed, "show", "ring-rectified", "--format", "json")
    assert done.returncode == 0, done.stderr
    names = {(score["name"], score["nfe"]) for score in json.loads(done.stdout)["scores"]}
    assert ("w2", 1) in names and "S" not in {name for name, _ in names}


def test_a_broken_plugin_breaks_nothing_but_itself(installed):
    for words in (["methods"], ["datasets"], ["methods", "rectified"]):
        assert call(installed, *words).returncode == 0
    done = call(installed, "run", "hopeless", "--dataset", "moons")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be imported: ModuleNotFoundError: No module named 'a_package" in done.stderr
    done = call(installed, "doctor")
    assert done.returncode == 3
    assert "rectified: ok" in done.stdout and "hopeless: broken" in done.stdout
    assert "2 broken" in done.stderr
