"""The tables of a suite: our numbers row by row, and the verdict on each expectation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowbench import verdicts
from flowbench.comparison.build import build
from flowbench.comparison.naming import named
from flowbench.comparison.view import Section
from flowbench.records import RUN_LEVEL, Measured, Spec, Tried
from flowbench.report.layout import MISSING, Table, Text, heading, number, plain
from flowbench.report.remarks import directions, protocols, unlike
from flowbench.suites import Suite
from flowbench.verdicts import Verdict

Key = tuple[str, str, int, int]  # subject, metric, NFE, n


@dataclass(frozen=True)
class Entry:
    """One cell's run in the database: what was measured of it, and what should be."""

    label: str
    spec: Spec
    expected: frozenset[Key]
    measured: tuple[Measured, ...]
    tried: tuple[Tried, ...]
    sample_seed: int = 0

    @property
    def dataset(self) -> str:
        """The cell's data set."""
        return self.spec.dataset

    @property
    def seed(self) -> int:
        """The cell's seed."""
        return self.spec.seed

    def scores(self) -> list[Measured]:
        """Those of the suite's own protocol: its samples, its noise stream, its NFE."""
        nfes = {nfe for _, _, nfe, _ in self.expected}
        sizes = {(subject, n) for subject, _, _, n in self.expected} | {("model", 0)}
        return [
            row
            for row in self.measured
            if row.score.nfe in nfes | {RUN_LEVEL}
            and (row.score.subject, row.score.n) in sizes
            and row.score.seed == (self.sample_seed if row.score.n else 0)
        ]


@dataclass
class Results:
    """All that a suite's runs have in the database."""

    suite: Suite
    entries: list[Entry]
    goals: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)  # by data set
    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by digest

    def values(self) -> verdicts.Values:
        """Scores of the models by label, data set, metric and NFE, then seed."""
        found: dict[tuple[str, str, str, int], dict[int, float]] = {}
        for entry in self.entries:
            for row in entry.scores():
                if row.score.subject == "model":
                    key = entry.label, entry.dataset, row.score.name, row.score.nfe
                    found.setdefault(key, {})[entry.seed] = row.score.value
        return found

    def floors(self) -> verdicts.Floors:
        """Scores of real held-out data by data set and metric."""
        return {
            (entry.dataset, row.score.name): row.score.value
            for entry in self.entries
            for row in entry.scores()
            if row.score.subject == "floor"
        }

    def rows(self) -> list[tuple[str, Spec]]:
        """Label and run of the lowest seed that was tried, row by row."""
        found: dict[tuple[str, str], Spec] = {}
        for entry in sorted(self.entries, key=lambda entry: entry.seed):
            if entry.tried:
                found.setdefault((entry.dataset, entry.label), entry.spec)
        places = dict.fromkeys((entry.dataset, entry.label) for entry in self.entries)
        several = len(self.suite.datasets) > 1
        return [
            (f"{label}, {dataset}" if several else label, found[dataset, label])
            for dataset, label in places
            if (dataset, label) in found
        ]

    def verdicts(self) -> list[Verdict]:
        """On each expectation, in the order of the file."""
        return verdicts.judge(self.suite, self.values(), self.floors())

    def table(self, dataset: str, metrics: Sequence[str] = (), nfes: Sequence[int] = ()) -> Table:
        """Rows and columns in the order of the file, the floor below; arguments narrow columns."""
        mine = [entry for entry in self.entries if entry.dataset == dataset]
        sections = self.sections(mine)
        n = max(section.n for section in sections.values())
        columns = [(named(name, n), nfe) for name, nfe in self._columns(mine, metrics, nfes)]
        title = f"{self.suite.head.title}: {dataset}"
        table = Table(title, ["method", *(heading(*c) for c in columns)], [])
        for row in self.suite.rows:
            if dataset in row.datasets:
                own = [entry for entry in mine if entry.label == row.label]
                label = row.label if len(own) < 2 else f"{row.label} ({len(own)} seeds)"
                cells = [_text(sections[row.reference], own, *c) for c in columns]
                if row.reference:
                    cells = [Text(cell.words) for cell in cells]  # nothing competes with an optimum
                table.rows.append([Text(label), *cells])
        section = max(sections.values(), key=lambda s: s.floor_n)
        if section.floors:
            floors = [section.floors.get(name) for name, _ in columns]
            words = [Text(number(cell) if cell else "") for cell in floors]
            if any(text.words for text in words):
                table.rows.append([Text(f"floor (n = {section.floor_n})"), *words])
        table.notes += self._notes(dataset, mine, sections, [name for name, _ in columns])
        return table

    def _columns(
        self, entries: Sequence[Entry], metrics: Sequence[str], nfes: Sequence[int]
    ) -> list[tuple[str, int]]:
        """Metric and NFE; a metric of the whole run has one column."""
        known = {key[1:3] for e in entries for key in e.expected if key[0] == "model"}
        scores = [row.score for e in entries for row in e.scores()]
        known |= {(score.name, score.nfe) for score in scores if score.subject == "model"}
        wanted = list(metrics or self.suite.head.columns or self.goals)
        found = []
        for name in wanted:
            levels = sorted({nfe for other, nfe in known if other == name}, key=_last_auto)
            if levels != [RUN_LEVEL]:
                levels = [nfe for nfe in levels if nfe != RUN_LEVEL and (not nfes or nfe in nfes)]
            found += [(name, nfe) for nfe in levels]
        return found

    def sections(self, entries: Sequence[Entry]) -> dict[bool, Section]:
        """The cells over seeds of references and of all others, which alone are ranked."""
        reference = {row.label: row.reference for row in self.suite.rows}
        labels = {entry.spec.key: entry.label for entry in entries}
        found = {}
        for kind in (False, True):
            rows = [
                row for entry in entries if reference[entry.label] == kind for row in entry.scores()
            ]
            view = build(rows, (), self.goals, self.environments, labels, apart=False)
            most = max(view.sections, key=lambda s: len(s.cells), default=None)
            found[kind] = Section("", "", 0) if most is None else most
        return found

    def _notes(
        self, dataset: str, entries, sections: Mapping[bool, Section], names: Sequence[str]
    ) -> list[str]:
        remark = self.remarks.get(dataset)
        notes = [f"{dataset}: {remark}"] if remark else []
        notes += directions(sections[False], names)
        if any(section.floors for section in sections.values()):
            notes.append("floor: real held-out data in the model's place")
        notes += [line for section in sections.values() for line in protocols(section, names)]
        fields = unlike(sections[False], names)
        if fields:
            notes.append(f"columns without a best differ in: {', '.join(fields)}")
        lacking = sum(bool(missing(entry)) for entry in entries)
        if lacking:
            path = self.suite.path
            notes.append(
                f"{lacking} of {len(entries)} runs are {MISSING}: flowbench run --suite {path}"
            )
        for entry in entries:
            last = entry.tried[-1] if entry.tried else None
            if last is not None and last.outcome not in ("ok", "running"):
                why = f": {last.error}" if last.error else ""
                notes.append(f"{entry.label}, seed {entry.seed} ({last.run}): {last.outcome}{why}")
        return notes


