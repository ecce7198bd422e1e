"""What the tests of launchers share: a small suite, its driver as a process, and its scores."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flowbench.store import Store

HEAD = '[suite]\ntitle = "T"\ndataset = "moons"\nbatch = 16\nsamples = 50\nnfe = [1]\nsteps = 20\n'
EDM = '[[method]]\nlabel = "EDM"\nmethod = "edm"\n'
CFM = '[[method]]\nlabel = "CFM"\nmethod = "cfm"\nsteps = 1500\n'
LMM = '[[method]]\nlabel = "LMM"\nmethod = "lmm"\noptions = { pairs = 64, pair_steps = 3 }\n'
SUITE = HEAD + LMM + EDM + CFM  # the student stands before its teacher
TIMED = ("ms-per-sample", "peak-mib")


def write(folder: Path, text: str) -> Path:
    """The suite as a file."""
    folder.mkdir(exist_ok=True)
    path = folder / "suite.toml"
    path.write_text(text)
    return path


def start(folder: Path, *words: str, url: str = "", **environment: str) -> subprocess.Popen[str]:
    """The driver of the suite in that folder, in a session of its own."""
    command = [sys.executable, "-m", "flowbench", "run", "--suite", str(folder / "suite.toml")]
    command += ["--checkpoint-every", "0.2", "--runs", str(folder / "runs"), *words]
    more = {"FLOWBENCH_DB": url or str(folder / "results.db"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=os.environ | more | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], code: int) -> str:
    """The output of a driver that ends with this exit code."""
    try:
        output, _ = process.communicate(timeout=500)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(output) from None
    assert process.returncode == code, output
    return output


def store(folder: Path, url: str = "") -> Store:
    """Its results."""
    return Store.open_existing(url or f"sqlite:///{folder / 'results.db'}")


def scores(folder: Path, url: str = ""):
    """Every score but times and memory, with its run."""
    rows = [(row.run, row.score) for row in store(folder, url).measured("moons")]
    found = [(run, s.name, s.nfe, s.subject, s.value) for run, s in rows]
    kept = [row for row in found if row[1] not in TIMED and "seconds" not in row[1]]
    assert len({row[:4] for row in kept}) == len(kept), "a score was made twice"
    return sorted(kept, key=str)


def of(found, method: str):
    """Those of a method."""
    return [row for row in found if f"-{method}-" in row[0]]


def outcomes(folder: Path, url: str = ""):
    """(method, outcome) of all attempts, in their order."""
    return [(t.spec.method, t.outcome) for t in store(folder, url).tried("moons")]


def training(folder: Path, process: subprocess.Popen[str], method: str = "cfm") -> None:
    """Wait until a run has a checkpoint of its training."""
    until(lambda: list((folder / "runs").glob(f"moons-{method}-*/train.pt")), process)


def until(condition, process: subprocess.Popen[str] | None = None, seconds: float = 300):
    """Wait until something is so, while a process runs; returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        late = time.monotonic() > deadline
        if process is not None and (late or process.poll() is not None):
            process.kill()
            raise AssertionError(process.communicate()[0])
        assert not late
        time.sleep(0.02)
    return found


def worker(folder: Path, url: str = "", method: str = "cfm") -> int:
    """The process of the attempt at a run that is open, or 0."""
    found = store(folder, url).holders([t.spec.key for t in store(folder, url).tried("moons")])
    tried = {t.spec.key: t.spec.method for t in store(folder, url).tried("moons")}
    return next((h.pid for h in found.values() if tried[h.key] == method and h.alive), 0)


def kill(process: subprocess.Popen[str]) -> None:
    """End what a test has left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
