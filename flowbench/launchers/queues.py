"""What SLURM says of jobs, and submitit's stand-in for it on this machine."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flowbench import faults, process_table

LOOK = 3.0  # seconds between two looks at the queue
SELDOM = 30.0  # the same where nothing has changed for a while
UP = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING"}
UP |= {"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "SPECIAL_EXIT", "STAGE_OUT", ""}
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED")
BROKEN = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "REVOKED", "GONE")
GONE = "GONE"  # SLURM has forgotten it
UNKNOWN_JOB = "Invalid job id"
# Why a job waits that only waits for its turn; what else SLURM says may need a person.
TURNS = ("", "None", "Priority", "Resources", "BeginTime", "Cleaning", "Prolog", "Dependency")
RELEASE = "scontrol release {number} lets it go on"
ADVICE = {
    "PartitionTimeLimit": "ask for less, such as --launcher slurm,time=2h",
    "JobHeldUser": RELEASE,
    "requeued": RELEASE,
}


class Queue:
    """What SLURM says of the jobs of a driver: one question for all, now and then."""

    every = LOOK

    def __init__(self, note: Callable[[str], None] = lambda text: None) -> None:
        """`note` hears why jobs wait that do not just wait for their turn."""
        self._note, self._told = note, set[str]()
        self._ids: set[str] = set()
        self._states: dict[str, str] = {}
        self._looked, self._pause = 0.0, self.every

    def state(self, number: str) -> str:
        """The state of a job as SLURM calls it, as far as the last look; empty before the first."""
        if number not in self._ids:
            self._ids.add(number)
            self._pause = self.every
        if time.monotonic() - self._looked >= self._pause:
            before = dict(self._states)
            self._look()
            self._looked = time.monotonic()
            same = before == self._states
            self._pause = min(SELDOM, 2 * self._pause) if same else self.every
        return self._states.get(number, "")

    def _look(self) -> None:
        asked = sorted(n for n in self._ids if self._states.get(n, "") in UP)
        if not asked:
            return
        words = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r"]
        answer = _call(*words, f"--jobs={','.join(asked)}")
        if answer.returncode and UNKNOWN_JOB not in answer.stderr:
            return  # it is away for a while
        rows = [line.strip().split("|", 2) for line in answer.stdout.splitlines() if line]
        found = {row[0]: row[1] for row in rows}
        for number in asked:
            if number in found or self._states.get(number) is not None or answer.returncode:
                self._states[number] = found.get(number, GONE)
        for number, state, reason in rows:
            if state in WAITING:
                self._tell(number, reason)

    def _tell(self, number: str, reason: str) -> None:
        """Say why a job waits, once for all that wait for the same."""
        if reason in TURNS or reason in self._told:
            return
        self._told.add(reason)
        advice = next((words for part, words in ADVICE.items() if part in reason), "")
        more = f": {advice.format(number=number)}" if advice else ""
        self._note(f"SLURM lets job {number} wait ({reason}){more}")

    def code(self, number: str) -> int | None:
        """The exit code of a job that has ended, negative for a signal; None if it is unknown."""
        answer = _call("scontrol", "--oneliner", "show", "job", number)
        found = re.search(r"\bExitCode=(\d+):(\d+)", answer.stdout)
        if found is None:
            return None
        code, by = int(found[1]), int(found[2])
        if by:
            return -by
        return code if code == faults.INTERRUPTED or code <= 128 else 128 - code

    def cancel(self, number: str, kill: bool) -> None:
        """End a job, or take it out of the queue; what runs gets SIGTERM first."""
        self._pause = self.every
        _call("scancel", *(["--signal=KILL", "--full"] if kill else []), number)


class Stand:
    """The same of submitit's executor on this machine, which knows no queue."""

    every = 0.1

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}

    def state(self, number: str) -> str:
        """RUNNING, or COMPLETED however it ended."""
        return "RUNNING" if self.jobs[number].state == "RUNNING" else "COMPLETED"

    def code(self, number: str) -> int | None:
        """Unknown: such a job does not keep it."""
        return None

    def cancel(self, number: str, kill: bool) -> None:
        """Ask its process to end; what watches over that ends with it."""
        if self.state(number) == "RUNNING":
            below = process_table.descendants(int(number)) if kill else []
            for each in (*below, int(number)):
                with suppress(ProcessLookupError):  # it ends by itself meanwhile
                    os.kill(each, signal.SIGKILL if kill else signal.SIGTERM)


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    # In a session of its own, it does not hear the Ctrl-C of a terminal.
    return subprocess.run(
        words, capture_output=True, text=True, check=False, start_new_session=True
    )
