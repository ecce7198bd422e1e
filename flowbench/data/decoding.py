"""The decoded images of archives and folders in the cache: made once for each state of a source."""

import shutil
from collections.abc import Callable
from pathlib import Path

from flowbench import cache
from flowbench.data.packing import save_labels
from flowbench.data.pictures import Pictures
from flowbench.data.rows import DONE, Clock, fill
from flowbench.data.sources import Source, folder, zipped
from flowbench.records import RunFailed, digest
from flowbench.training import Progress

Watch = Callable[[Progress], None]


def undecoded(path: Path) -> Source:
    """An EDM zip or a folder of images."""
    return folder(path) if path.is_dir() else zipped(path)


def decoded(path: Path, state: str, watch: Watch) -> Path:
    """The folder of the cache with the decoded images of `path` in its present state.

    One process decodes, others wait for it; what an earlier state left is removed.
    """
    from filelock import FileLock

    home = place_of(path)
    place = home / state[:16]
    if place.exists():
        return place
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "lock"):
            if not place.exists():
                _decode(path, place, watch)
    except OSError as error:
        raise RunFailed(
            f"{path.name} cannot be decoded into {home}: {error.strerror}: free some space or name"
            " another folder with FLOWBENCH_CACHE, then run the same command again"
        ) from error
    return place


def place_of(path: Path) -> Path:
    """The folder of the cache for the decoded images of `path`."""
    return cache.place("decoded", f"{path.stem}-{digest(str(path.resolve()))[:12]}")


def _decode(path: Path, place: Path, watch: Watch) -> None:
    """Decode a source into the folder `place`, and remove its elder brothers."""
    source, clock = undecoded(path), Clock(f"decode {path.name}", watch)
    part = place.with_name(f"{place.name}.part")
    fill(part / "images.npy", Pictures(source), 1, clock)
    save_labels(part, source.labels)
    part.rename(place)
    (place / DONE).unlink()
    for old in place.parent.iterdir():
        if old.is_dir() and old != place:
            shutil.rmtree(old, ignore_errors=True)
