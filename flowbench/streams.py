"""Numbers over several noise streams: their mean, standard deviation and minimum, each labelled."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flowbench.compare import COUNTED, Cell, Section, grouped, labelled, named
from flowbench.records import RUN_LEVEL, Measured, Spec, digest

Values = dict[int, dict[int, float]]  # training seed -> noise stream -> value


def sections(
    measured: Sequence[Measured], single: Sequence[Section], goals: Mapping[str, str]
) -> list[Section]:
    """A section for each data set and number of samples that has several noise streams.

    Only what was measured in every stream has a cell; floors and facts of whole runs are those of
    the first in `single`, the sections of one stream each. Of the metrics whose least value is
    published, which EDM takes over three streams, that is a column of its own.
    """
    rows = [m for m in measured if m.score.n and m.score.subject == "model"]
    labels, parts = labelled(measured), defaultdict(list)
    for row in rows:
        parts[row.spec.dataset, row.spec.data, row.score.n].append(row)
    found = []
    for (dataset, data, n), some in sorted(parts.items()):
        streams = tuple(sorted({row.score.seed for row in some}))
        if len(streams) > 1:
            place = (dataset, data, n, streams[0])
            first = next(s for s in single if (s.dataset, s.data, s.n, s.sample_seed) == place)
            section = replace(first, cells={}, groups=[], streams=streams)
            section.cells = {key: c for key, c in first.cells.items() if key[2] == RUN_LEVEL}
            _fill(section, some, labels, goals)
            found.append(section)
    return found


def _fill(section: Section, rows: list[Measured], labels: Mapping, goals: Mapping) -> None:
    values: dict[tuple[str, str, int], Values] = defaultdict(lambda: defaultdict(dict))
    prints: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    members: dict[str, dict[int, Spec]] = defaultdict(dict)
    for row in rows:
        score = row.score
        key = (labels[row.spec.key], score.name, score.nfe)
        values[key][row.spec.seed][score.seed] = score.value
        prints[key].add(digest([score.name, score.n, dict(score.protocol)]))
        members[key[0]][row.spec.seed] = row.spec
    section.groups = grouped(members)
    for (label, name, nfe), by_seed in values.items():
        whole = [list(some.values()) for some in by_seed.values()]
        if any(len(some) < len(section.streams) for some in whole) or name == "nfe":
            continue
        word, goal = named(name, section.n), goals.get(name, "")
        cell = _cell(whole, goal, prints[label, name, nfe])
        section.cells[label, word, nfe] = cell
        if name in COUNTED:
            least = statistics.fmean(min(some) for some in whole)
            section.cells[label, f"{word} least", nfe] = replace(cell, mean=least, sd=None)


def _cell(whole: list[list[float]], goal: str, prints: set[str]) -> Cell:
    return Cell(
        mean=statistics.fmean(statistics.fmean(some) for some in whole),
        sd=statistics.fmean(statistics.stdev(some) for some in whole),
        seeds=len(whole),
        goal=goal,
        fingerprint=min(prints) if len(prints) == 1 else "",
        comparable=len(prints) == 1,
    )
