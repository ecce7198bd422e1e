"""From a section to a table of texts: which rows and columns, how a number is written."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from flowbench.command_line import command
from flowbench.compare import Cell, Group, Section, named
from flowbench.records import RUN_LEVEL, Dataset

MISSING = "not measured"
COSTS = (
    *("nll", "S", "S2", "ms-per-sample", "mflop-per-sample", "train-seconds", "train-images"),
    *("parameters", "parameters-per-evaluation"),
)
INTERNAL = ("nfe", "peak-mib", "clipped")  # stored and shown by `flowbench show`


@dataclass(frozen=True)
class Text:
    """What stands in one cell."""

    words: str
    best: bool = False
    value: float | None = None  # what a reader may sort by; None: by the words


@dataclass
class Table:
    """A table that any format can print: the first `labels` columns say what a row is.

    `tags` say of each row, where there are any, what it may be filtered by: dataset, method, nfe.
    """

    title: str
    columns: list[str]
    rows: list[list[Text]]
    notes: list[str] = field(default_factory=list)
    labels: int = 1
    tags: list[dict[str, str]] = field(default_factory=list)


def matrix(
    section: Section,
    names: Sequence[str],
    nfes: Sequence[int] | None = None,
    wanted: Sequence[str] = (),
    default: Dataset | None = None,
    remark: str = "",
) -> Table:
    """Methods x NFE: what `compare` prints; `wanted` methods without runs are shown as missing.

    Below it stand the commands that would measure what is missing.
    """
    nfes = list(section.nfes if nfes is None else nfes)
    columns = [(name, nfe) for name in names if name not in section.facts for nfe in nfes]
    columns += [(name, RUN_LEVEL) for name in names if name in section.facts]
    table = Table(_title(section), ["method", *(_heading(*column) for column in columns)], [])
    for group in section.groups:
        table.rows.append([Text(_label(group)), *(_text(section, group, *c) for c in columns)])
    absent = [name for name in wanted if name not in {g.spec.method for g in section.groups}]
    table.rows += [[Text(name), *(Text(MISSING) for _ in columns)] for name in absent]
    if section.floors:
        floors = [_floor(section, name) for name, _ in columns]
        table.rows.append([Text(f"floor (n = {section.floor_n})"), *floors])
    lines = _remedies(section, names, nfes, absent, default)
    table.notes += [f"{MISSING}: {line}" for line in lines] + _remarks(section, remark)
    return table


def _remedies(
    section: Section,
    names: Sequence[str],
    nfes: Sequence[int],
    absent: Sequence[str],
    default: Dataset | None,
) -> Iterator[str]:
    """The commands that would measure what is missing."""
    for group in section.groups:
        lacking = [nfe for nfe in nfes if not _measured(section, group, names, nfe)]
        if lacking:
            yield command(group.spec, lacking, group.seeds, section, default)
    seeds = sorted({seed for group in section.groups for seed in group.seeds})
    for name in absent:
        like = replace(section.groups[0].spec, method=name, changed={})
        yield command(like, nfes, seeds, section, default)


def ledger(section: Section, remark: str = "", order: Sequence[str] = ()) -> Table:
    """One row per method and NFE with every metric and cost: what `report` prints.

    Metrics stand in the given `order`, others after them.
    """
    known = [name for name in section.metrics if name not in (*COSTS, *INTERNAL)]
    metrics = [name for name in (named(word, section.n) for word in order) if name in known]
    metrics += [name for name in known if name not in metrics]
    costs = [name for name in COSTS if name in (*section.metrics, *section.facts)]
    table = Table(_title(section), ["method", "seeds", "NFE", *metrics, *costs], [], labels=3)
    for nfe in section.nfes:
        for group in section.groups:
            if not any((group.label, name, nfe) in section.cells for name in metrics):
                continue
            row = [Text(group.label), Text(str(len(group.seeds))), _nfe(section, group, nfe)]
            row += [_text(section, group, name, nfe) for name in metrics]
            row += [_text(section, group, name, _level(section, name, nfe)) for name in costs]
            table.rows.append(row)
    if section.floors:
        floors = [_floor(section, name) for name in (*metrics, *costs)]
        label = Text(f"floor (n = {section.floor_n})")
        table.rows.append([label, Text(""), Text(""), *floors])
    table.notes += _remarks(section, remark)
    return table


def _level(section: Section, name: str, nfe: int) -> int:
    return RUN_LEVEL if name in section.facts else nfe


def _measured(section: Section, group: Group, names: Sequence[str], nfe: int) -> bool:
    """Whether every seed of the group has every metric at `nfe`."""
    cells = [section.cells.get((group.label, n, nfe)) for n in names if n not in section.facts]
    return all(cell is not None and cell.seeds == len(group.seeds) for cell in cells)


def _title(section: Section) -> str:
    stream = f"noise stream {section.sample_seed}"
    if section.streams:
        stream = f"over noise streams {', '.join(map(str, section.streams))}"
    return f"{section.dataset}: {section.n} samples, {stream}, data {section.data[:8]}"


def _heading(name: str, nfe: int) -> str:
    if nfe == RUN_LEVEL:
        return name
    return f"{name} @ {nfe or 'auto'}"


def _label(group: Group) -> str:
    seeds = len(group.seeds)
    return group.label if seeds == 1 else f"{group.label} ({seeds} seeds)"


def _text(section: Section, group: Group, name: str, nfe: int) -> Text:
    cell = section.cells.get((group.label, name, nfe))
    if cell is None:
        return Text(MISSING if name in section.metrics else "")
    words = number(cell) + ("" if cell.comparable or not cell.goal else " *")
    if cell.seeds < len(group.seeds):
        words += f" ({cell.seeds} of {len(group.seeds)} seeds)"
    return Text(words, cell.best)


def _nfe(section: Section, group: Group, nfe: int) -> Text:
    cell = section.cells.get((group.label, "nfe", nfe))
    return Text(str(nfe) if nfe else f"auto ({cell.mean:.4g})" if cell else "auto")


def _floor(section: Section, name: str) -> Text:
    return Text(number(section.floors[name]) if name in section.floors else "")


def number(cell: Cell) -> str:
    """Mean ± standard deviation with the digits that the deviation leaves meaningful."""
    if not math.isfinite(cell.mean):
        return str(cell.mean)
    mean = plain(cell.mean)
    return mean if cell.sd is None else f"{mean} ± {cell.sd:.2g}"


def plain(value: float) -> str:
    """Four significant digits, never in scientific notation from 0.0001 to a billion."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1000 <= abs(value) < 1e9 or (value == round(value) and 10 <= abs(value) < 1e9):
        return f"{value:.0f}"
    return f"{value:#.4g}" if 1e-4 <= abs(value) < 1000 else f"{value:.2e}"


def _remarks(section: Section, remark: str) -> list[str]:
    notes = [f"{section.dataset}: {remark}"] if remark else []
    if section.floors:
        notes.append("floor: real held-out data in the model's place")
    notes += protocols(section)
    if section.streams:
        notes.append(
            "mean ± standard deviation over noise streams, and least: the smallest of them, as EDM"
            " reports it; each averaged over training seeds"
        )
    if any(cell.goal and not cell.comparable for cell in section.cells.values()):
        notes.append("*: measured by different protocols, so not ranked")
    return notes + section.failures


def protocols(section: Section) -> Iterator[str]:
    """A line for each extractor and reference that numbers were made with."""
    parts: dict[str, list[str]] = {}
    for name, protocol in section.protocols.items():
        facts, against = protocol["extractor"], protocol.get("reference", {})
        line = f"{facts['network']} (weights {protocol['weights'][:8]}), {facts['resize']}"
        if "rows" in against:
            real = f"{against['rows']} images of its {against['split']} split"
            line += f", against {real}, data {against['data'][:8]}"
        elif against:
            line += f", against the statistics of file {against['file'][:8]}"
        parts.setdefault(line, []).append(name)
    return (f"{', '.join(sorted(names))}: {line}" for line, names in parts.items())
