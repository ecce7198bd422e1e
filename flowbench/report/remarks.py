"""The notes below a section's table: what its numbers were made with, and what does not rank."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowbench.comparison.fingerprint import differences
from flowbench.comparison.ranking import same_noise
from flowbench.comparison.view import Cell, Section

GOALS = {
    "min": "lower is better",
    "max": "higher is better",
    "floor": "nearest to the floor is best",
}


def remarks(section: Section, remark: str, names: Sequence[str]) -> list[str]:
    """The notes below a section's table that shows metrics `names`."""
    notes = [f"{section.dataset}: {remark}"] if remark else []
    notes += directions(section, names)
    if has_floors(section, names):
        notes.append("floor: real held-out data in the model's place")
    notes += [f"this table's {line}" for line in section.differs]
    notes += protocols(section, names)
    if len(section.streams) > 1:
        notes.append(
            "mean ± standard deviation over training seeds (standard deviation over noise"
            " streams); least: the smallest over noise streams, as EDM reports it"
        )
    if len(section.streams) > 1 and not _same_noise(section, names):
        notes.append("no best in columns whose rows have other noise streams")
    fields = unlike(section, names)
    if fields:
        notes.append(f"*: not ranked, because these differ: {', '.join(fields)}")
    return notes + section.failures


def directions(section: Section, names: Sequence[str]) -> list[str]:
    """Which metrics of `names` are better lower, higher, or near their floor, in one line."""
    goals = {name: cell.goal for (_, name, _), cell in section.some(names)}
    found = [
        f"{words}: {', '.join(mine)}"
        for goal, words in GOALS.items()
        if (mine := [name for name in dict.fromkeys(names) if goals.get(name) == goal])
    ]
    return ["; ".join(found)] if found else []


def has_floors(section: Section, names: Sequence[str]) -> bool:
    """Whether one of the metrics has a floor."""
    return any(name in section.floors for name in names)


def _same_noise(section: Section, names: Sequence[str]) -> bool:
    """Whether all cells of each column of `names` have the same noise streams."""
    columns: dict[tuple[str, int], list[Cell]] = {}
    for (_, name, nfe), cell in section.some(names):
        if cell.goal:
            columns.setdefault((name, nfe), []).append(cell)
    return all(map(same_noise, columns.values()))


def unlike(section: Section, names: Sequence[str] | None = None) -> list[str]:
    """The fields of the fingerprint in which columns of `names` differ (None: of all ranked)."""
    columns: dict[tuple[str, int], list] = {}
    found = section.cells.items() if names is None else section.some(names)
    for (_, name, nfe), cell in found:
        if not cell.comparable and (names is not None or cell.goal):
            columns.setdefault((name, nfe), []).append(cell.fields)
    return list(dict.fromkeys(field for some in columns.values() for field in differences(some)))


def protocols(section: Section, names: Sequence[str] | None = None) -> Iterator[str]:
    """A line for each extractor and reference that `names` were made with (None: all)."""
    parts: dict[str, list[str]] = {}
    for name, protocol in section.protocols.items():
        facts, against = protocol.get("extractor"), protocol.get("reference")
        if not isinstance(facts, Mapping) or "network" not in facts:  # not one of ours
            continue
        if names is not None and name not in names:
            continue
        weights, resize = str(protocol["weights"])[:8], facts.get("resize", "no resize")
        line = f"{facts['network']} (weights {weights}), {resize}"
        if isinstance(against, Mapping):
            line += _against(against)
        parts.setdefault(line, []).append(name)
    return (f"{', '.join(sorted(names))}: {line}" for line, names in parts.items())


def _against(reference: Mapping[str, Any]) -> str:
    """What the real rows are that features are held against."""
    if "rows" in reference:
        real = f"{reference['rows']} images of its {reference.get('split')} split"
        return f", against {real}, data {str(reference.get('data'))[:8]}"
    if "file" in reference:
        return f", against the statistics of file {str(reference['file'])[:8]}"
    return ""
