"""One kill carried out: the command is killed, goes on until it has finished, and is looked at."""

import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crash_picture
from crash_jobs import World
from crash_matrix import Kill, Undisturbed, picture, traced

INTERRUPTED = 4
GRACE = 10.0  # seconds from a polite signal to the end of the process
CREW_GRACE = 60.0  # of all processes of a suite
STARTS = 4  # plain ones, until the command has to have finished


@dataclass
class Result:
    """What became of a kill; `trouble` is empty where all is as undisturbed."""

    kill: Kill
    struck: int = 0
    resumed: bool = False
    repeated: int = 0
    grace: float = 0.0
    trouble: list[str] = field(default_factory=list)


def carried_out(world: World, kill: Kill, known: Undisturbed, defect: str = "") -> Result:
    """Kill, go on until it has finished, and look."""
    folder = world.folder / "kills" / f"{kill.number}"
    shutil.rmtree(folder, ignore_errors=True)
    kill.job.begin(world, folder)
    return Trial(world, kill, known, folder, defect).result()


@dataclass
class Trial:
    """A kill that is being carried out in a folder."""

    world: World
    kill: Kill
    known: Undisturbed
    folder: Path
    defect: str
    ends: list[str] = field(default_factory=list)  # the outcomes that attempts have to have
    traces: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ends = crash_picture.outcomes(self.folder) if self.kill.job.whole else []
        self.of = Result(self.kill)

    def result(self) -> Result:
        """What became of it."""
        self._killed(self._first())
        if self.kill.again:
            self._killed({"after": self.kill.again * self.known.seconds})
        for _ in range(STARTS):
            self.of.resumed = self._start(None)["code"] == 0
            if self.of.resumed:
                break
        self._look()
        return self.of

    def _first(self) -> dict[str, Any]:
        kill = self.kill
        if not kill.place:
            return {"after": kill.share * self.known.seconds}
        return {"place": kill.place, "moment": kill.moment, "nth": kill.nth}

    def _start(self, how: dict[str, Any] | None) -> dict[str, Any]:
        """Start the command and see to it that a new attempt is as it has to be."""
        before = self._outcomes()
        given = how and how | {"signal": int(self.kill.signal)}
        job, more = self.kill.job, {"kill": given, "defect": self.defect}
        ended = self.world.start(self.folder, job.words, job, **more)
        self.traces.append(traced(ended))
        self.of.trouble += crash_picture.faults(self.folder)
        after = self._outcomes()
        if len(after) > len(before):
            self.ends.append(self._verdict(after[-1], ended))
        return ended

    def _outcomes(self) -> list[str]:
        there = (self.folder / "results.db").exists()
        return crash_picture.outcomes(self.folder) if there else []

    def _verdict(self, outcome: str, ended: dict[str, Any]) -> str:
        """How the attempt of a start that has ended has to be known from now on."""
        if self.kill.job.crew:
            return outcome
        if self._when(ended) is None or outcome == "ok":
            return self._wanted(outcome, "ok")
        # Between a commit and what it returns, nobody can know yet which attempt to end.
        if self.kill.signal == signal.SIGKILL or "opened" not in self.traces[-1]:
            self._wanted(outcome, "running")
            return "lost"
        if ended["code"] != INTERRUPTED:
            self.of.trouble.append(f"{self.kill.signal.name} made exit code {ended['code']}")
        return self._wanted(outcome, "interrupted")

    def _wanted(self, outcome: str, wanted: str) -> str:
        if outcome != wanted:
            self.of.trouble.append(f"an attempt is {outcome} and not {wanted}")
        return wanted

    def _when(self, ended: dict[str, Any]) -> float | None:
        """When the signal was sent, None where it was too late."""
        if ended["killed"] and ended["code"] == 0:
            return None  # by the clock, while the process was already leaving
        own = [float(line.split()[1]) for line in traced(ended) if line.startswith("kill ")]
        return next(iter([*own, *ended["killed"]]), None)

    def _killed(self, how: dict[str, Any]) -> None:
        """Kill it once, and look at what is there while it is dead."""
        ended = self._start(how)
        when = self._when(ended)
        if when is None:
            return
        self.of.struck += 1
        code, sent = ended["code"], self.kill.signal
        if sent != signal.SIGKILL:
            self.of.grace = max(self.of.grace, ended["ended"] - when)
            if self.of.grace > (CREW_GRACE if self.kill.job.crew else GRACE):
                self.of.trouble.append(f"it took {self.of.grace:.1f} s to end")
        expected = (-sent,) if sent == signal.SIGKILL else (INTERRUPTED, -sent, 0, 130)
        # A crew goes on without a worker that was killed, or says that its run has failed.
        if code not in ((*expected, 0, 3) if self.kill.job.crew else expected):
            output = (self.folder / "output").read_text()[-300:]
            self.of.trouble.append(f"exit code {code} after {sent.name}: {output}")
        if self.kill.job.whole:
            self.of.trouble += self._halves()
        told = sum(trace.count("score") for trace in self.traces)
        there = self._outcomes() and crash_picture.stored(self.folder)
        if told and there < told:
            self.of.trouble.append(f"{told - there} of {told} scores were lost")

    def _halves(self) -> Iterator[str]:
        """Results that are neither as at the start nor as at the end."""
        begun = self.world.made(f"begin-{self.kill.job.name}", self._begin)
        for part in ("results.db", "out.zip"):
            if (self.folder / part).exists():
                found = self._part(self.folder, part)
                if found not in [self._part(place, part) for place in (begun, self.known.folder)]:
                    yield f"{part} is neither old nor new"

    def _begin(self, folder: Path) -> None:
        self.kill.job.begin(self.world, folder)

    def _part(self, folder: Path, part: str) -> Any:
        if part == "results.db":
            return crash_picture.rows(folder)
        return crash_picture.content(folder / part)

    def _look(self) -> None:
        """Hold what is there now against the undisturbed folder."""
        if not self.of.resumed:
            output = (self.folder / "output").read_text()[-300:]
            self.of.trouble.append(f"the same command does not finish: {output}")
            return
        try:
            found = picture(self.folder, self.kill.job)
        except AssertionError as error:
            self.of.trouble.append(str(error))
            return
        self.of.trouble += crash_picture.difference(self.known.picture, found)
        ends = self._outcomes()
        if self.kill.job.crew:
            self.of.trouble += self._crew(ends)
        elif not self.kill.job.whole and ends != self.ends:
            self.of.trouble.append(f"attempts are {ends} and not {self.ends}")
        self._repeated()

    def _crew(self, ends: Sequence[str]) -> Iterator[str]:
        """What a crew has left open: attempts, or processes."""
        runs = crash_picture.outcomes(self.known.folder).count("ok")
        if ends.count("ok") != runs or not {*ends} <= {"ok", "lost", "interrupted"}:
            yield f"attempts are {ends}"
        if not crash_picture.alone(self.folder):
            yield "processes are left behind"

    def _repeated(self) -> None:
        """Steps of optimisers, and pairs, that were made more than once."""
        killed = self.traces[: self.of.struck]
        for what, kept in (("step", "kept"), ("pairs", "pairs")):
            done = sum(trace.count(what) for trace in self.traces)
            again = done - self.known.trace.count(what)
            lost = [_behind(trace, what, kept) for trace in killed]
            bound = len(killed) if self.kill.job.every == 0 else sum(lost)
            if again > bound:
                self.of.trouble.append(f"{again} {what} more than needed, {bound} may be")
            if what == "step":
                self.of.repeated = again


def _behind(trace: Sequence[str], what: str, kept: str) -> int:
    """How many there are in a trace after the last that was kept."""
    last = max((i for i, line in enumerate(trace) if line == kept), default=-1)
    return trace[last + 1 :].count(what)
