"""The folder for what can be made again: decoded data, reference statistics, downloads."""

import os
from pathlib import Path

from flowbench.disk import writing
from flowbench.records import FlowbenchError


def place(*parts: str) -> Path:
    """A path in the cache, where nothing need be.

    `FLOWBENCH_CACHE` names the cache, else it is `flowbench` in the user's cache folder. Raises
    FlowbenchError where neither is known.
    """
    named = os.environ.get("FLOWBENCH_CACHE")
    return (Path(named) if named else _home() / "flowbench").joinpath(*parts)


def _home() -> Path:
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and a user whom the system does not know
        raise FlowbenchError(
            "there is no home folder for the cache: name a folder with FLOWBENCH_CACHE"
        ) from None


def folder(*parts: str) -> Path:
    """A folder of the cache, made when it is missing; raises disk.Unwritten where it cannot be."""
    found = place(*parts)
    with writing(found):
        found.mkdir(parents=True, exist_ok=True)
    return found
