"""Jobs of SLURM, by submitit; its executor on this machine stands in where there is no SLURM."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from flowbench import faults
from flowbench.engines import Death
from flowbench.launchers import far, post, queues
from flowbench.processes import limited
from flowbench.records import FlowbenchError

MISSING = "--launcher slurm needs the package submitit: pip install submitit"
WARNING = 120  # seconds before its limit when a job is asked to store where it is
UNLOGGED = 53  # what SLURM's exit code says where a node cannot open the log
ASK = "ask for more, such as --launcher slurm,memory=64G"
TIMES = 1000  # that a job may reach its limit of time: it goes on from where it was


class Job(far.Job):
    """A job of SLURM."""

    queue: Any  # a Queue or a Stand
    given: Any  # submitit's
    _state: str = ""  # as of the last look

    @property
    def _result(self) -> Path:
        return Path(self.given.paths.result_pickle)

    def over(self) -> bool:
        """Whether its result is there, or SLURM says that it has ended."""
        if self._result.exists():
            return True
        state = self.queue.state(self.given.job_id)
        if state != self._state:  # what was seen before its begin says nothing after it
            self._state, self.queued = state, self.queued or state in queues.WAITING
        return state not in queues.UP

    def word(self) -> Any:
        """What it has returned, else its last message."""
        outcome, result = self._outcome()
        return result if outcome == "success" else self._last

    def _outcome(self) -> tuple[str, Any]:
        from submitit.core.utils import pickle_load

        try:
            return pickle_load(self._result) if self._result.exists() else ("", None)
        except (OSError, EOFError):
            return "", None

    def terminate(self) -> None:
        """Ask it to store where it is and to end."""
        self.queue.cancel(self.given.job_id, kill=False)

    def kill(self) -> None:
        """End it at once."""
        self.queue.cancel(self.given.job_id, kill=True)

    def lag(self) -> float:
        """A job of this machine is heard at once."""
        return far.LAG if isinstance(self.queue, queues.Queue) else 0.0

    def death(self) -> Death:
        """How it ended, by its state and its exit code."""
        number, log = self.given.job_id, self.log
        state, (outcome, trace) = self.queue.state(number), self._outcome()
        if outcome == "error":
            line = trace.strip().splitlines()[-1]
            return Death("failed", f"its job {number} broke: {line}; its log: {log}", False)
        if state == "CANCELLED":
            return Death("interrupted", f"its job {number} was cancelled (scancel)", False)
        if state in queues.BROKEN:
            more = f": {ASK}" if state == "OUT_OF_MEMORY" else ""
            return Death("lost", f"its job {number} ended as {state}{more}; its log: {log}", True)
        code = self.queue.code(number)
        if code == -UNLOGGED:
            words = f"the node of its job {number} does not see {log}: {far.SHARE}"
            return Death("failed", words, False)
        words = faults.words(code, False) if code else f"its job ended as {state}"
        fault = faults.of_exit(code) or not code
        words = f"{words}; its log: {log}{_end(log) if code and code > 0 else ''}"
        return Death(faults.outcome(code) if code else "lost", words, fault)


def _end(log: Path | None) -> str:
    """The last line of a log, if it can be read."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log else []
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last and f", which ends with: {last}"


class Slurm:
    """The engine: `sbatch` for each job."""

    def __init__(self, launcher: Any, terms: far.Terms):
        self._office = far.Office(terms, launcher.gpus)
        self._launcher, self._terms = launcher, terms
        self._queue: Any = (
            queues.Queue(terms.note) if launcher.executor == "slurm" else queues.Stand()
        )
        self._executor: Any = None
        self.close = self._office.clear

    def start(self, job: Any, name: str) -> far.Job:
        """Hand a job to SLURM.

        Raises FlowbenchError, in its words, if it does not take the first; a later one that it
        does not take has met a fault that may pass.
        """
        errand = self._office.errand(job, name)
        box = post.Box(Path(errand.post))
        self._executor = self._executor or self._opened()
        if self._launcher.executor == "slurm":
            self._executor.update_parameters(job_name=f"fb-{name}")
        # A process of this machine would have the signals blocked for all its life.
        whole = far.unbroken() if self._launcher.executor == "slurm" else nullcontext()
        try:
            with limited(self._terms.threads), whole, _outside():
                return self._taken(box, self._submitted(errand))
        except FlowbenchError as error:
            if not self._office.jobs:
                raise
            return far.Refused(box, str(error))

    def _taken(self, box: post.Box, given: Any) -> Job:
        found = Job(box)
        found.queue, found.given = self._queue, given
        found.log = Path(given.paths.stderr)
        if isinstance(self._queue, queues.Stand):
            self._queue.jobs[given.job_id] = given
        if not self._office.jobs:
            self._terms.note(f"logs of the jobs, by their numbers: {self._office.folder}")
        self._office.jobs.append(found)
        return found

    def _submitted(self, errand: Any) -> Any:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            return self._executor.submit(errand)
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            lines = str(error).strip().splitlines() or [str(error.__cause__)]
            said = [line for line in lines if "error" in line.lower()] or lines
            raise FlowbenchError(f"SLURM takes no job: {said[-1].strip()}") from error

    def _opened(self) -> Any:
        import submitit

        asked, folder = self._launcher, self._office.folder
        minutes = max(1, int(asked.seconds // 60))
        warning = min(WARNING, int(asked.seconds // 3))
        if asked.executor == "local":
            found: Any = submitit.LocalExecutor(folder, max_num_timeout=TIMES)
            found.update_parameters(
                timeout_min=minutes, signal_delay_s=warning, gpus_per_node=asked.gpus
            )
            return found
        found = submitit.SlurmExecutor(folder, max_num_timeout=TIMES)
        found.update_parameters(time=minutes, signal_delay_s=warning, **resources(asked))
        return found

    def wait(self, jobs: Sequence[Job], seconds: float) -> None:
        """Wait a little: SLURM calls nobody."""
        time.sleep(self._queue.every)

    def stop(self, jobs: Sequence[Job]) -> None:
        """Cancel them all: what is queued is gone, what runs stores where it is."""
        far.stop(self._office.left(), min(self._queue.every, 1.0))


def resources(asked: Any) -> dict[str, Any]:
    """What a job asks of SLURM, as submitit names it."""
    named = {name: getattr(asked, name) for name in ("partition", "account", "qos", "constraint")}
    found: dict[str, Any] = {name: value for name, value in named.items() if value}
    found |= {"cpus_per_task": asked.cpus} if asked.cpus else {}
    found |= {"gpus_per_node": asked.gpus} if asked.gpus else {}
    more = {"mem": asked.memory} if asked.memory else {}
    return found | {"additional_parameters": {"requeue": True, **more}}


@contextmanager
def _outside() -> Iterator[None]:
    """Hide that this process is in a job of SLURM: what that asked for is not for the next one."""
    inside = "SLURM_JOB_ID" in os.environ
    names = [n for n in os.environ if inside and n.startswith("SLURM_") and n != "SLURM_CONF"]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def opened(launcher: Any, terms: far.Terms) -> Iterator[Slurm]:
    """The engine, as long as it is needed; raises FlowbenchError where there is none."""
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise FlowbenchError(MISSING) from error
    if launcher.executor == "slurm":
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise FlowbenchError(
                "there is no SLURM here (no sbatch in PATH): run this on a login node, or take"
                " --launcher local or ray"
            )
        far.warn_of(terms)
    engine = Slurm(launcher, terms)
    try:
        yield engine
    finally:
        engine.close()
