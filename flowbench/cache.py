"""The folder for what can be made again: decoded data, reference statistics, downloads."""

import os
from pathlib import Path


def folder(*parts: str) -> Path:
    """A folder of the cache, made when it is missing.

    `FLOWBENCH_CACHE` names the cache, else it is `flowbench` in the user's cache folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    named = os.environ.get("FLOWBENCH_CACHE")
    place = (Path(named) if named else Path(home) / "flowbench").joinpath(*parts)
    place.mkdir(parents=True, exist_ok=True)
    return place
