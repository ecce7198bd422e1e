"""What the tests of launchers share: drivers that end with their test, and undisturbed scores."""

import sys
from pathlib import Path

import launched
import pytest

sys.path.append(str(Path(__file__).parents[1] / "store"))  # servers.py


@pytest.fixture
def start():
    """Start drivers that end with the test."""
    started = []

    def begin(*words, **more):
        started.append(launched.start(*words, **more))
        return started[-1]

    yield begin
    for process in started:
        launched.kill(process)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The scores of the suite as this machine's own processes make them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    launched.write(folder, launched.SUITE)
    process = launched.start(folder, "--launcher", "local", "--jobs", "2")
    launched.ended(process, 0)
    launched.kill(process)
    return launched.scores(folder)
