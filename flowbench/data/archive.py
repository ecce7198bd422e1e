"""Prepared image sets as arrays: zips are decoded once into the cache, and mapped ever after."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from flowbench import cache
from flowbench.checkpoints import write
from flowbench.data import manifest, recipes
from flowbench.data.base import Arrays, Facts, measure
from flowbench.data.packing import save_labels
from flowbench.data.pictures import Pictures
from flowbench.data.rows import DONE, Clock, fill
from flowbench.data.sources import Source, folder, zipped
from flowbench.records import Absent, FlowbenchError, RunFailed, digest
from flowbench.training import Progress, ignore

Watch = Callable[[Progress], None]


def archive(root: Path | None, name: str, stem: str, watch: Watch | None = None) -> Arrays:
    """Find `stem.zip`, `stem-train.zip` or the folders of these names in `root`, and read it.

    `stem-test` beside it is held out, unless the first is the whole set. Raises Absent where
    nothing is found, FlowbenchError where something is damaged.
    """
    if root is None:
        raise Absent(
            f"{name} does not come with flowbench: put {stem}.zip (EDM's zip layout) into a folder"
            " and name the folder with --data-root DIR or FLOWBENCH_DATA"
        )
    choices = recipes.places(Path(root), stem)
    train = next((path for path in choices if recipes.present(path)), None)
    if train is None:
        names = " or ".join(path.name for path in choices[:2])
        raise Absent(f"{name} needs {names} (EDM's zip layout), but {root} has neither")
    held_out = [Path(root) / f"{stem}-test.zip", Path(root) / f"{stem}-test"]
    test = next((path for path in held_out if recipes.present(path)), None)
    if test is not None and train.stem == stem and _whole(train):
        test = None  # its images are among those to train on
    known = recipes.RECIPES.get(name)
    # Archives of sets without classes that others packed may call their folders labels.
    arrays = read(train, test, watch, known is None or known.classes != 0)
    return arrays if known is None else _completed(arrays, known, train)


def _completed(arrays: Arrays, known: recipes.Recipe, path: Path) -> Arrays:
    """The arrays with what is known of a set: its classes, and the classifier of its images."""
    if arrays.train.shape[1:] == (3, known.side, known.side):
        arrays = replace(arrays, classifier=known.classifier)
    if not known.classes or not arrays.classes:
        return arrays
    if arrays.classes > known.classes:
        worst = f"a label {arrays.classes - 1}, and {known.name} has {known.classes} classes"
        raise FlowbenchError(f"{path} has {worst}: prepare it anew")
    return replace(arrays, classes=known.classes)  # also where a trial lacks the last ones


def _whole(path: Path) -> bool:
    return (manifest.find(path) or {}).get("split") == "all"


def by_path(path: Path, watch: Watch | None = None) -> Arrays:
    """The images at `path`: an EDM zip, a folder with `images.npy`, or a folder of images.

    Nothing is held out. Raises Absent where nothing is there, FlowbenchError for other files.
    """
    if not path.exists():
        raise Absent(f"{path} does not exist: name an EDM zip or a folder of images")
    return read(path, None, watch)


def read(
    train: Path, test: Path | None, watch: Watch | None = None, labelled: bool = True
) -> Arrays:
    """Both splits as memory-mapped arrays, with the facts that were measured once."""
    watch = watch or ignore
    images, labels, state = split(train, watch)
    held_out, held_labels, held_state = split(test, watch) if test else (None, None, "")
    if not labelled:
        labels = held_labels = None
    known = [part for part in (labels, held_labels) if part is not None]
    arrays = Arrays(
        train=images,
        labels=labels,
        test=held_out,
        test_labels=held_labels,
        classes=0 if labels is None else int(max(part.max() for part in known)) + 1,
    )
    if held_out is not None and held_out.shape[1:] != images.shape[1:]:
        shapes = f"{images.shape[1:]} and {held_out.shape[1:]}"
        raise FlowbenchError(f"{train} and {test} hold images of two shapes, {shapes}")
    if held_out is not None and (labels is None) != (held_labels is None):
        raise FlowbenchError(f"one of {train} and {test} has labels, the other has none")
    key = digest([state, held_state, labelled])
    facts = _facts(arrays, key, Clock(f"measure {train.name}", watch))
    return Arrays(**{**vars(arrays), "facts": facts})


def split(path: Path, watch: Watch = ignore) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Images (N, C, H, W) and labels (N,) or None, mapped from files, and the state of these."""
    if path.is_file():  # not opened before it has to be: a large zip has a large directory
        state = _state([path])
        return *mapped(_decoded(path, state, watch)), state
    if (path / "images.npy").exists():
        files = [path / "images.npy", path / manifest.LABELS]
        return *mapped(path), _state([file for file in files if file.exists()])
    state = folder(path).key
    return *mapped(_decoded(path, state, watch)), state


def undecoded(path: Path) -> Source:
    """An EDM zip or a folder of images."""
    return folder(path) if path.is_dir() else zipped(path)


def _state(files: list[Path]) -> str:
    """Changes when one of the files is written anew."""
    facts = [(str(file.resolve()), file.stat()) for file in files]
    return digest([[name, fact.st_size, fact.st_mtime_ns] for name, fact in facts])


def mapped(place: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays of a folder; raises FlowbenchError where they are no images and labels."""
    images = _load(place / "images.npy", "c")
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise FlowbenchError(f"{place / 'images.npy'} holds no uint8 images of shape (N, C, H, W)")
    if not (place / manifest.LABELS).exists():
        return images, None
    labels = _load(place / manifest.LABELS, None)
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise FlowbenchError(f"{place / manifest.LABELS} holds not one label from 0 for each image")
    return images, labels.astype(np.int64)


def _load(path: Path, mode) -> np.ndarray:
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FlowbenchError(f"{path} cannot be read as a NumPy array: {error}") from error


def _decoded(path: Path, state: str, watch: Watch) -> Path:
    """The folder of the cache with the decoded images of `path` in its present state.

    One process decodes, others wait for it; what an earlier state left is removed.
    """
    from filelock import FileLock

    home = cache.folder("decoded", f"{path.stem}-{digest(str(path.resolve()))[:12]}")
    place = home / state[:16]
    if place.exists():
        return place
    try:
        with FileLock(home / "lock"):
            if not place.exists():
                _decode(path, place, watch)
    except OSError as error:
        raise RunFailed(
            f"{path.name} cannot be decoded into {home}: {error}; set FLOWBENCH_CACHE to another"
        ) from error
    return place


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


def _facts(arrays: Arrays, state: str, clock: Clock) -> Facts:
    """The hash and std of these arrays, read from the cache where this state was measured."""
    known = cache.folder("facts") / f"{state[:32]}.json"
    try:
        found = json.loads(known.read_text())
        return Facts(str(found["sha256"]), float(found["std"]))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: measured anew
        facts = measure(arrays, clock)
    write(known, json.dumps({"sha256": facts.sha256, "std": facts.std}).encode())
    return facts
