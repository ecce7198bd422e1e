"""Which engine carries out the jobs of a suite: this machine, SLURM, or a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flowbench import limits, options
from flowbench.launchers.far import Terms
from flowbench.records import FlowbenchError

MEMORY = "write it as 32G or 500M"
UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Local:
    """Processes on this machine."""

    name: ClassVar[str] = "local"
    far: ClassVar[bool] = False
    gpus: ClassVar[float] = 0


@dataclass(frozen=True)
class Slurm:
    """Jobs of SLURM, each with these resources; what is not said is the cluster's default."""

    name: ClassVar[str] = "slurm"
    far: ClassVar[bool] = True
    partition: str = ""  # where its nodes are
    gpus: int = 0  # per job
    cpus: int = 1  # per job
    memory: str = ""  # per job, such as 32G
    time: str = "24h"  # most of one job, which is requeued and goes on when that is over
    account: str = ""  # that pays
    qos: str = ""  # quality of service
    constraint: str = ""  # features that its node must have
    executor: Literal["slurm", "local"] = "slurm"  # local: submitit's stand-in, to try things out

    def __post_init__(self) -> None:
        _require(self.name, self.gpus, self.cpus)
        _bytes(self.memory)
        if self.seconds < 60:
            raise FlowbenchError(f"--launcher slurm,time={self.time} is less than a minute")

    @property
    def seconds(self) -> float:
        """The limit of a job."""
        try:
            return limits.seconds(self.time)
        except ValueError as error:
            raise FlowbenchError(f"--launcher slurm,time={self.time}: {error}") from error


@dataclass(frozen=True)
class Ray:
    """Tasks of a Ray cluster that runs already, each with these resources."""

    name: ClassVar[str] = "ray"
    far: ClassVar[bool] = True
    address: str = "auto"  # HOST:PORT, ray://HOST:PORT, or that of this machine's cluster
    gpus: float = 0  # per job; may be a share of one
    cpus: float = 1  # per job
    memory: str = ""  # per job, such as 32G

    def __post_init__(self) -> None:
        _require(self.name, self.gpus, self.cpus)
        _bytes(self.memory)
        if self.gpus > 1 and self.gpus % 1:
            raise FlowbenchError(f"--launcher ray,gpus={self.gpus:g}: take a share, or whole ones")
        if any(number != round(number, 4) for number in (self.gpus, self.cpus)):
            raise FlowbenchError("--launcher ray: gpus and cpus have at most four decimals")

    @property
    def resources(self) -> dict[str, float]:
        """What a node must offer, as Ray names it."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": _bytes(self.memory)}
        return {name: number for name, number in asked.items() if number}


WORDS: dict[str, type] = {cls.name: cls for cls in (Local, Slurm, Ray)}


def parse(word: str) -> Any:
    """A launcher from a word such as `slurm,partition=gpu,gpus=1,time=24h`.

    Raises FlowbenchError for a name or value that does not exist.
    """
    return options.parse_word("launcher", word, WORDS)


@contextmanager
def opened(launcher: Any, terms: Terms) -> Iterator[Any]:
    """The engine of a launcher; raises FlowbenchError where its package or cluster is not here."""
    if not launcher.far:
        with here(terms.threads) as engine:
            yield engine
        return
    from flowbench.launchers import ray, slurm

    with {"slurm": slurm.opened, "ray": ray.opened}[launcher.name](launcher, terms) as engine:
        yield engine


@contextmanager
def here(threads: int = 0) -> Iterator[Any]:
    """The engine of this machine, with so many threads of each job (0: as torch likes)."""
    from flowbench import execution, processes

    with processes.context(threads) as context:
        yield processes.Processes(context, execution.work)


def _require(name: str, gpus: float, cpus: float) -> None:
    """Raise FlowbenchError for numbers that mean nothing."""
    if gpus < 0 or cpus < 0:
        raise FlowbenchError(f"--launcher {name}: gpus and cpus are not negative")


def _bytes(memory: str) -> int:
    """Bytes of a word such as 32G; none of an empty one."""
    number, unit = memory[:-1], memory[-1:].upper()
    if memory and not (number.isdecimal() and int(number) and unit in UNITS):
        raise FlowbenchError(f"{memory!r} is no memory: {MEMORY}")
    return int(number) * UNITS[unit] if memory else 0
