"""Jobs as tasks of a Ray cluster that runs already."""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flowbench import faults
from flowbench.engines import Death
from flowbench.launchers import far
from flowbench.launchers.errand import Errand
from flowbench.processes import LIMITS
from flowbench.records import FlowbenchError

MISSING = "--launcher ray needs the package ray: pip install ray"
ABSENT = "start one with: ray start --head (and on other machines: ray start --address HOST:6379)"
CLOSED = "where it asks for a token, export RAY_AUTH_MODE=token; else"
KNOCK = 5.0  # seconds


def run(errand: Errand) -> Any:
    """Do a job in a worker of Ray: its Ended, or None if it was asked to end."""
    return errand.done()


class Job(far.Job):
    """A task of Ray, known by the reference to its result."""

    ref: Any
    _result: Any = None  # (Ended or None, error or None), once it is over

    def over(self) -> bool:
        """Whether its result is there, or will never be."""
        import ray

        if self._result is None and ray.wait([self.ref], timeout=0)[0]:
            try:
                self._result = ray.get(self.ref), None
            except ray.exceptions.RayError as error:
                self._result = None, error
        return self._result is not None

    def lag(self) -> float:
        """No time: what is returned is there with the end."""
        return 0.0

    def word(self) -> Any:
        """What it has returned, else its last message."""
        return (self._result[0] if self._result else None) or self._last

    def terminate(self) -> None:
        """Ask it to store where it is and to end; take it out of the queue if it is there."""
        self._cancel(force=False)

    def kill(self) -> None:
        """End its process."""
        self._cancel(force=True)

    def _cancel(self, force: bool) -> None:
        import ray

        with suppress(ray.exceptions.RayError, ValueError):
            ray.cancel(self.ref, force=force)

    def death(self) -> Death:
        """How it ended, by the error that Ray has in the place of its result."""
        import ray

        error = self._result[1] if self._result else None
        known = ray.exceptions
        if error is None or isinstance(error, known.TaskCancelledError):
            return Death("interrupted", faults.words(faults.INTERRUPTED, False), True)
        raised = isinstance(error, known.RayTaskError)  # a trace, whose last line says what
        lines = str(error).strip().splitlines() or [""]
        words = f"its Ray worker ended: {type(error).__name__}: {lines[-1 if raised else 0]}"
        return Death("lost", words, not raised)


class Ray:
    """The engine: a task for each job, in a process of its own, which ends with it."""

    def __init__(self, launcher: Any, terms: far.Terms):
        import ray

        self._office = far.Office(terms, launcher.gpus)
        more = {"memory": launcher.resources["memory"]} if launcher.memory else {}
        threads = dict.fromkeys(LIMITS, str(terms.threads)) if terms.threads else {}
        self._run = ray.remote(max_calls=1, max_retries=0)(run).options(
            num_cpus=launcher.cpus,
            num_gpus=launcher.gpus,
            runtime_env={"env_vars": threads},
            **more,
        )
        self.close = self._office.clear

    def start(self, job: Any, name: str) -> Job:
        """Hand a job to the cluster, which begins it as soon as a node has what it needs."""
        errand = self._office.errand(job, name)
        found = Job(far.post.Box(Path(errand.post)))
        found.ref = self._run.remote(errand)
        self._office.jobs.append(found)
        return found

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """Return when one of them has ended, or so long from now."""
        import ray

        ready, _ = ray.wait([job.ref for job in jobs], num_returns=1, timeout=seconds)
        if ready:
            time.sleep(0.02)  # one that was closed already stays ready

    def stop(self, jobs: Sequence[Job]) -> None:
        """Cancel them all: what is queued is gone, what runs stores where it is."""
        far.stop(self._office.left(), 0.1)


@contextmanager
def opened(launcher: Any, terms: far.Terms) -> Iterator[Ray]:
    """The engine, as long as it is needed; raises FlowbenchError where there is no cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise FlowbenchError(MISSING) from error
    mine = not ray.is_initialized()
    if mine:
        _join(launcher.address)
    _look_for(launcher, terms)
    engine = Ray(launcher, terms)
    try:
        yield engine
    finally:
        engine.close()
        if mine:
            ray.shutdown()


def _join(address: str) -> None:
    """Connect this process to the cluster, and leave its signals as they are."""
    import ray

    _knock(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        words = f"there is no Ray cluster at {address} that takes this process"
        raise FlowbenchError(f"{words}: {CLOSED} {ABSENT}") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Raise FlowbenchError if nobody listens there: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # a word of Ray's
    try:
        socket.create_connection((host, int(port)), KNOCK).close()
    except (OSError, OverflowError) as error:
        raise FlowbenchError(f"there is no Ray cluster at {address}: {ABSENT}") from error


def _look_for(launcher: Any, terms: far.Terms) -> None:
    """Say so if no node offers now what a job asks for, or none but this one sees the runs."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = launcher.resources
    if not any(all(n["Resources"].get(k, 0) >= v for k, v in asked.items()) for n in nodes):
        words = ", ".join(f"{name} {number:g}" for name, number in asked.items())
        terms.note(f"no node of the Ray cluster offers {words} now: jobs wait until one does")
    if len({node["NodeManagerAddress"] for node in nodes}) > 1:
        far.warn_of(terms)
