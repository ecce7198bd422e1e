"""Cells side by side: a job for each, so that one which dies takes no other with it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowbench import division
from flowbench.agenda import Task, priorities
from flowbench.engines import Engine, Handle
from flowbench.execution import Ended, Opened
from flowbench.heartbeat import Heart
from flowbench.limits import Limits, span
from flowbench.training import Progress

LOOK = 0.5  # seconds between looks at what may start
PAUSE = 2.0  # seconds before the first new try after a fault; each further one waits twice as long
LONGEST = 60.0  # seconds of such a pause
OPEN = ("waiting", "elsewhere")
BUSY = ("queued", "running")


@dataclass
class Status:
    """What is known of a task: waiting, running, elsewhere, done, failed or interrupted.

    What is queued was handed to an engine that has no place for it yet. Before `rest` (monotonic)
    it is not started, after `faults` of the machine or after it was `refused` because another
    worker holds it.
    """

    task: Task
    word: str = "waiting"
    progress: Progress | None = None
    begun: float = 0.0
    ended: float = 0.0
    failure: str = ""
    faults: int = 0
    refused: int = 0
    rest: float = 0.0

    @property
    def left(self) -> bool:
        """Whether it is still to be done."""
        return self.word not in ("done", "failed")


Watch = Callable[[Status, str], None]  # the status that changed, and a note of the run or ""


@dataclass
class Crew:
    """Runs tasks as at most `jobs` jobs of an engine at a time, teachers before their students."""

    engine: Engine
    job: Callable[[Task], Any]
    jobs: int
    watch: Watch
    made: Callable[[str], bool] = lambda name: False  # whether a shared teacher's network is there
    limits: Limits = field(default_factory=Limits)
    shared: division.Alone = field(default_factory=division.Alone)
    pause: float = PAUSE

    def run(self, statuses: Sequence[Status]) -> None:
        """Run all that wait, until the limit of time; workers store where they are first.

        So they do on an interruption.
        """
        rank = priorities([status.task for status in statuses])
        self._order = sorted(statuses, key=lambda status: -rank[status.task.key])
        self._of = {id(status.task): status for status in statuses}
        self._running: list[tuple[Status, Handle]] = []
        self._looked, self._begun = 0.0, time.monotonic()
        with Heart(self.shared, self._lose) as self._heart:
            try:
                while self._lasts():
                    self._look()
                    self._start()
                    self._listen()
                    self._running = [pair for pair in self._running if not self._ended(*pair)]
            finally:
                self._stop()

    def _lasts(self) -> bool:
        hours = self.limits.hours
        late = hours is not None and time.monotonic() - self._begun >= 3600 * hours
        return not late and any(s.word in (*OPEN, *BUSY) for s in self._order)

    def _look(self) -> None:
        """Now and then, see what others hold, and what of that they have ended."""
        now = time.monotonic()
        if now - self._looked < division.LOOK:
            return
        self._looked = now
        mine = {status.task.key for status, _ in self._running}
        found = [s for s in self._order if s.word in OPEN and s.task.key not in mine]
        held = self.shared.held([status.task for status in found])
        for status in found:
            if status.task.key in held:
                self._put(status, "elsewhere")
                status.refused = 0
            elif status.word == "elsewhere" and now >= status.rest and not self._settle(status):
                self._put(status, "waiting")

    def _put(self, status: Status, word: str) -> None:
        if status.word != word:
            status.word, status.begun, status.progress = word, time.monotonic(), None
            self.watch(status, "")

    def _settle(self, status: Status) -> bool:
        """Whether another worker has ended it; then it has ended here, too."""
        failure = self.shared.settled(status.task)
        if failure is not None:
            self._end(status, failure)
        return failure is not None

    def _start(self) -> None:
        for status in self._order:
            if len(self._running) >= self.jobs:
                return
            if status.word == "waiting" and self._may_start(status) and not self._settle(status):
                worker = self.engine.start(self.job(status.task), status.task.plan.spec.name)
                self._running.append((status, worker))
                self._put(status, BUSY[not worker.queued])
                if self.limits.timeout is not None:
                    worker.limit(self.limits.timeout, self._conclude_late)

    def _may_start(self, status: Status) -> bool:
        """Whether its teachers have ended and it would not wait for what another one makes."""
        task = status.task
        teachers = [self._of[id(t)] for t in task.teachers if id(t) in self._of]
        if time.monotonic() < status.rest or any(teacher.left for teacher in teachers):
            return False
        broken = next((t for t in teachers if t.word == "failed"), None)
        if broken is not None:
            self._end(status, f"its teacher failed: {broken.task.cell.name}")
            return False
        busy = [other.task for other, _ in self._running]
        shared = {name for other in busy for name in other.shared if not self.made(name)}
        return not task.shared & shared and all(task.key != other.key for other in busy)

    def _listen(self) -> None:
        if not self._running:
            time.sleep(min(LOOK, self.pause) / 5)
            return
        self.engine.wait([worker for _, worker in self._running], LOOK)
        for status, worker in self._running:
            self._hear(status, worker)

    def _hear(self, status: Status, worker: Handle) -> None:
        for message in worker.read():
            if isinstance(message, Ended):
                worker.ended = message
            elif isinstance(message, Opened):
                worker.attempt = message.attempt
                self.shared.opened(message.attempt)
                if not worker.distant:
                    self._heart.add(message.attempt)
            else:
                self._put(status, BUSY[not worker.queued])  # it began before it said so
                status.progress = message if isinstance(message, Progress) else status.progress
                self.watch(status, message if isinstance(message, str) else "")
        if worker.alive:
            self._put(status, BUSY[not worker.queued])

    def _lose(self, attempt: int) -> None:
        """End the worker of an attempt that is another's by now: it has nothing to save."""
        for _, worker in list(self._running):
            if worker.attempt == attempt and not worker.overdue:
                worker.superseded = True
                worker.kill()

    def _ended(self, status: Status, worker: Handle) -> bool:
        if worker.alive and worker.ended is None:
            return False
        self._hear(status, worker)  # what came between the last look and its end
        worker.close()
        self._heart.drop(worker.attempt)
        self._judge(status, worker)
        return True

    def _judge(self, status: Status, worker: Handle) -> None:
        """Settle how a task ended whose worker has."""
        late = worker.overdue and (worker.ended is None or worker.ended.failure)
        ended = worker.ended if worker.ended and not late else self._died(worker)
        if ended.kind == "elsewhere":
            status.refused += 1
            self._put(status, "elsewhere")
            status.rest = time.monotonic() + min(LONGEST, division.LOOK * 2**status.refused)
        elif ended.kind == "fault" and status.faults < self.limits.retries:
            pause = min(LONGEST, self.pause * 2**status.faults)
            status.faults += 1
            status.rest = time.monotonic() + pause
            self.watch(status, f"{ended.failure}; it is tried again in {pause:.0f} s")
            self._put(status, "waiting")
        else:
            self._end(status, ended.failure)

    def _died(self, worker: Handle) -> Ended:
        """Store and say how a worker ended that did not say so itself."""
        if worker.superseded:
            return Ended("another worker has taken it over", "elsewhere")
        if worker.overdue:
            return Ended(self._conclude_late(worker))
        death = worker.death()
        self.shared.conclude(worker.attempt, death.outcome, death.words)
        return Ended(death.words, "fault" if death.fault else "")

    def _conclude_late(self, worker: Handle) -> str:
        """Store that an attempt has spent its time, and say so."""
        words = f"stopped after {span(self.limits.timeout or 0.0)}, its limit (--timeout)"
        self.shared.conclude(worker.attempt, "timeout", words)
        return words

    def _end(self, status: Status, failure: str) -> None:
        status.word, status.failure = "failed" if failure else "done", failure
        status.ended = time.monotonic()
        status.begun = status.begun or status.ended
        self.watch(status, "")

    def _stop(self) -> None:
        """End the workers, which store where they are; one may just have ended well."""
        try:
            self.engine.stop([worker for _, worker in self._running])
        finally:
            for status, worker in self._running:
                self._hear(status, worker)
                if worker.ended is None or worker.ended.kind:
                    self.shared.conclude(worker.attempt, "interrupted", "")
                    self._put(status, "interrupted")
                else:
                    self._end(status, worker.ended.failure)
                worker.close()
