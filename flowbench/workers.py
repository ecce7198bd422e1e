"""Cells side by side: a process for each, so that one which dies takes no other with it."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from typing import Any

from flowbench.agenda import Task, ranks
from flowbench.execution import terminable
from flowbench.records import FlowbenchError
from flowbench.training import Progress

PRELOAD = ["flowbench.execution", "flowbench.metrics.frechet", "ot", "torch._dynamo"]
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LOOK = 0.5  # seconds between looks at what may start
GRACE = 60.0  # seconds that an interrupted run may take to store where it is


@dataclass
class Status:
    """What is known of a task: waiting, running, done or failed, and since when."""

    task: Task
    word: str = "waiting"
    progress: Progress | None = None
    begun: float = 0.0
    ended: float = 0.0
    failure: str = ""


Watch = Callable[[Status, str], None]  # the status that changed, and a note of the run or ""


def _child(
    target: Callable[..., str], job: Any, environment: dict[str, str], pipe: Connection
) -> None:
    """The whole life of a worker: it ends with its parent, and as interrupted by SIGTERM."""
    os.environ.clear()  # the server has the environment of the moment when it was started
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which asks by SIGTERM
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(message: Any) -> None:
        try:
            pipe.send(message)
        except OSError:
            raise KeyboardInterrupt from None  # nobody listens any more

    with terminable():
        try:
            failure = target(job, send)
        except KeyboardInterrupt:
            raise SystemExit(4) from None
        except FlowbenchError as error:
            failure = str(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        send({"failure": failure})


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Worker:
    """A process at work on a task."""

    status: Status
    process: BaseProcess
    pipe: Connection
    finished: bool = False

    def read(self) -> Iterator[Any]:
        """The messages that have come; the last says how it ended."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            pass


@dataclass
class Crew:
    """Runs tasks in at most `jobs` processes at a time, teachers before their students."""

    target: Callable[..., str]
    job: Callable[[Task], Any]
    jobs: int
    watch: Watch
    made: Callable[[str], bool] = lambda name: False  # whether a shared teacher's network is there
    context: Any = None

    def run(self, statuses: Sequence[Status]) -> None:
        """Run all that wait; on an interruption the workers store where they are first."""
        rank = ranks([status.task for status in statuses])
        order = sorted(statuses, key=lambda status: -rank[status.task.key])
        running: list[Worker] = []
        try:
            while running or any(status.word == "waiting" for status in order):
                running += self._start(order, running)
                self._listen(running)
                running = [worker for worker in running if not self._ended(worker)]
        finally:
            stop(running)

    def _start(self, order: Sequence[Status], running: Sequence[Worker]) -> list[Worker]:
        started: list[Worker] = []
        busy = [worker.status for worker in running]
        for status in order:
            if len(busy) >= self.jobs:
                break
            if status.word == "waiting" and self._may_start(status, order, busy):
                busy.append(status)
                started.append(self._spawn(status))
        return started

    def _may_start(self, status: Status, order: Sequence[Status], busy: Sequence[Status]) -> bool:
        """Whether its teachers have ended and it would not wait for what another one makes."""
        task = status.task
        teachers = [s for s in order if any(s.task is t for t in task.teachers)]
        if any(teacher.word in ("waiting", "running") for teacher in teachers):
            return False
        broken = next((t for t in teachers if t.word == "failed"), None)
        if broken is not None:
            self._end(status, f"its teacher failed: {broken.task.cell.name}")
            return False
        shared = {name for other in busy for name in other.task.shared if not self.made(name)}
        return not task.shared & shared and all(task.key != other.task.key for other in busy)

    def _spawn(self, status: Status) -> Worker:
        receiver, sender = self.context.Pipe(duplex=False)
        words = (self.target, self.job(status.task), dict(os.environ), sender)
        process = self.context.Process(target=_child, args=words)
        process.start()
        sender.close()
        status.word, status.begun = "running", time.monotonic()
        self.watch(status, "")
        return Worker(status, process, receiver)

    def _listen(self, running: Sequence[Worker]) -> None:
        if not running:
            return
        wait([part for w in running for part in (w.pipe, w.process.sentinel)], LOOK)
        for worker in running:
            for message in worker.read():
                self._hear(worker, message)
        time.sleep(0.02)  # a pipe whose process is just ending is always ready

    def _hear(self, worker: Worker, message: Any) -> None:
        if isinstance(message, dict):
            worker.finished = True
            worker.status.failure = message["failure"]
            return
        if isinstance(message, Progress):
            worker.status.progress = message
        self.watch(worker.status, message if isinstance(message, str) else "")

    def _ended(self, worker: Worker) -> bool:
        if worker.process.is_alive() and not worker.finished:
            return False
        for message in worker.read():  # what came between the last look and its end
            self._hear(worker, message)
        worker.process.join(GRACE / 10)
        worker.process.kill()  # one that has said how it ended has nothing more to do
        worker.pipe.close()
        failure = worker.status.failure if worker.finished else _cause(worker.process.exitcode)
        self._end(worker.status, failure)
        return True

    def _end(self, status: Status, failure: str) -> None:
        status.word, status.failure = "failed" if failure else "done", failure
        status.ended = time.monotonic()
        self.watch(status, "")


def _cause(code: int | None) -> str:
    """Why a process ended that did not say how."""
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def stop(workers: Sequence[Worker]) -> None:
    """End the processes that still run: first politely, then by force."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE
    try:
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()


@contextmanager
def context(threads: int) -> Iterator[Any]:
    """Where processes come from: a server that has imported all that is slow, and nothing else.

    Its libraries read the limits on their threads when they are loaded.
    """
    before = {name: os.environ.get(name) for name in LIMITS}
    os.environ.update(dict.fromkeys(LIMITS, str(threads)))
    try:
        found = multiprocessing.get_context("forkserver")
        found.set_forkserver_preload(PRELOAD)
        from multiprocessing.forkserver import ensure_running

        ensure_running()
        yield found
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
