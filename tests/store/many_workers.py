"""Workers that divide tiny jobs in one database, each a process: `many_workers.py url jobs ...`.

The first process forks the others and tells how each ended; all of them tell, in lines that begin
with their number, what happens to them. `--pause` makes some wait once in the middle of a job.
"""

import argparse
import os
import random
import sys
import threading
import time
import traceback

from flowbench.records import Budget, Score, Spec
from flowbench.store import Attempt, Store, leases
from flowbench.store.leases import Held, Superseded, Watch

SCORES = 4


def spec_of(job: int) -> Spec:
    """The run that a job is."""
    return Spec("lmm", "digits", job, Budget(1, 1))


def tell(*words: object) -> None:
    """One line, whole, though many write to the same pipe."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def say(*words: object) -> None:
    """What happens to this worker."""
    tell(os.getpid(), *words)


class Worker:
    """Looks for a job that is free, does it, and beats meanwhile from a thread."""

    def __init__(self, url: str, jobs: int, pause: bool, seconds: float):
        self.store, self.pause, self.seconds = Store(url), pause, seconds
        self.watch, self.beating = Watch(), threading.Lock()
        self.open: set[int] = set()
        self.dead: set[int] = set()
        self.orphans: list[int] = []
        self.jobs = list(range(jobs))
        random.Random(os.getpid()).shuffle(self.jobs)

    def beat(self) -> None:
        """The life of the thread: it beats, and watches the beats of the others."""
        while True:
            time.sleep(leases.beat())
            with self.beating:
                self.store.beat(self.open)
                held = self.store.holders([spec_of(job).key for job in list(self.jobs)])
            found = [one for one in held.values() if self.watch.expired(one)]
            self.dead = {one.attempt for one in found}
            self.orphans = [job for job in self.jobs if spec_of(job).key in {o.key for o in found}]

    def work(self) -> None:
        """Until every job is done and nobody is at work."""
        threading.Thread(target=self.beat, daemon=True).start()
        while self.jobs:
            for job in list(self.jobs):
                for orphan in [job for job in self.orphans if job in self.jobs]:
                    self.look(orphan, spec_of(orphan))
                if job in self.jobs:
                    self.look(job, spec_of(job))
            time.sleep(leases.beat())

    def look(self, job: int, spec: Spec) -> None:
        """Do this job if it is free and not done, and forget it when it is done."""
        holder = self.store.holders([spec.key]).get(spec.key)
        if holder is not None and holder.attempt not in self.dead:
            return
        try:
            if holder is not None or len(self.store.done(spec, 0)) < SCORES:
                with self.store.attempt(spec, {"device": "cpu"}, expired=self.dead) as attempt:
                    self.do(spec, attempt)
                say("did", job)
            self.jobs.remove(job)
        except Held:
            say("held", job)
        except Superseded:
            say("superseded", job)

    def do(self, spec: Spec, attempt: Attempt) -> None:
        """What is missing of a job; each score is the number of the attempt that made it."""
        self.open = {attempt.id}
        done = {nfe for _, _, nfe, _ in self.store.done(spec, 0)}
        for nfe in range(1, SCORES + 1):
            if nfe in done:
                continue
            if nfe >= SCORES // 2 and self.pause:
                self.pause = False
                with self.beating:  # whoever is stopped here holds no lock of the database
                    say("paused", attempt.id)
                    time.sleep(3)
            attempt.add(Score("fid", float(attempt.id), nfe))
            time.sleep(self.seconds)
        self.open = set()


def start(words: argparse.Namespace, pause: bool) -> int:
    """Fork one worker."""
    if pid := os.fork():
        return pid
    try:
        Worker(words.url, words.jobs, pause, words.seconds).work()
        say("finished")
        os._exit(0)
    except BaseException as error:
        say("failed", repr(error))
        traceback.print_exc()
        os._exit(1)


def main() -> None:
    """Start the workers, with `--replace` also one in the place of each that is killed."""
    parser = argparse.ArgumentParser()
    for name, kind in (("url", str), ("jobs", int), ("workers", int), ("seconds", float)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--pause", type=int, default=0)
    parser.add_argument("--replace", action="store_true")
    words = parser.parse_args()
    running = {start(words, number < words.pause) for number in range(words.workers)}
    tell("started", *running)
    while running:
        pid, status = os.wait()
        running.remove(pid)
        code = os.waitstatus_to_exitcode(status)
        tell("ended", pid, code)
        if code < 0 and words.replace:
            running.add(start(words, False))
            tell("started", *running)


if __name__ == "__main__":
    sys.exit(main())
