"""What every test stands on: a database of its own, never the one of the checkout."""

import functools
import os
import signal

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # see flowbench.cli.main
# A command in the background of a shell ignores Ctrl-C, and all that it starts would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from click.testing import CliRunner


@pytest.fixture(autouse=True)
def database(tmp_path, monkeypatch):
    """Point flowbench to an empty folder."""
    path = tmp_path / "results.db"
    monkeypatch.setenv("FLOWBENCH_DB", str(path))
    monkeypatch.setenv("FLOWBENCH_CACHE", str(tmp_path / "cache"))
    networks = ("INCEPTION", "DINOV2", "VGG16", "DEIT", "EFFICIENTNET")
    for name in ("FLOWBENCH_DATA", *(f"FLOWBENCH_{network}" for network in networks)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("FLOWBENCH_RUNS", raising=False)
    for name in ("FLOWBENCH_PLUGINS", "FLOWBENCH_DISABLED"):
        monkeypatch.setenv(name, "")
    return path


@pytest.fixture
def flowbench():
    """Run a command line in this process: (exit code, output)."""
    from flowbench.cli import cli

    def call(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, list(words))
        return result.exit_code, result.output

    return call


@pytest.fixture(scope="module")
def coarse_likelihood():
    """One step of the likelihood, whose twenty take more than the rest of a small run.

    For modules in which nobody looks at its value, and no other process makes it.
    """
    from flowbench.metrics import likelihood

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "nll", functools.partial(likelihood.nll, steps=1))
        yield
