"""Owns the cells of a section: each is made when it is asked for, best of its column or not."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any

from flowbench.comparison import fingerprint
from flowbench.comparison.fingerprint import Reader
from flowbench.comparison.naming import COUNTED, named
from flowbench.comparison.ranking import mark
from flowbench.comparison.view import Cell, Key
from flowbench.records import Measured, Spec

LEAST = "least"  # of a metric over noise streams, as EDM reports it


@dataclass(frozen=True)
class Maker:
    """What the cells of all sections are made with."""

    goals: Mapping[str, str]  # that metrics declare today
    reader: Reader

    def cell(self, rows: Sequence[Measured]) -> Cell:
        """The cell of these scores, of which the last of equals counts; no best is marked yet."""
        values: dict[int, dict[int, float]] = {}
        prints: dict[int, dict[str, str]] = {}
        for row in rows:
            score = row.score
            values.setdefault(row.spec.seed, {})[score.seed] = score.value
            fields = self.reader.fields(row)
            prints[id(fields)] = fields
        first = rows[0].score
        goal = self.goals.get(first.name, first.goal)
        return Cell(values, goal, fingerprint.joined(list(prints.values())))


@dataclass
class Gathered:
    """The scores of a section, sorted by what will be a cell."""

    n: int
    rows: dict[Key, list[Measured]] = field(default_factory=dict)
    members: dict[str, dict[int, Measured]] = field(default_factory=dict)  # label, training seed
    streams: set[int] = field(default_factory=set)
    protocols: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # of extracted features

    def add(self, label: str, spec: Spec, rows: Sequence[Measured]) -> None:
        """Take in the scores of one run."""
        self.members.setdefault(label, {}).setdefault(spec.seed, rows[0])
        columns = zip(*map(attrgetter("score"), rows), strict=True)  # without a step for each row
        names, _, nfes, _, n, streams, _, protocols = columns
        if n[0]:  # one n stands for all: a run's scores of samples, or its facts
            counted = {name: named(name, self.n) for name in COUNTED}
            names = tuple(map(counted.get, names, names))
            self.streams.update(streams)
            told = zip(names, protocols, strict=True)
            self.protocols |= {name: its for name, its in told if "weights" in its}
        found = self.rows
        for key, row in zip(zip(repeat(label), names, nfes), rows, strict=True):
            some = found.get(key)
            if some is None:
                found[key] = [row]
            else:
                some.append(row)


def by_run(rows: Sequence[Measured]) -> Iterator[tuple[Spec, list[Measured]]]:
    """The scores of a run after each other, as the store lists them."""
    return ((spec, list(some)) for spec, some in groupby(rows, key=attrgetter("spec")))


class Cells(Mapping[Key, Cell]):
    """Every cell of a section by its key.

    Of a hundred metrics a table shows a few, so that a column is made when one of its cells is
    looked at; which there are is known before.
    """

    def __init__(self, gathered: Gathered, maker: Maker, floors: Mapping[str, Cell]):
        self._rows, self._maker, self._floors = gathered.rows, maker, floors
        self._least = self._smallest(len(gathered.streams), gathered.n)
        self._made: dict[Key, Cell] = {}

    def __getitem__(self, key: Key) -> Cell:
        found = self._made.get(key)
        if found is None:
            if key not in self:
                raise KeyError(key)
            self._made |= mark(self._column(*key[1:]), self._floors)
            found = self._made[key]
        return found

    def __iter__(self) -> Iterator[Key]:
        yield from self._rows
        yield from self._least

    def __len__(self) -> int:
        return len(self._rows) + len(self._least)

    def __contains__(self, key: object) -> bool:
        return key in self._rows or key in self._least

    def _column(self, name: str, nfe: int) -> dict[Key, Cell]:
        """The cells of one metric at one NFE, none of them marked."""
        return {key: self._least.get(key) or self._plain(key) for key in self._columns[name, nfe]}

    def _plain(self, key: Key) -> Cell:
        return self._maker.cell(self._rows[key])

    @cached_property
    def _columns(self) -> dict[tuple[str, int], list[Key]]:
        found: dict[tuple[str, int], list[Key]] = defaultdict(list)
        for key in self:
            found[key[1:]].append(key)
        return found

    def _smallest(self, streams: int, n: int) -> dict[Key, Cell]:
        """Of metrics that are published so: the smallest value over noise streams."""
        found: dict[Key, Cell] = {}
        names = {named(name, n) for name in COUNTED} if streams > 1 else set()
        for label, name, nfe in self._rows:
            if name in names and (cell := self._plain((label, name, nfe))).streams == streams:
                least = {seed: {0: min(some.values())} for seed, some in cell.values.items()}
                found[label, f"{name} {LEAST}", nfe] = replace(cell, values=least)
        return found
