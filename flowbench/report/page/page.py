"""From a document to its page: what the template shows, and the policy that guards it."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from flowbench.report.document import Block, Chart, Document, Picture
from flowbench.report.page.facets import block_facts, block_tags, facets
from flowbench.report.page.grid import GOALS, Grid, grid, tags_attribute

MANY = 30  # entries on how rows were made that a printed page still shows


# Control characters, those that turn the direction of what follows, and those without any width:
# a stranger's, if any.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


@dataclass(frozen=True)
class Part:
    """A block with what the template needs beside it."""

    block: Block
    facts: str
    tags: dict[str, str]
    grid: Grid
    published: Grid | None
    many: bool


def html(document: Document, svg: Callable[[Chart], str]) -> str:
    """The page of `document`, which loads nothing and is the same for the same document.

    `svg` draws a chart as an SVG element with its title and summary inside, in the colours
    var(--ink), var(--muted) and var(--grid); it is trusted to have escaped what it shows, and the
    page's policy runs no script of it. Rows are filtered by their tags; those tagged `floor` stay
    at the bottom.
    """
    style, script = _read("style.css"), _read("script.js")
    parts = [_part(block) for block in document.blocks]
    rendered = _template().render(
        document=document,
        parts=parts,
        failures=grid(document.failures) if document.failures else None,
        facets=facets(document),
        counts=_counts(document, parts),
        goals=GOALS.values(),
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
        svg=lambda chart: Markup(svg(chart)),
    )
    return UNSEEN.sub("", rendered)


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy under which only these two run and nothing is loaded."""
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'sha256-{_sha(style)}'; script-src 'sha256-{_sha(script)}'"
    )


def _sha(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "data_uri": _data_uri,
        "size": _size,
        "tagged": tags_attribute,
    }
    return environment.get_template("template.html.j2")


def _part(block: Block) -> Part:
    anchors = {made.label: f"{block.name}-how-{i}" for i, made in enumerate(block.details)}
    goals = {name: cell.goal for (_, name, _), cell in block.section.cells.items()}
    return Part(
        block=block,
        facts=block_facts(block),
        tags=block_tags(block),
        grid=grid(block.table, goals, anchors),
        published=grid(block.published) if block.published else None,
        many=len(block.details) > MANY,
    )


def _counts(document: Document, parts: list[Part]) -> dict[str, int]:
    made = [details for block in document.blocks for details in block.details]
    return {
        "rows": sum(len(part.grid.rows) for part in parts),
        "runs": len({run for details in made for run in details.runs}),
        "methods": len({details.method for details in made}),
        "sets": len({block.section.dataset for block in document.blocks}),
        "failures": len(document.failures.rows) if document.failures else 0,
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def _size(picture: Picture) -> tuple[int, int]:
    """Width and height, which every PNG states in bytes 16 to 23."""
    return int.from_bytes(picture.png[16:20]), int.from_bytes(picture.png[20:24])
