"""The plain, frozen values that travel between the floors, and the errors meant for users."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

# Raise this when the same Spec would train to other numbers: earlier runs are then not reused.
RECIPE = 1

# Values of Score.nfe that are not a number of evaluations.
RUN_LEVEL = -1  # a property of the whole run, such as straightness or training time
NOTHING: Mapping[str, Any] = MappingProxyType({})
ADAPTIVE = 0  # as many as an adaptive solver took; the counted mean is the score "nfe"


class FlowbenchError(Exception):
    """A mistake or failure whose one-line message is meant for the user."""

    exit_code: ClassVar[int] = 2
    outcome: ClassVar[str] = "failed"


class Absent(FlowbenchError):
    """Something that a user has to supply first, such as data that do not come along."""


class RunFailed(FlowbenchError):
    """A run that could not be finished, though its words were right."""

    exit_code = 3


class Diverged(RunFailed):
    """A run whose loss, weights or samples are no longer finite."""

    outcome = "diverged"


class PluginWarning(UserWarning):
    """A plugin that was left out, and why, in one line."""


@dataclass(frozen=True)
class Budget:
    """What one training stage may spend: optimiser steps and examples per step."""

    steps: int
    batch: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise FlowbenchError(f"a budget needs at least 1 step and 1 example, not {self}")

    @property
    def images(self) -> int:
        """Training examples seen, `steps * batch`."""
        return self.steps * self.batch


def visible(text: str) -> str:
    """Text of strangers in one line: what a terminal might take for a command becomes `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def digest(value: Any) -> str:
    """SHA-256 in hex of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Spec:
    """All that decides which network is trained; two equal specs are one run.

    `options` holds every option of the method, `changed` only what the user set. `setting` is how
    the run sees its data (`setting.py`): the backbone, augmentation, labels; empty for small data.
    `data` is the hash over the decoded data, `code` the hash over the method's source,
    `teacher` the key of the teacher's run (or `file:` and the hash of its weights), `weights` the
    hash of the file where nothing is trained; `sources` the hash, licence and origin of published
    checkpoints among them, which is no part of the key.
    """

    method: str
    dataset: str
    seed: int
    budget: Budget
    options: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    data: str = ""
    code: str = ""
    version: str = ""  # distribution and version that the method came from; not part of the key
    setting: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    sources: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Names the run: SHA-256 over all that would change the trained network.

        What came later than the first runs is left out where it is empty, so they keep their keys.
        """
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        parts |= {"budget": vars(self.budget), "recipe": RECIPE}
        later = [name for name in ("setting", "weights") if not parts[name]]
        for name in ("changed", "version", "sources", *later):
            del parts[name]
        return digest(parts)

    @property
    def name(self) -> str:
        """Readable and unique: `digits-lmm-s0-1a2b3c4d`."""
        return f"{self.dataset}-{self.method}-s{self.seed}-{self.key[:8]}"

    @property
    def variant(self) -> str:
        """The method with the options that were set, as a row of a table calls it."""
        words = [f"{name}={value}" for name, value in sorted(self.changed.items())]
        return " ".join([self.method, *words])

    @classmethod
    def from_json(cls, parts: Mapping[str, Any]) -> "Spec":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**parts, "budget": Budget(**parts["budget"])})


@dataclass(frozen=True)
class Protocol:
    """How a trained network is examined: `samples` drawn from noise stream `seed`.

    Features of images are held against `reference_rows` of the training split, drawn with a
    fixed seed (None: all of them), or against the statistics of a file.
    """

    samples: int
    seed: int = 0
    reference_rows: int | None = None


class Score(NamedTuple):
    """One number of a run, with all that is needed to compare it.

    `subject` is "model", or "floor" for real held-out data scored in the model's place.
    `protocol` holds what the metric itself depends on (reference, extractor hash, ...).
    """

    name: str
    value: float
    nfe: int = RUN_LEVEL
    subject: str = "model"
    n: int = 0
    seed: int = 0
    goal: str = ""  # "min", "max", "floor" (nearest to real data), or "": nothing is ranked by it
    protocol: Mapping[str, Any] = NOTHING

    @property
    def fingerprint(self) -> str:
        """Scores rank together only where this agrees: metric, n, noise stream and protocol."""
        return digest([self.name, self.n, self.seed, dict(self.protocol)])[:16]


class Measured(NamedTuple):
    """A stored score and the run that it belongs to; `generation` grows with every `--force`."""

    run: str  # Spec.name
    spec: Spec
    score: Score
    attempt: int
    generation: int
    environment: str  # digest
    origin: str = ""  # digest of what the attempt was merged from; "" is here


@dataclass(frozen=True)
class Tried:
    """One attempt at a run: when, where, and how it ended.

    `outcome` is running, ok, failed, diverged, interrupted, timeout, or lost (its process died).
    """

    id: int
    run: str  # Spec.name
    spec: Spec
    number: int
    generation: int
    outcome: str
    error: str
    started: str  # UTC, ISO 8601
    ended: str
    environment: str  # digest
    origin: str = ""  # as of Measured
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """A file that a run made: its role (network, samples-nfe1, ...), place, SHA-256 and size.

    `path` is relative to the folder of runs, so that results may be moved and published.
    """

    role: str
    path: str
    sha256: str
    bytes: int
