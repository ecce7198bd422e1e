"""What jobs on other machines have in common, whichever engine has brought them there."""

import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flowbench.launchers import errand, post

GRACE = 60.0  # seconds that an interrupted job may take to store where it is
LAG = 15.0  # seconds that a shared file system may be late
SHARE = "put --db and --runs on a file system that all of them share"
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")


@dataclass(frozen=True)
class Terms:
    """What holds of all jobs: where runs are, `threads` of each (0: as torch likes), seconds."""

    folder: Path
    threads: int = 0
    timeout: float | None = None
    note: Callable[[str], None] = lambda text: None


@dataclass
class Job:
    """A job that an engine has taken: a `workers.Crew` sees it as one of its workers."""

    box: post.Box
    attempt: int | None = None
    ended: Any = None  # an Ended
    overdue: bool = False
    superseded: bool = False
    queued: bool = True
    stopped: bool = False  # by its driver, which queues it no more
    log: Path | None = None  # what it says on standard error; its output is beside it
    distant: ClassVar[bool] = True
    _last: Any = None
    _over: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether it is queued or runs; one that has not said how it ended may still be heard."""
        if not self.over():
            return True
        self._over = self._over or time.monotonic()
        return self.word() is None and time.monotonic() - self._over < self.lag()

    def over(self) -> bool:
        """Whether the engine says that it has ended."""
        raise NotImplementedError

    def lag(self) -> float:
        """Seconds after its end that its last word may take."""
        return LAG

    def word(self) -> Any:
        """Its Ended, where there is one."""
        return self._last

    def read(self) -> Iterator[Any]:
        """What it has said since the last look; its last word, once it is over."""
        from flowbench.execution import Ended

        for message in self.box.new():
            if isinstance(message, post.Begun | post.Paused):
                self.queued = isinstance(message, post.Paused) and not self.stopped
            elif isinstance(message, Ended):
                self._last = message
            else:
                yield message
        if self.over() and (last := self.word()) is not None:
            yield last

    def limit(self, seconds: float, conclude: Callable[[Any], object]) -> None:
        """Nothing: it ends itself so long after its begin, which may be late."""

    def terminate(self) -> None:
        """Ask it to store where it is and to end; take it out of the queue if it is there."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing: the engine clears its folder at the end."""


class Refused(Job):
    """A job that an engine does not take now; it may do so later."""

    def __init__(self, box: post.Box, words: str):
        from flowbench.execution import Ended

        super().__init__(box, _last=Ended(words, "fault"))

    def over(self) -> bool:
        """It never began."""
        return True

    def terminate(self) -> None:
        """Nothing: there is no job."""

    def kill(self) -> None:
        """Nothing: there is no job."""


class Office:
    """Where a driver keeps the files of its jobs: a folder of its own, beside the runs."""

    def __init__(self, terms: Terms, gpus: float):
        self._terms, self._gpus, self._count = terms, gpus, 0
        self._folder: Path | None = None
        self.jobs: list[Job] = []

    @property
    def folder(self) -> Path:
        """The folder, for nobody else: its files know the password of the database."""
        if self._folder is None:
            place = self._terms.folder.resolve() / ".jobs"
            place.mkdir(parents=True, exist_ok=True)
            stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-"
            self._folder = Path(tempfile.mkdtemp(prefix=stamp, dir=place))
        return self._folder

    def errand(self, job: Any, name: str) -> errand.Errand:
        """A job, packed for its way."""
        self._count += 1
        return errand.Errand(
            job=pickle.dumps(job),
            post=str(self.folder / f"{self._count}-{name}.post"),
            timeout=self._terms.timeout,
            gpus=self._gpus,
            environment=errand.surroundings(),
            folder=os.getcwd(),
            places=tuple(map(os.path.abspath, sys.path)),
        )

    def left(self) -> list[Job]:
        """The jobs that are queued or run: one may be handed over that its crew has not seen."""
        return [job for job in self.jobs if job.ended is None and not job.over()]

    def clear(self) -> None:
        """Remove what is no longer needed: all but the logs of jobs that did not end well."""
        if self._folder is None:
            return
        logs = [job.log for job in self.jobs if job.log and not _well(job)]
        kept = {*logs, *(log.with_suffix(".out") for log in logs)}
        for path in self._folder.glob("*"):
            if path not in kept:
                path.unlink(missing_ok=True)
        for folder in (self._folder, self._folder.parent):
            with suppress(OSError):
                folder.rmdir()  # unless there are logs, or other drivers have theirs there


def _well(job: Job) -> bool:
    """Whether a job has ended well, or because its driver asked it to."""
    return job.stopped if job.ended is None else not job.ended.failure


def stop(jobs: Sequence[Job], every: float) -> None:
    """End jobs: first they may store where they are; looks are so many seconds apart."""
    with unbroken():
        for job in jobs:
            job.stopped = True
            job.terminate()
    deadline = time.monotonic() + GRACE
    while not all(job.over() for job in jobs) and time.monotonic() < deadline:
        time.sleep(every)
    for job in jobs:
        if not job.over():
            job.kill()


@contextmanager
def unbroken() -> Iterator[None]:
    """Let a first Ctrl-C or SIGTERM wait until what is asked of an engine has been done.

    Else a job could be handed over of which nobody knows the number. Programs that are started
    meanwhile do not hear a Ctrl-C.
    """
    heard: list[int] = []

    def hear(number: int, frame: Any) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, hear)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def warn_of(terms: Terms) -> None:
    """Say so where other machines would not see the runs."""
    place = str(terms.folder.resolve())
    if place.startswith(TEMPORARY):
        terms.note(f"jobs on other machines do not see {place}: {SHARE}")
