"""The view model of a report: every format writes these values and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowbench.comparison.view import Section
from flowbench.report.layout import Table


@dataclass(frozen=True)
class Chart:
    """One figure as a Vega-Lite specification with its data inside.

    `summary` says in words what it shows, for those who cannot see it.
    """

    name: str  # unique in a block and fit for a file's name: quality-fd-clf
    title: str
    summary: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A raster image: samples, trajectories."""

    name: str
    title: str
    summary: str
    png: bytes


@dataclass(frozen=True)
class Details:
    """What stands behind a row: how it was made, and where."""

    label: str
    method: str
    command: str  # makes all its seeds
    runs: tuple[str, ...]
    traits: Mapping[str, str]  # teacher, perceptual, adversarial, guidance
    hashes: Mapping[str, str]  # data, code, key of the first run, teacher
    environments: tuple[Mapping[str, str], ...]  # python, torch, device, threads, git
    origins: tuple[str, ...]  # where merged results came from; "" is here


@dataclass(frozen=True)
class Block:
    """A section with all that a page shows of it."""

    name: str  # unique in the document and fit for an anchor: digits-600
    section: Section
    table: Table
    details: tuple[Details, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()
    published: Table | None = None  # published, ours, difference


@dataclass(frozen=True)
class Document:
    """A report, ready for every format."""

    title: str
    blocks: tuple[Block, ...]
    failures: Table | None = None
    notes: tuple[str, ...] = field(default=())
