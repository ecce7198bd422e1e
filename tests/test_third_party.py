"""Plugins in a package of their own: `pip install` and entry points are all it takes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

PACKAGE = Path(__file__).parent / "third_party"
SMALL = ["--dataset", "ring", "--steps", "20", "--batch", "32", "--nfe", "1,2", "--samples", "200"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of commands for which the package is installed."""
    folder = tmp_path_factory.mktemp("third party")  # with a space
    source = shutil.copytree(PACKAGE, folder / "source")
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    pip = [sys.executable, "-m", "pip", *words, "--target", str(folder / "site"), str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")  # where entry points are looked for
        yield {"FLOWBENCH_DB": str(folder / "r.db"), "FLOWBENCH_CACHE": str(folder / "cache")}


def call(environment, *words):
    from flowbench.cli import cli

    return CliRunner().invoke(cli, words, env=environment)


@pytest.mark.parametrize(
    "name, most",
    [("rectified", 32), ("spread", 30), ("patches", 50), ("tsv", 25), ("loud", 15)],
)
def test_each_is_short(name, most):
    assert len((PACKAGE / f"flowbench_{name}.py").read_text().splitlines()) <= most


def test_it_is_listed_with_its_origin_without_being_imported(installed):
    done = call(installed, "methods")
    assert done.exit_code == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("rectified"))
    assert "Learn the constant velocity" in line and "[flowbench-rectified 1.2]" in line
    assert "hopeless" in done.stdout


@pytest.fixture(scope="module")
def ran(installed):
    """The same environment, after a run of their method and one of ours on their data."""
    for method in ("rectified", "cfm"):
        done = call(installed, "run", method, *SMALL)
        assert done.exit_code == 0, done.stderr
    return installed


def test_it_is_compared_beside_ours(ran):
    done = call(ran, "compare", "--metric", "w2", "--metric", "spread")
    assert done.exit_code == 0, done.stderr
    assert "rectified" in done.stdout and "cfm" in done.stdout and "spread @ 2" in done.stdout
    again = call(ran, "run", "rectified", *SMALL)
    assert "every score is there already" in again.stdout


def test_the_observer_hears_of_every_run_and_what_is_there_already_is_no_event(ran):
    files = list(Path(ran["FLOWBENCH_DB"]).parent.glob("runs/ring-*/loud.txt"))
    assert len(files) == 2, "of both methods"
    for path in files:
        lines = path.read_text().splitlines()
        method = path.parent.name.split("-")[1]
        assert all(line.startswith(f"{method}: ") for line in lines)
        events = [line.split(": ")[1].partition("(")[0] for line in lines]
        assert events[0] == "Begun" and events[-1] == "Ended" and {*events} >= {"Point", "Score"}
        assert "outcome='ok'" in lines[-1] and events.count("Begun") == 1


def test_the_network_is_there_for_our_methods_and_the_format_for_all_results(ran, tmp_path):
    tiny = ["--steps", "3", "--batch", "8", "--nfe", "1", "--samples", "20", "--quiet"]
    word = "patches,channels=8,side=4"
    done = call(ran, "run", "cfm", "--dataset", "digits", "--network", word, *tiny)
    assert done.exit_code == 0, done.stderr
    done = call(ran, "report", "--method", "cfm", "-o", str(tmp_path / "report.tsv"))
    assert done.exit_code == 0, done.stderr
    rows = (tmp_path / "report.tsv").read_text().splitlines()
    assert rows[0].split("\t")[:4] == ["dataset", "label", "metric", "nfe"]
    assert any(row.startswith(f"digits\tcfm network={word}\t") for row in rows)
    assert any(row.startswith("ring\tcfm\tw2\t2\t") for row in rows)


def test_without_a_velocity_its_straightness_stays_empty(ran):
    done = call(ran, "show", "ring-rectified", "--format", "json")
    assert done.exit_code == 0, done.stderr
    names = {(score["name"], score["nfe"]) for score in json.loads(done.stdout)["scores"]}
    assert ("w2", 1) in names and "S" not in {name for name, _ in names}


def test_a_broken_plugin_breaks_nothing_but_itself(installed):
    for words in (["methods"], ["datasets"], ["methods", "rectified"]):
        assert call(installed, *words).exit_code == 0
    done = call(installed, "run", "hopeless", "--dataset", "moons")
    assert done.exit_code == 2 and "Traceback" not in done.stderr
    assert "cannot be imported: ModuleNotFoundError: No module named 'a_package" in done.stderr
    done = call(installed, "doctor")
    assert done.exit_code == 3
    assert "rectified: ok" in done.stdout and "hopeless: broken" in done.stdout
    assert "2 broken" in done.stderr
