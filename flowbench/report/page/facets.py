"""What a page can be filtered by: the tags of blocks and rows, and their values."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from flowbench.report.document import Block, Document

# In the order of the page; other tags follow by name.
TITLES = {
    "dataset": "Data set",
    "method": "Method",
    "nfe": "NFE",
    "samples": "Samples",
    "budget": "Budget",
    "labels": "Class labels",
    "protocol": "Protocol",
}
NO_FACETS = ("label", "floor")  # the search finds labels


@dataclass(frozen=True)
class Facet:
    """A tag with at least two values."""

    name: str
    title: str
    values: tuple[str, ...]


def block_tags(block: Block) -> dict[str, str]:
    """What all rows of a block share."""
    section = block.section
    return {
        "dataset": section.dataset,
        "samples": str(section.n),
        "budget": section.budget.replace(" x ", " steps of "),
        "labels": "unconditional" if section.conditioning == "none" else section.conditioning,
        "protocol": "; ".join(section.differs) or "the most frequent",
    }


def block_facts(block: Block) -> str:
    """What tells a block from others of its data set, in short."""
    section, tags = block.section, block_tags(block)
    facts = [f"{section.n} samples", tags["budget"]]
    facts += ["unconditional"] * (section.conditioning == "none")
    facts += [f"protocol {section.part + 1}"] * (section.part > 0)
    return ", ".join(filter(None, facts))


def facets(document: Document) -> list[Facet]:
    """The tags that tell rows of `document` apart."""
    found: dict[str, set[str]] = {}
    for name, value in _tags(document):
        if name not in NO_FACETS:
            found.setdefault(name, set()).add(value)
    names = sorted(found, key=lambda name: (_place(name), name))
    return [
        Facet(name, TITLES.get(name, name.capitalize()), tuple(sorted(found[name], key=_order)))
        for name in names
        if len(found[name]) > 1
    ]


def _tags(document: Document) -> Iterator[tuple[str, str]]:
    for block in document.blocks:
        yield from block_tags(block).items()
        for tags in block.table.tags:
            yield from tags.items()


def _place(name: str) -> int:
    return list(TITLES).index(name) if name in TITLES else len(TITLES)


def _order(value: str) -> tuple[float, str]:
    """Numbers by size, words after them."""
    try:
        number = float(value)
    except ValueError:
        return math.inf, value
    return (math.inf if math.isnan(number) else number), value
