"""What `compare` and `report` show, as plain values: no format and no database."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flowbench.records import RUN_LEVEL, Spec, Tried

Key = tuple[str, str, int]  # label of the row, metric as a table calls it, NFE
Values = Mapping[int, Mapping[int, float]]  # training seed -> noise stream -> value


@dataclass(frozen=True)
class Cell:
    """One number of a row over training seeds, and within each over noise streams.

    `fields` is its fingerprint by name; `comparable` is false where other cells of its column
    have another one.
    """

    values: Values
    goal: str = ""  # as of a Score
    fields: Mapping[str, str] = field(default_factory=dict)
    best: bool = False
    comparable: bool = True

    @cached_property
    def means(self) -> dict[int, float]:
        """The mean over noise streams of each training seed."""
        return {seed: _mean([*some.values()]) for seed, some in self.values.items()}

    @cached_property
    def mean(self) -> float:
        """Over training seeds; NaN and infinity are not averaged away."""
        return _mean(list(self.means.values()))

    @cached_property
    def sd(self) -> float | None:
        """The standard deviation (n - 1) over training seeds; None where there are no two."""
        return _sd(list(self.means.values()))

    @cached_property
    def sampling_sd(self) -> float | None:
        """The standard deviation over noise streams of one network, pooled over training seeds.

        None where no network has two streams.
        """
        if all(len(some) == 1 for some in self.values.values()):
            return None
        several = [list(some.values()) for some in self.values.values() if len(some) > 1]
        if not several or not all(map(math.isfinite, (v for some in several for v in some))):
            return None
        free = sum(len(some) - 1 for some in several)
        squares = sum((len(some) - 1) * _variance(some) for some in several)
        return math.sqrt(squares / free)

    @property
    def seeds(self) -> int:
        """How many training seeds."""
        return len(self.values)

    @cached_property
    def streams(self) -> int:
        """How many noise streams each training seed has at least."""
        return min(map(len, self.values.values()), default=0)


@dataclass(frozen=True)
class Group:
    """The runs of one method that differ in nothing but their seed: a row of a table."""

    label: str
    spec: Spec  # of the lowest seed
    seeds: tuple[int, ...]
    runs: Mapping[int, str] = field(default_factory=dict)  # training seed -> name of the run
    specs: Mapping[int, Spec] = field(default_factory=dict)  # of each training seed
    environments: tuple[str, ...] = ()  # digests
    origins: tuple[str, ...] = ()  # of the merged results among them; "" is here
    traits: Mapping[str, str] = field(default_factory=dict)  # teacher, perceptual, ...


@dataclass
class Section:
    """The rows that share a table: one data set, so many samples, one budget and conditioning.

    Metrics go by the names of `naming.named`. `part` counts from 0 the protocols of one metric
    that were found beside each other, the most frequent first; `differs` says in words in what
    parts above 0 differ from it. The names of its columns are those of when they are first read.
    """

    dataset: str
    data: str  # hash over the decoded data
    n: int
    budget: str = ""
    conditioning: str = ""
    part: int = 0
    differs: tuple[str, ...] = ()
    groups: list[Group] = field(default_factory=list)
    cells: Mapping[Key, Cell] = field(default_factory=dict)
    floors: dict[str, Cell] = field(default_factory=dict)  # metric
    floor_n: int = 0
    failures: list[str] = field(default_factory=list)
    protocols: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # of extracted features
    streams: tuple[int, ...] = (0,)

    @cached_property
    def metrics(self) -> list[str]:
        """Every name that has a score at some NFE, in the order of their appearance."""
        return list(dict.fromkeys(metric for _, metric, nfe in self.cells if nfe != RUN_LEVEL))

    @cached_property
    def facts(self) -> list[str]:
        """Every name that is a property of the whole run."""
        return list(dict.fromkeys(metric for _, metric, nfe in self.cells if nfe == RUN_LEVEL))

    @cached_property
    def nfes(self) -> list[int]:
        """Every NFE that was asked for somewhere, ascending, adaptive last."""
        found = {nfe for _, _, nfe in self.cells if nfe != RUN_LEVEL}
        return sorted(found, key=lambda nfe: nfe or math.inf)

    @cached_property
    def levels(self) -> Mapping[str, set[int]]:
        """The NFE at which each row has something, by its label."""
        found: dict[str, set[int]] = defaultdict(set)
        for label, _, nfe in self.cells:
            found[label].add(nfe)
        return found

    def some(self, names: Collection[str]) -> Iterator[tuple[Key, Cell]]:
        """The cells of these metrics, in order: those of others may not have been made yet."""
        wanted = set(names)
        return ((key, self.cells[key]) for key in self.cells if key[1] in wanted)


@dataclass
class View:
    """All sections, and all runs whose last attempt did not end well."""

    sections: list[Section]
    failed: list[Tried] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)  # of the row of each run, by key


def failure(attempt: Tried) -> str:
    """How an attempt ended, in one line."""
    why = f": {attempt.error}" if attempt.error else ""
    name = f"{attempt.spec.variant}, seed {attempt.spec.seed} ({attempt.run})"
    return f"{name}, attempt {attempt.number}: {attempt.outcome}{why}"


def _mean(values: list[float]) -> float:
    if len(values) == 1:
        return values[0]
    finite = all(map(math.isfinite, values)) and math.isfinite(sum(map(abs, values)))
    return (math.fsum(values) if finite else sum(values)) / len(values)


def _sd(values: list[float]) -> float | None:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return math.sqrt(_variance(values))


def _variance(values: list[float]) -> float:
    """With n - 1; the library's own is exact and a hundred times slower."""
    middle = _mean(values)
    parts = [(value - middle) * (value - middle) for value in values]
    return _mean(parts) * len(parts) / (len(parts) - 1)
