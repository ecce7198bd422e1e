"""The tables of one section: methods x NFE for `compare`, everything for `report`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from flowbench.command_line import command
from flowbench.comparison.naming import TRAITS, named
from flowbench.comparison.view import Cell, Group, Section
from flowbench.entries import Dataset
from flowbench.records import RUN_LEVEL
from flowbench.report.layout import MISSING, Table, Text, heading, number
from flowbench.report.remarks import has_floors, remarks

COSTS = (
    *("nll", "S", "S2", "ms-per-sample", "mflop-per-sample", "train-seconds", "train-images"),
    *("parameters", "parameters-per-evaluation"),
)
INTERNAL = ("nfe", "peak-mib", "clipped")  # stored and shown by `flowbench show`


def matrix(
    section: Section,
    names: Sequence[str],
    nfes: Sequence[int] | None = None,
    wanted: Sequence[str] = (),
    default: Dataset | None = None,
    remark: str = "",
    groups: Sequence[Group] | None = None,
) -> Table:
    """Methods x NFE: what `compare` prints, in the order of `groups`.

    `wanted` methods without runs are shown as missing, with the commands that would measure them.
    """
    asked, nfes = nfes is not None, list(section.nfes if nfes is None else nfes)
    columns = [(name, nfe) for name in names if name not in section.facts for nfe in nfes]
    columns += [(name, RUN_LEVEL) for name in names if name in section.facts]
    shown = traits_of(section)
    table = Table(title(section), ["method", *shown, *(heading(*c) for c in columns)], [])
    table.labels += len(shown)
    for group in section.groups if groups is None else groups:
        cells = [_text(section, group, *column) for column in columns]
        table.rows.append([Text(_label(group)), *_traits(group, shown), *cells])
    here = {group.spec.method for group in section.groups}
    absent, blank = [name for name in wanted if name not in here], [Text("") for _ in shown]
    table.rows += [[Text(name), *blank, *(Text(MISSING) for _ in columns)] for name in absent]
    if has_floors(section, names):
        table.rows.append(_floor_row(section, blank, [name for name, _ in columns]))
    lines = _remedies(section, names, nfes, absent, default, asked)
    table.notes += [f"{MISSING}: {line}" for line in lines] + remarks(section, remark, names)
    return table


def traits_of(section: Section) -> list[str]:
    """The traits in which some row of a section has something."""
    return [name for name in TRAITS if any(group.traits.get(name) for group in section.groups)]


def _traits(group: Group, shown: Sequence[str]) -> list[Text]:
    return [Text(group.traits.get(name, "")) for name in shown]


def _remedies(
    section: Section,
    names: Sequence[str],
    nfes: Sequence[int],
    absent: Sequence[str],
    default: Dataset | None,
    asked: bool,
) -> Iterator[str]:
    """The commands that would measure what is missing.

    An NFE at which a row has nothing is one that its method may not be able to sample with, so it
    is only offered where it was `asked` for.
    """
    n, stream = section.n, section.streams[0]
    for group in section.groups:
        offered = [nfe for nfe in nfes if asked or nfe in section.levels[group.label]]
        lacking = [nfe for nfe in offered if not _measured(section, group, names, nfe)]
        if lacking:
            yield from commands(group, lacking, n, stream, default)
    seeds = sorted({seed for group in section.groups for seed in group.seeds})
    for name in absent:
        like = replace(section.groups[0].spec, method=name, changed={})
        yield command(like, nfes, seeds, n, stream, default)


def commands(
    group: Group, nfes: Sequence[int], n: int, stream: int, default: Dataset | None
) -> list[str]:
    """What makes a row: one command, or several where each seed has a teacher of its own."""
    parts: dict[str, list[int]] = {}
    for seed in group.seeds:
        word = str(group.specs.get(seed, group.spec).changed.get("teacher", ""))
        parts.setdefault(word, []).append(seed)
    return [
        command(group.specs.get(seeds[0], group.spec), nfes, seeds, n, stream, default)
        for seeds in parts.values()
    ]


def ledger(section: Section, remark: str = "", order: Sequence[str] = ()) -> Table:
    """One row per method and NFE with every metric and cost: what `report` prints.

    Metrics stand in the given `order`, others after them.
    """
    known = [name for name in section.metrics if name not in (*COSTS, *INTERNAL)]
    metrics = [name for name in (named(word, section.n) for word in order) if name in known]
    metrics += [name for name in known if name not in metrics]
    costs = [name for name in COSTS if name in (*section.metrics, *section.facts)]
    shown = traits_of(section)
    table = Table(title(section), ["method", *shown, "seeds", "NFE", *metrics, *costs], [])
    table.labels = 3 + len(shown)
    for nfe in section.nfes:
        for group in section.groups:
            if not any((group.label, name, nfe) in section.cells for name in metrics):
                continue
            row = [Text(group.label), *_traits(group, shown)]
            row += [Text(str(len(group.seeds)), value=len(group.seeds)), _nfe(section, group, nfe)]
            row += [_text(section, group, name, nfe) for name in metrics]
            row += [_text(section, group, name, _level(section, name, nfe)) for name in costs]
            table.rows.append(row)
            table.tags.append(_tags(section, group, nfe))
    if has_floors(section, metrics):
        blank = [Text("") for _ in (*shown, "seeds", "NFE")]
        table.rows.append(_floor_row(section, blank, (*metrics, *costs)))
        table.tags.append({"dataset": section.dataset, "floor": "yes"})
    table.notes += remarks(section, remark, [*metrics, *costs])
    return table


def _tags(section: Section, group: Group, nfe: int) -> dict[str, str]:
    return {
        "dataset": section.dataset,
        "method": group.spec.method,
        "label": group.label,
        "nfe": str(nfe or "auto"),
        **group.traits,
    }


def _level(section: Section, name: str, nfe: int) -> int:
    return RUN_LEVEL if name in section.facts else nfe


def _measured(section: Section, group: Group, names: Sequence[str], nfe: int) -> bool:
    """Whether every seed of the group has every metric at `nfe`."""
    cells = [section.cells.get((group.label, n, nfe)) for n in names if n not in section.facts]
    return all(cell is not None and cell.seeds == len(group.seeds) for cell in cells)


def title(section: Section) -> str:
    """A section in one line: data, samples, budget, noise streams."""
    streams = ", ".join(map(str, section.streams))
    noise = f"noise stream{'s' * (len(section.streams) > 1)} {streams}"
    steps, _, batch = section.budget.partition(" x ")
    budget = f", {steps} steps of {batch}" if section.budget else ""
    labels = ", unconditional" if section.conditioning == "none" else ""
    part = f", protocol {section.part + 1}" if section.part else ""
    what = f"{section.dataset}: {section.n} samples{budget}{labels}, {noise}"
    return f"{what}, data {section.data[:8]}{part}"


def _label(group: Group) -> str:
    seeds = len(group.seeds)
    return group.label if seeds == 1 else f"{group.label} ({seeds} seeds)"


def _text(section: Section, group: Group, name: str, nfe: int) -> Text:
    cell = section.cells.get((group.label, name, nfe))
    if cell is None:
        return Text(MISSING if name in section.metrics else "")
    words = number(cell) + ("" if cell.comparable else " *")
    if cell.seeds < len(group.seeds):
        words += f" ({cell.seeds} of {len(group.seeds)} seeds)"
    elif nfe != RUN_LEVEL and _has_streams(cell) and cell.streams < len(section.streams):
        words += f" ({cell.streams} of {len(section.streams)} noise streams)"
    return Text(words, cell.best, cell.mean)


def _has_streams(cell: Cell) -> bool:
    """Whether a number was made from samples."""
    return cell.fields.get("n", "0") != "0" and cell.streams > 0


def _nfe(section: Section, group: Group, nfe: int) -> Text:
    cell = section.cells.get((group.label, "nfe", nfe))
    words = str(nfe) if nfe else f"auto ({cell.mean:.4g})" if cell else "auto"
    return Text(words, value=float(nfe) if nfe else cell.mean if cell else None)


def _floor_row(section: Section, blank: Sequence[Text], names: Sequence[str]) -> list[Text]:
    cells = [section.floors.get(name) for name in names]
    words = [Text(number(cell), value=cell.mean) if cell else Text("") for cell in cells]
    return [Text(f"floor (n = {section.floor_n})"), *blank, *words]
