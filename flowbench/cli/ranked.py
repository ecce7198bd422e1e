"""`torchrun ... flowbench run METHOD`: the processes of one run, of which the first one speaks."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from flowbench import torchrun

ALONE = {"suite": "--suite", "timeout": "--timeout", "smoke": "--smoke", "debug": "--pdb"}
ALONE |= {"profile": "--profile", "dry": "--dry-run or --explain"}


def several() -> bool:
    """Whether torchrun has started more than this process."""
    return torchrun.launched() > 1


def check(given: Mapping[str, Any]) -> None:
    """Raise what click raises for options that one process takes."""
    for name, word in ALONE.items():
        if several() and given[name]:
            more = "; of a suite: --launcher." if name == "suite" else "."
            raise click.UsageError(f"torchrun is for one run METHOD, without {word}{more}")


@contextmanager
def joined(setup: Any) -> Iterator[Any]:
    """The setup of this process among those of the run; only that of the first one is heard."""
    if not several():
        if (
            os.environ.get("WORLD_SIZE", "1") != "1"
            and {"RANK", "MASTER_ADDR"} <= os.environ.keys()
        ):
            setup.note("RANK and WORLD_SIZE are set, but not by torchrun: this process runs alone")
        yield setup
        return
    from flowbench import ranks

    with ranks.joined(setup.device):
        silent = {} if ranks.first() else {"note": lambda text: None, "track": ()}
        yield dataclasses.replace(setup, **silent)


def quiet(asked: bool) -> bool:
    """Whether nothing is shown of how far a run is."""
    return asked or (several() and os.environ.get("RANK") != "0")
