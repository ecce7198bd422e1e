"""The life of a worker: a process with a group of its own, from start to end."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from typing import Any, ClassVar

from flowbench import faults, process_table
from flowbench.engines import Death
from flowbench.execution import Ended
from flowbench.interruption import terminable
from flowbench.records import FlowbenchError

PRELOAD = ["flowbench.execution", "flowbench.metrics.frechet", "ot", "torch._dynamo"]
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
GRACE = 60.0  # seconds that an interrupted run may take to store where it is
BRIEF = 1.5  # seconds of the same at a hard limit, which holds to 2
PATIENCE = 0.3  # seconds that a hard limit waits for the database

Target = Callable[..., Ended | str]


def _child(target: Target, job: Any, environment: dict[str, str], pipe: Connection) -> None:
    """The whole life of a worker: it ends with its parent, and as interrupted by SIGTERM."""
    os.setsid()  # what it starts can be ended with it
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
            send(done(target, job, send))
        except KeyboardInterrupt:
            raise SystemExit(faults.INTERRUPTED) from None


def done(target: Target, job: Any, send: Callable[[Any], None]) -> Ended:
    """Do the job; whatever it raises but an interruption is how it ended."""
    try:
        ended = target(job, send)
    except FlowbenchError as error:
        return Ended.of(error, str(error))
    except Exception as error:
        return Ended.of(error, f"{type(error).__name__}: {error}")
    return ended if isinstance(ended, Ended) else Ended(ended)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os.killpg(0, signal.SIGKILL)


@dataclass
class Worker:
    """A process at work; `attempt` is there once it has said so, `ended` when it has ended well.

    `killings` is how many processes the system had killed for want of memory when it began.
    """

    process: BaseProcess
    pipe: Connection
    killings: int = field(default_factory=faults.killings)
    attempt: int | None = None
    ended: Ended | None = None
    overdue: bool = False
    superseded: bool = False
    gone: threading.Event = field(default_factory=threading.Event)
    queued: ClassVar[bool] = False
    distant: ClassVar[bool] = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_alive()

    def read(self) -> Iterator[Any]:
        """The messages that have come; the last says how it ended."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            pass

    def limit(self, seconds: float, conclude: Callable[["Worker"], object]) -> None:
        """End it with all that it has started, so long from now; `conclude` stores that before.

        A thread does that, whatever its parent is busy with.
        """
        threading.Thread(target=self._expire, args=(seconds, conclude), daemon=True).start()

    def _expire(self, seconds: float, conclude: Callable[["Worker"], object]) -> None:
        if self.gone.wait(seconds):
            return
        self.overdue, deadline = True, time.monotonic() + BRIEF
        storing = threading.Thread(target=conclude, args=(self,), daemon=True)
        storing.start()
        storing.join(PATIENCE)
        self.terminate()
        if not self.gone.wait(deadline - time.monotonic()):
            self.kill()

    def terminate(self) -> None:
        """Ask it to store where it is, and to end."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def kill(self, living: bool = True) -> None:
        """End it and all that it has started; unless it is `living`, what it has left behind.

        The number of a process that is no more may be another's by now.
        """
        for number in (self._pid, *process_table.descendants(self._pid)) if living else ():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)

    def death(self) -> Death:
        """How the process ended, by its exit code."""
        code = self.process.exitcode
        words = faults.words(code, faults.killings() > self.killings)
        return Death(faults.outcome(code), words, faults.of_exit(code))

    @property
    def _pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def close(self) -> None:
        """Wait for its end after its last word; what it has started ends with one that had none."""
        self.process.join(GRACE / 10 if self.ended else None)
        if self.ended is None or self.overdue:
            self.kill(living=False)
        self.process.kill()  # one that has said how it ended has nothing more to do
        self.pipe.close()
        self.gone.set()


@dataclass(frozen=True)
class Processes:
    """The engine of this machine: each job is `target(job, send)` in a process of its own."""

    context: Any
    target: Target

    def start(self, job: Any, name: str) -> Worker:
        """Start a worker for the job."""
        return spawn(self.context, self.target, job)

    def wait(self, workers: Sequence[Worker], seconds: float) -> None:
        """Return when one of them has said something or ended."""
        wait([part for each in workers for part in (each.pipe, each.process.sentinel)], seconds)
        time.sleep(0.02)  # a pipe whose process is just ending is always ready

    def stop(self, workers: Sequence[Worker]) -> None:
        """End them: first politely, then by force."""
        stop(workers)


def spawn(context: Any, target: Target, job: Any) -> Worker:
    """Start a worker with today's environment; `target(job, send)` is its work."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(target, job, dict(os.environ), sender))
    process.start()
    sender.close()
    return Worker(process, receiver)


def stop(workers: Sequence[Worker]) -> None:
    """End the processes that still run: first politely, then by force."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + GRACE
    try:
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.kill(worker.process.is_alive())


@contextmanager
def context(threads: int = 0) -> Iterator[Any]:
    """Where processes come from: a server that has imported all that is slow, and nothing else.

    Its libraries read the limits on their threads when they are loaded; without `threads` they
    are those of this process.
    """
    with limited(threads):
        found = multiprocessing.get_context("forkserver")
        found.set_forkserver_preload(PRELOAD)
        from multiprocessing.forkserver import ensure_running

        ensure_running()
        yield found


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Tell the libraries of processes that are started meanwhile how many threads they have."""
    before = {name: os.environ.get(name) for name in LIMITS}
    os.environ.update(dict.fromkeys(LIMITS, str(threads)) if threads else {})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
