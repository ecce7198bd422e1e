"""The small real jobs that are killed: their command lines, and what they begin with."""

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash_places import PLACES
from crash_server import Server

OLD = Path(__file__).parents[1] / "store" / "old"
RUN = ("training", "checkpoint write", "sampling", "metric", "database commit")
SMALL = ("--steps", "24", "--batch", "16", "--samples", "60", "--nfe", "1,2", "--device", "cpu")
EACH = ("--checkpoint-every", "0", "--quiet")
LOOK = ("compare", "--dataset", "digits", "--allow-mixed")
CFM = ("run", "cfm", "--dataset", "moons", *SMALL, "-o", "width=16")
# Many files where a full size would have one, so that there is something between them.
SIZES = {"flowbench.pairs:FILE": (100, 2**22), "flowbench.sampling:SHARD": 25}
FEW = SIZES | {"flowbench.protocol:ROWS": 8}  # a likelihood takes more than the rest of a run


@dataclass(frozen=True)
class Job:
    """A command line, the `stages` in which it may be killed, and the folder it begins in.

    `begin(world, folder)` fills the folder. `whole` are results that are there as before or as at
    the end, never in between: the database of a merge, the file of an export.
    """

    name: str
    words: tuple[str, ...]
    stages: tuple[str, ...]
    begin: Callable[["World", Path], None] = lambda world, folder: None
    whole: bool = False
    crew: bool = False  # it works in processes of its own, of which nothing is traced
    every: float = 0.0  # seconds between checkpoints
    weight: int = 4  # how often it is chosen among those that reach a place
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)


@dataclass
class World:
    """Where jobs live, and what is made once for all of them."""

    folder: Path
    server: Server
    started: int = 0

    def start(
        self, folder: Path, words: tuple[str, ...], job: Job | None = None, **more: Any
    ) -> dict[str, Any]:
        """Carry out a command line in a folder; `more`: its kill, or a defect of the product."""
        folder.mkdir(parents=True, exist_ok=True)
        self.started += 1
        request = {"words": words, "folder": str(folder), "environment": environment(folder)}
        request |= {"trace": str(folder.parent / f"{folder.name}.trace-{self.started:05d}")}
        request |= {"stages": job.stages if job else (), "sizes": dict(job.sizes) if job else {}}
        return request | self.server.run(request | {"kill": None, "defect": ""} | more)

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that is made at its first use."""
        folder = self.folder / "made" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            make(folder)
        return folder

    def results(self, seed: int) -> Path:
        """A folder with the results of a small run."""

        def make(folder: Path) -> None:
            ended = self.start(folder, (*CFM, "--quiet", "--seed", str(seed)))
            assert ended["code"] == 0, (folder / "output").read_text()
            sqlite3.connect(folder / "results.db").execute("pragma wal_checkpoint(truncate)")

        return self.made(f"results-{seed}", make)

    def bundle(self, seed: int) -> Path:
        """The bundle of such a run."""
        folder = self.results(seed)
        if not (folder / "out.zip").exists():
            assert self.start(folder, ("export", "--bundle", "out.zip"))["code"] == 0
        return folder / "out.zip"


def environment(folder: Path) -> dict[str, str]:
    """Everything that the command line writes lies in the folder."""
    own = {"FLOWBENCH_DB": str(folder / "results.db"), "FLOWBENCH_CACHE": str(folder / "cache")}
    return own | {"FLOWBENCH_PLUGINS": "", "FLOWBENCH_DISABLED": ""}


def copied(source: Path, folder: Path) -> None:
    """The database and the runs of another folder, with nothing half done."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "runs", folder / "runs", dirs_exist_ok=True)
    shutil.copy(source / "results.db", folder)


def to_export(world: World, folder: Path) -> None:
    """Results, and an older bundle under the name of the new one."""
    copied(world.results(0), folder)
    shutil.copy(world.bundle(1), folder / "out.zip")


def to_merge(world: World, folder: Path) -> None:
    """Results, and the bundle of others."""
    copied(world.results(0), folder)
    shutil.copy(world.bundle(1), folder / "theirs.zip")


def of_schema(revision: str) -> Callable[[World, Path], None]:
    """A beginning with a database that a flowbench of that schema has written."""

    def begin(world: World, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(OLD / f"schema-{revision}.db", folder / "results.db")

    return begin


def with_weights(world: World, folder: Path) -> None:
    """Seeded random weights of the network that an adversarial loss looks through."""
    from loss_weights import efficientnet

    def make(place: Path) -> None:
        efficientnet(place)

    folder.mkdir(parents=True, exist_ok=True)
    for file in world.made("weights", make).iterdir():
        (folder / "efficientnet.pth").symlink_to(file)


def with_suite(world: World, folder: Path) -> None:
    """A suite of two runs, one of them with a teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.toml").write_text(SUITE)


SUITE = """
[suite]
title = "Killed"
dataset = "moons"
nfe = [1, 2]
steps = 24
batch = 16
samples = 60

[[method]]
label = "CFM"
method = "cfm"
options = { width = 16 }

[[method]]
label = "LMM"
method = "lmm"
options = { width = 16, pairs = 250, pair_steps = 6 }
"""
CREW = ("run", "--suite", "suite.toml", "--jobs", "2", "--device", "cpu", *EACH)
STUDENT = ("teacher", "pairs", *RUN)
MOONS = ("run", "lmm", "--dataset", "moons", *SMALL, "-o", "pairs=250", "-o", "pair_steps=6")
DIGITS = ("run", "lmm", "--dataset", "digits", "--device", "cpu", "--nfe", "1", "-o", "width=16")
# Adversarial and sampling-optimised training, in as few steps as have all of its stages.
RECIPE = (
    *("--steps", "5", "--batch", "2", "--samples", "20", "-o", "pairs=40", "-o", "pair_steps=4"),
    *("--network", "small", "--precision", "fp32", "--augment", "none", "-o", "sampler=paper"),
    *(
        "-o",
        "features=efficientnet",
        "-o",
        "sizes=32,128",
        "-o",
        "adversarial=0.6",
        "-o",
        "sot=0.3",
    ),
    "--feature-weights=efficientnet=efficientnet.pth",
)
IMAGES = (
    *("--steps", "12", "--batch", "8", "--samples", "30", "-o", "pairs=150"),
    "-o",
    "pair_steps=4",
)
JOBS = (
    Job("lmm-moons", (*MOONS, "-o", "width=16", *EACH), STUDENT, sizes=FEW),
    Job("cfm-moons", (*CFM, "--checkpoint-every", "0.05", "--quiet"), RUN, every=0.05),
    Job("lmm-digits", (*DIGITS, *IMAGES, *EACH), STUDENT, weight=1),
    Job("recipe", (*DIGITS, *RECIPE, *EACH), (*STUDENT, "adversarial"), with_weights, weight=1),
    Job("export", ("export", "--bundle", "out.zip"), ("export",), to_export, whole=True),
    Job("merge", ("merge", "theirs.zip"), ("merge",), to_merge, whole=True),
    Job("schema-0001", LOOK, ("migration",), of_schema("0001"), whole=True),
    Job("schema-0002", ("db", "upgrade"), ("migration",), of_schema("0002"), whole=True),
    Job("suite", CREW, ("suite",), with_suite, crew=True, weight=1),
)
CHEAP = [job for job in JOBS if job.name not in ("lmm-digits", "suite")]  # what CI has the time for

assert {stage for job in JOBS for stage in job.stages} <= {place.stage for place in PLACES}
