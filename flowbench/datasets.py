"""Data sets by their name or path, one copy for all runs of a process."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path

from flowbench import options, plugins
from flowbench.data import base, images
from flowbench.entries import Dataset
from flowbench.records import FlowbenchError
from flowbench.training import Progress

Watch = Callable[[Progress], None]
_loaded: dict[tuple[str, str, Path | None], base.Data] = {}


def load_data(name: str, device: str, root: Path | None, watch: Watch | None = None) -> base.Data:
    """The data set `name` on `device`, one copy for all runs of this process.

    `watch` hears how far a set is that is decoded for the first time.
    """
    key = (name, device, root)
    if key not in _loaded:
        entry = dataset(name, root)
        watched = {"watch": watch} if "watch" in signature(entry.load).parameters else {}
        _loaded[key] = base.load(entry.name, entry.load(root, **watched), device)
    return _loaded[key]


def dataset(name: str, root: Path | None = None) -> Dataset:
    """The catalogue's entry, or one for an archive or folder of images by its path.

    What was named by its path is found again by its stem under `root`. Raises FlowbenchError with
    the nearest name.
    """
    known = plugins.datasets()
    if name in known:
        plugins.refuse_clash("datasets", name)
        return known[name]
    path = images.find(name, root)
    if path is None:
        return known[options.choose("data set", name, known)]
    if images.stem(path) in known:
        raise FlowbenchError(f"{path} has the name of a data set of flowbench: give it another")
    return images.entry(path)
