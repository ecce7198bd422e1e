"""From a view to a document: each section with its table, what stands behind its rows, figures."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flowbench.comparison.published import Published
from flowbench.comparison.view import Group, Section, View
from flowbench.entries import Dataset
from flowbench.report import failures, reproduction, sections
from flowbench.report.document import Block, Chart, Details, Document, Picture
from flowbench.report.layout import Table

FACTS = ("python", "system", "torch", "device", "threads", "cuda", "tf32", "git")  # of a machine
SHORT = 12  # characters of a hash

Catalogue = Callable[[str], tuple[str, Sequence[str], Dataset | None]]
Environments = Mapping[str, Mapping[str, Any]]


def document(
    view: View,
    environments: Environments,
    catalogue: Catalogue,
    published: Sequence[Published] = (),
    charts: Callable[[Section], Sequence[Chart]] = lambda section: (),
    pictures: Callable[[Section], Sequence[Picture]] = lambda section: (),
) -> Document:
    """A leaderboard of everything in `view`.

    `environments` are the facts of machines by digest; `catalogue(dataset)` gives the remark on a
    data set, the order of metrics, and its entry; `charts` and `pictures` draw a section.
    """
    blocks, taken = [], set[str]()
    for section in view.sections:
        remark, order, entry = catalogue(section.dataset)
        block = Block(
            name=_name(section, taken),
            section=section,
            table=sections.ledger(section, remark, order),
            details=_details(section, environments, entry),
            charts=tuple(charts(section)),
            pictures=tuple(pictures(section)),
            published=reproduction.table(section, published),
        )
        blocks.append(block)
    return Document("flowbench leaderboard", tuple(blocks), failures.table(view.failed))


def tables(found: Document) -> list[Table]:
    """Every table of a document, in the order in which it is read."""
    parts: list[Table | None] = []
    for block in found.blocks:
        parts += [block.table, block.published]
    return [table for table in (*parts, found.failures) if table is not None]


def _name(section: Section, taken: set[str]) -> str:
    """A word for a section that is unique and fits an anchor."""
    word = re.sub(r"[^a-z0-9]+", "-", f"{section.dataset}-{section.n}".lower()).strip("-")
    name, count = word, 1
    while name in taken:
        count += 1
        name = f"{word}-{count}"
    taken.add(name)
    return name


def _details(
    section: Section, environments: Environments, entry: Dataset | None
) -> tuple[Details, ...]:
    measured = {(label, nfe) for label, _, nfe in section.cells}
    return tuple(_of_row(section, g, measured, environments, entry) for g in section.groups)


def _of_row(
    section: Section,
    group: Group,
    measured: Collection[tuple[str, int]],
    environments: Environments,
    entry: Dataset | None,
) -> Details:
    spec = group.spec
    nfes = [nfe for nfe in section.nfes if (group.label, nfe) in measured] or [1]
    hashes = {
        **{"data": spec.data[:SHORT], "code": spec.code[:SHORT]},
        **{"run": spec.key[:SHORT], "teacher": (spec.teacher or "")[: SHORT + 5]},
    }
    return Details(
        label=group.label,
        method=spec.method,
        command="\n".join(sections.commands(group, nfes, section.n, section.streams[0], entry)),
        runs=tuple(group.runs[seed] for seed in group.seeds),
        traits=group.traits,
        hashes={name: word for name, word in hashes.items() if word},
        environments=tuple(_facts(environments.get(name, {})) for name in group.environments),
        origins=group.origins,
    )


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(environment[name]) for name in FACTS if environment.get(name) is not None}
