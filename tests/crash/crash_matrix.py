"""The matrix: which kills there are, chosen by a seed, and what the jobs do that nobody kills."""

import json
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_picture
from crash_jobs import Job, World
from crash_places import PLACES, Place

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ANY = "random moment"
STAGES = (*dict.fromkeys(place.stage for place in PLACES), ANY)
TWICE = 0.25  # of the kills are followed by a second one, in what goes on


@dataclass(frozen=True)
class Undisturbed:
    """What a job leaves that nobody kills, and what it did: calls, seconds, steps, pairs."""

    folder: Path
    picture: dict[str, Any]
    counts: dict[str, int]
    seconds: float
    trace: list[str]


@dataclass(frozen=True)
class Kill:
    """One kill: the call `nth` of a place, or the share `moment` of the undisturbed time."""

    number: int
    stage: str
    job: Job
    signal: signal.Signals
    place: str = ""
    moment: str = ""
    nth: int = 0
    share: float = 0.0
    again: float = 0.0  # a second kill, at this share of the time

    @property
    def words(self) -> str:
        """For people, who want to repeat it."""
        where = f"{self.moment} call {self.nth} of {self.place}" if self.place else ANY
        twice = ", and again later" if self.again else ""
        return f"kill {self.number}: {self.signal.name} to {self.job.name}, {where}{twice}"


class Known(dict[str, Undisturbed]):
    """The undisturbed jobs by name, each carried out when it is first asked for."""

    def __init__(self, world: World, jobs: Sequence[Job]):
        super().__init__()
        self.world, self.jobs = world, {job.name: job for job in jobs}

    def __missing__(self, name: str) -> Undisturbed:
        self[name] = undisturbed(self.world, self.jobs[name])
        return self[name]


def undisturbed(world: World, job: Job) -> Undisturbed:
    """Carry out a job that nobody kills."""
    folder = world.folder / "undisturbed" / job.name
    job.begin(world, folder)
    ended = world.start(folder, job.words, job)
    output = (folder / "output").read_text()
    assert ended["code"] == 0, f"{job.name}: {output}"
    assert not list(crash_picture.faults(folder)), list(crash_picture.faults(folder))
    found = picture(folder, job)
    return Undisturbed(folder, found, counted(ended), ended["seconds"], traced(ended))


def traced(ended: dict[str, Any]) -> list[str]:
    """What a victim did, in its order."""
    path = Path(ended["trace"])
    return path.read_text().splitlines() if path.exists() else []


def counted(ended: dict[str, Any]) -> dict[str, int]:
    """How often a victim called each place."""
    return json.loads(Path(ended["trace"]).with_suffix(".counts").read_text())


def picture(folder: Path, job: Job) -> dict[str, Any]:
    """All that must be as undisturbed."""
    files = crash_picture.files(folder)
    for name in [name for name in files if name == "output" or name.startswith("results.db")]:
        kind = "there" if name.startswith("results.db.bak") else None
        files = {**files, name: kind} if kind else {k: v for k, v in files.items() if k != name}
    tables = crash_picture.rows(folder) if job.whole else crash_picture.scores(folder)
    return {**files, **{f"database: {name}": rows for name, rows in tables.items()}}


def chosen(seed: int, number: int, jobs: Sequence[Job], known: Known) -> Kill:
    """The kill of that number.

    It depends on the seed and the number only, so that one can be repeated without the others.
    """
    draw = random.Random(f"{seed}/{number}")
    stages = [s for s in STAGES if s == ANY or any(s in job.stages for job in jobs)]
    stage = stages[number % len(stages)]
    sent = SIGNALS[(number % len(stages) + number // len(stages)) % len(SIGNALS)]
    again = draw.uniform(0.05, 0.95) * (draw.random() < TWICE)
    if stage == ANY:
        job = _weighed(draw, jobs)
        return Kill(number, ANY, job, sent, share=draw.uniform(0.0, 0.9), again=again)
    reached = list(_reached(stage, jobs, known, sent))
    place, moment = draw.choice(sorted({(p.name, m) for _, p, m in reached}))
    job = _weighed(draw, [job for job, p, m in reached if (p.name, m) == (place, moment)])
    nth = draw.randint(1, known[job.name].counts[place])
    return Kill(number, stage, job, sent, place, moment, nth, again=again)


def _weighed(draw: random.Random, jobs: Sequence[Job]) -> Job:
    return draw.choices(jobs, [job.weight for job in jobs])[0]


def _reached(
    stage: str, jobs: Sequence[Job], known: Known, sent: int
) -> Iterator[tuple[Job, Place, str]]:
    for job in jobs:
        for place in PLACES:
            if place.stage == stage in job.stages and known[job.name].counts.get(place.name):
                yield from ((job, place, moment) for moment in place.moments)


def unreached(jobs: Sequence[Job], known: Known) -> list[str]:
    """Places that no job calls: they were renamed, or are no places any more."""
    stages = {stage for job in jobs for stage in job.stages}
    called = {name for job in jobs for name, count in known[job.name].counts.items() if count}
    return [place.name for place in PLACES if place.stage in stages and place.name not in called]
