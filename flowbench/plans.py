"""What was asked for, and what becomes of it: the values that `planning` works on."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowbench.data.base import Data
from flowbench.records import Protocol, Spec
from flowbench.training import Progress, ignore


@dataclasses.dataclass(frozen=True)
class Setup:
    """The machine's side of a run: none of it may change a number beyond rounding.

    `every` is the time in seconds between checkpoints. `weights` are the files of pretrained
    networks by name, of feature extractors and of losses, `reference` a file of statistics to hold
    features against. `micro_batch` examples go through a training step at once; None: all, or what
    fits. `deterministic` takes only kernels that give the same bits every time. `track` names
    observers, such as "tensorboard" or "mlflow,experiment=x"; `observe` hands an event on to those
    of the attempt at hand.
    """

    device: str = "cpu"
    folder: Path = Path("runs")
    data_root: Path | None = None
    every: float = 20.0
    watch: Callable[[Progress], None] = ignore
    note: Callable[[str], None] = lambda text: None
    weights: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    reference: Path | None = None
    micro_batch: int | None = None
    compile: bool = False
    deterministic: bool = False
    track: tuple[str, ...] = ()
    observe: Callable[[Any], None] = lambda event: None


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asked for; None takes what the preset, the data set or the method says.

    `dataset` is a name, or the path of an archive or a folder of images. `teacher` is the name of a
    method, a file of weights, the Spec of an earlier run, or the Request of a run that may still
    have to be made; `weights` is a file that is examined instead of training.
    """

    method: str
    dataset: str
    seed: int = 0
    steps: int | None = None
    images: int | None = None
    batch: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    teacher: "str | Path | Spec | Request | None" = None
    samples: int | None = None
    sample_seed: int = 0
    nfe: tuple[int, ...] | None = None
    network: str | None = None
    precision: str | None = None
    augment: str | None = None
    unconditional: bool = False
    weights: Path | None = None
    reference_rows: int | None = None
    optimizer: str | None = None
    preset: str | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that is ready to start."""

    spec: Spec
    protocol: Protocol
    nfe: tuple[int, ...]
    method: Any
    data: Data
    teacher: "Plan | None" = None
    weights: Path | None = None  # of a network that is taken from a file instead of trained
    trained: "Plan | None" = None  # the run whose network this one samples in another way
    frozen: Mapping[str, Path] = dataclasses.field(default_factory=dict)  # of the losses' networks

    def folder(self, setup: Setup, generation: int = 1) -> Path:
        """Where checkpoints and samples lie; each `--force` gets a folder of its own."""
        suffix = f"-g{generation}" if generation > 1 else ""
        return setup.folder / (self.spec.name + suffix)
