"""What papers print: their numbers, and which of our rows each may be held against.

They stand in `published.csv`. `samples` and `reference` are what a number was measured with and
held against; where a paper is silent, what is usual on that data set. `ours` are the words after
`flowbench run` that tell the row of ours which corresponds, empty where no method of ours does.
"""

import argparse
import csv
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Any

from flowbench import options
from flowbench.comparison.naming import named
from flowbench.comparison.view import Cell, Group, Section
from flowbench.records import ADAPTIVE, Spec

ARXIV = "arXiv:"


@dataclass(frozen=True)
class Words:
    """Some words of `flowbench run`, read: what a row of ours must have to correspond."""

    method: str
    options: Mapping[str, str]
    nfe: str | None = None
    preset: str | None = None
    teacher: str | None = None
    steps: int | None = None
    batch: int | None = None
    unconditional: bool = False

    def fit(self, spec: Spec) -> bool:
        """Whether a run is of this kind: all that is named here is equal, all else is open."""
        budget = {"steps": self.steps, "batch": self.batch}
        return (
            spec.method == self.method
            and bool(spec.setting.get("unconditional")) == self.unconditional
            and all(n is None or n == getattr(spec.budget, name) for name, n in budget.items())
            and all(
                name in spec.options and _same(word, spec.options[name])
                for name, word in self.options.items()
            )
        )


@dataclass(frozen=True)
class Published:
    """A number that a paper prints; `printed` is as it stands there, with its deviation if any."""

    paper: str  # arXiv:2412.06403
    table: str
    variant: str  # what tells two rows of one method apart
    dataset: str
    conditional: bool  # on class labels, as the table says
    family: str
    method: str  # as printed
    source: str  # whom the paper quotes
    nfe: int | None  # as printed; None where it is not said
    metric: str
    value: float
    sd: float | None
    samples: int
    reference: str  # as the fingerprint's field `split` says it
    note: str
    ours: str
    printed: str = field(compare=False)

    @cached_property
    def words(self) -> Words | None:
        """`ours`, read; None where no method of ours corresponds."""
        return _words(self.ours) if self.ours else None

    @property
    def level(self) -> int:
        """The NFE by which our number goes: `ADAPTIVE` for the mean count of an adaptive solver."""
        auto = self.words is not None and self.words.nfe == "auto"
        return ADAPTIVE if auto or self.nfe is None else self.nfe

    @property
    def shown(self) -> str:
        """The metric as a table calls it, with the number of samples where that matters."""
        return named(self.metric, self.samples)

    @property
    def place(self) -> str:
        """Where it is printed: `arXiv:2412.06403, Table 2`."""
        return f"{self.paper}, {'Table ' if self.table.isdigit() else ''}{self.table}"


@dataclass(frozen=True)
class Match:
    """A published number beside one of ours, and in what ours is known to differ."""

    published: Published
    group: Group
    cell: Cell
    remarks: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """Ours - published."""
        return self.cell.mean - self.published.value


def rows() -> list[Published]:
    """Every published number, in the order of papers and their tables."""
    return list(_rows())


@cache
def _rows() -> tuple[Published, ...]:
    text = resources.files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_row(record) for record in csv.DictReader(text.splitlines()))


def _row(record: Mapping[str, str]) -> Published:
    deviation = f" ± {record['sd']}" if record["sd"] else ""
    read: dict[str, Any] = {
        "conditional": record["conditional"] == "yes",
        "nfe": int(record["nfe"]) if record["nfe"] else None,
        "value": float(record["value"]),
        "sd": float(record["sd"]) if record["sd"] else None,
        "samples": int(record["samples"]),
        "printed": record["value"] + deviation,
    }
    return Published(**{**record, **read})


@cache
def _words(ours: str) -> Words:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("method")
    parser.add_argument("-o", dest="options", action="append", default=[])
    for name in ("--nfe", "--preset", "--teacher"):
        parser.add_argument(name)
    for name in ("--steps", "--batch"):
        parser.add_argument(name, type=int)
    parser.add_argument("--unconditional", action="store_true")
    found = vars(parser.parse_args(shlex.split(ours)))
    parts = (word.partition("=") for word in found.pop("options"))
    return Words(options={name: value for name, _, value in parts}, **found)


def _same(word: str, value: Any) -> bool:
    """Whether a typed word means an option's stored value."""
    if isinstance(value, list | tuple):
        return word == ",".join(map(str, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(word) == value
        except ValueError:
            return False
    return word.lower() == str(value).lower()


def select(
    found: Sequence[Published],
    dataset: str | None = None,
    method: str | None = None,
    paper: str | None = None,
    nfes: Sequence[int] = (),
    metrics: Sequence[str] = (),
) -> list[Published]:
    """Those of `found` that fit; raises FlowbenchError for a word that fits none of them.

    `method` is a paper's name or ours, `paper` an arXiv number, a metric `fid` or `fid5k`.
    """
    if dataset is not None:
        options.choose("published data set", dataset, _known(row.dataset for row in found))
    if paper is not None:
        paper = ARXIV + paper.lower().removeprefix(ARXIV.lower())
        options.choose("paper", paper, _known(row.paper for row in found))
    if method is not None:
        method = options.choose("published method", method.lower(), _methods(found))
    for metric in metrics:
        options.choose("published metric", metric, _known(n for row in found for n in _names(row)))
    return [
        row
        for row in found
        if dataset in (None, row.dataset)
        and paper in (None, row.paper)
        and (method is None or method in _called(row))
        and (not nfes or row.nfe in nfes or row.level in nfes)
        and (not metrics or set(metrics) & set(_names(row)))
    ]


def _known(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _methods(found: Iterable[Published]) -> list[str]:
    return _known(name for row in found for name in _called(row))


def _called(row: Published) -> tuple[str, ...]:
    """What a row's method goes by: the paper's name and ours."""
    return (row.method.lower(), *([row.words.method] if row.words else []))


def _names(row: Published) -> tuple[str, str]:
    return row.metric, row.shown


def matches(section: Section, found: Iterable[Published]) -> list[Match]:
    """Our cells that `found` may be held against, in its order; one row may have several.

    Alike are data set, samples, metric, NFE, labels, method and every option that `ours` names.
    """
    return [
        Match(row, group, cell, tuple(_remarks(row, group, cell, section)))
        for row in found
        if (row.dataset, row.samples) == (section.dataset, section.n) and row.words
        for group in section.groups
        if (cell := section.cells.get((group.label, row.shown, row.level)))
        if row.words.fit(group.spec)
    ]


def _remarks(row: Published, group: Group, cell: Cell, section: Section) -> Iterator[str]:
    """In what ours is known to differ from what the paper did, in words."""
    words, changed = row.words, dict(group.spec.changed)
    assert words is not None
    teacher = group.traits.get("teacher", "")
    if words.teacher and teacher and teacher != words.teacher:
        yield f"its teacher is {teacher}, not {words.teacher}"
    preset = changed.pop("preset", None)
    if words.preset and words.preset != preset and not group.spec.weights:
        yield f"not by --preset {words.preset}"
    told = {"teacher", *words.options, *(["unconditional"] if words.unconditional else [])}
    told |= {name for name in ("steps", "batch") if getattr(words, name) is not None}
    others = [f"{name}={value}" for name, value in sorted(changed.items()) if name not in told]
    if others:
        yield f"set here: {', '.join(others)}"
    against = cell.fields.get("split", "")
    if row.reference and against and against != row.reference:
        yield f"held against {against}, not {row.reference}"
    yield from (line for line in section.differs if line.startswith(f"{row.metric}: "))
