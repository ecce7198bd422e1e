"""What the tests of the store share: a fresh database, a run, other workers, real processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from other_workers import Worker

import flowbench
from flowbench.records import Budget, Spec
from flowbench.store import Store
from flowbench.store.spool_files import Folder

ROOT = str(Path(flowbench.__file__).parents[1])

# Every child imports first and starts on a sign, so that all of them meet at the database.
PRELUDE = """
import sys
from flowbench.records import Budget, Score, Spec
from flowbench.store import Store
from flowbench.store.spool_files import Folder
url, number = sys.argv[1], int(sys.argv[2])
spec = Spec("lmm", "digits", number, Budget(10, 2))
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'results.db'}"


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every database has a spool, as on a network file system."""
    monkeypatch.setenv("FLOWBENCH_SPOOL", "always")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The spool of the database."""
    return Folder(tmp_path / "results.db")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def server() -> Iterator[servers.Server]:
    """A real PostgreSQL server; where there is none, the test is skipped and says what to do."""
    if reason := servers.missing():
        pytest.skip(reason)
    with servers.serving() as running:
        yield running


@pytest.fixture(params=["memory", "file", "spool", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty database of each kind."""
    monkeypatch.setenv("FLOWBENCH_SPOOL", "always" if request.param == "spool" else "never")
    if request.param == "postgresql":
        return request.getfixturevalue("server").new()
    return "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'results.db'}"


@pytest.fixture
def anywhere(place: str) -> Iterator[Store]:
    """A store over a database of each kind."""
    opened = Store(place)
    yield opened
    opened.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this machine that lives."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def elsewhere() -> Worker:
    """A worker on another machine."""
    return Worker("another-host", 7, "another-boot-7")


@pytest.fixture
def spec() -> Spec:
    return Spec(
        method="lmm",
        dataset="digits",
        seed=3,
        budget=Budget(steps=10, batch=2),
        options={"sigma": 0.5, "steps": 18},
        changed={"sigma": 0.5},
        teacher="edm-key",
        data="data-hash",
        code="code-hash",
        version="flowbench 0.1",
    )


@pytest.fixture
def start(url: str) -> Iterator[Callable[[str, int], list[subprocess.Popen[str]]]]:
    """Start processes that run some code on the same database, all at once."""
    children: list[subprocess.Popen[str]] = []

    def start_all(code: str, count: int) -> list[subprocess.Popen[str]]:
        started = [child(code, url, number) for number in range(count)]
        children.extend(started)
        for process in started:
            assert process.stdout and process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        return started

    yield start_all
    for process in children:
        process.kill()
        process.communicate()


def child(code: str, url: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, url, str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
        text=True,
    )
