"""The folder for what can be made again: decoded data, reference statistics, downloads."""

import os
from pathlib import Path


def place(*parts: str) -> Path:
    """A path in the cache, where nothing need be.

    `FLOWBENCH_CACHE` names the cache, else it is `flowbench` in the user's cache folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    named = os.environ.get("FLOWBENCH_CACHE")
    return (Path(named) if named else Path(home) / "flowbench").joinpath(*parts)


def folder(*parts: str) -> Path:
    """A folder of the cache, made when it is missing."""
    found = place(*parts)
    found.mkdir(parents=True, exist_ok=True)
    return found