def missing(entry: Entry) -> int:
    """How many of the scores that a cell leads to are not there."""
    found = {(r.score.subject, r.score.name, r.score.nfe, r.score.n) for r in entry.scores()}
    return len(entry.expected - found)


def _last_auto(nfe: int) -> float:
    return nfe or float("inf")


def _text(section: Section, entries: Sequence[Entry], name: str, nfe: int) -> Text:
    """Mean ± standard deviation; empty where a row is not measured by design."""
    cell = section.cells.get((entries[0].label, name, nfe)) if entries else None
    if cell is None:
        asked = {(named(key[1], key[3]), key[2]) for entry in entries for key in entry.expected}
        return Text(MISSING if (name, nfe) in asked else "")
    words = number(cell)
    if cell.seeds < len(entries):
        words += f" ({cell.seeds} of {len(entries)} seeds)"
    return Text(words, cell.best)


def verdict_table(found: Sequence[Verdict]) -> Table:
    """The expectations with what was measured, and the counts below."""
    columns = ["expected", "bounds", "verdict", "measured", "source"]
    table = Table("Expectations", columns, [])
    for verdict in found:
        entry = verdict.expectation
        words = verdicts.quantity(entry) + ("" if entry.each else " (mean)")
        numbers = ", ".join(plain(value) for value in verdict.measured.values())
        cells = (words, verdicts.bounds(entry), verdict.word, numbers, entry.source)
        table.rows.append([Text(cell) for cell in cells])
    counts = Counter(verdict.word for verdict in found)
    kinds = (verdicts.MET, verdicts.MISSED, verdicts.OPEN)
    table.notes.append(", ".join(f"{counts[kind]} {kind}" for kind in kinds))
    return table


def published_table(suite: Suite) -> Table | None:
    """The papers' numbers that the suite is held against; None where it has none."""
    columns = ["method", "data", "metric", "NFE", "value", "source"]
    table = Table("Published numbers: the papers' own, not measured here", columns, [])
    for entry in suite.expectations:
        if entry.published and entry.value is not None:
            nfe = "" if entry.nfe is None else str(entry.nfe or "auto")
            words = (entry.label, entry.dataset or "", entry.metric, nfe, f"{entry.value:g}")
            table.rows.append([Text(word) for word in (*words, entry.source)])
    return table if table.rows else None


def verdict_lines(found: Sequence[Verdict]) -> list[str]:
    """The same for a terminal, a line each."""
    table = verdict_table(found)
    return [_line(*(cell.words for cell in row)) for row in table.rows] + table.notes


def _line(what: str, bounds: str, word: str, measured: str, source: str) -> str:
    numbers = f": {measured}" if measured else ""
    return f"{word:12s}  {what}, expected {bounds}{numbers}  [{source}]"
