"""The life of a worker: a process with a group of its own, from start to end."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess, parent_process
from typing import Any

from flowbench import faults
from flowbench.execution import Ended, terminable
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
            send(_done(target, job, send))
        except KeyboardInterrupt:
            raise SystemExit(faults.INTERRUPTED) from None


def _done(target: Target, job: Any, send: Callable[[Any], None]) -> Ended:
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
        for number in (self._pid, *descendants(self._pid)) if living else ():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)

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


def descendants(pid: int) -> list[int]:
    """The processes below this one, also those with a group of their own; [] if unknown."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.name.isdecimal():
            with (
                suppress(OSError, ValueError, IndexError),
                open(f"{entry.path}/stat", "rb") as file,
            ):
                parents[int(entry.name)] = int(file.read().rpartition(b")")[2].split()[1])
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]


@contextmanager
def context(threads: int = 0) -> Iterator[Any]:
    """Where processes come from: a server that has imported all that is slow, and nothing else.

    Its libraries read the limits on their threads when they are loaded; without `threads` they
    are those of this process.
    """
    before = {name: os.environ.get(name) for name in LIMITS}
    os.environ.update(dict.fromkeys(LIMITS, str(threads)) if threads else {})
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
