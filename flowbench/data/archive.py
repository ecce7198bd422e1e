"""Prepared image sets as arrays: zips are decoded once into the cache, and mapped ever after."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.lib.format import MAGIC_PREFIX

from flowbench import cache
from flowbench.checkpoints import write
from flowbench.data import manifest, recipes
from flowbench.data.base import Arrays, Facts, content, measure
from flowbench.data.decoding import decoded, place_of
from flowbench.data.rows import Clock
from flowbench.data.sources import folder
from flowbench.records import Absent, FlowbenchError, digest
from flowbench.training import Progress, ignore

LOOKED_AT = 2**30  # bytes of images above which `flowbench data check` looks for damage

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
    """Both splits as memory-mapped arrays, with the facts that were measured once.

    What is damaged since then is decoded anew; raises FlowbenchError where that cannot be.
    """
    watch = watch or ignore
    arrays, key = _arrays(train, test, watch, labelled)
    facts = _known_facts(key)
    if facts is not None and not _still(arrays, facts):
        _forget(train, test)
        arrays, key = _arrays(train, test, watch, labelled)
        facts = None
    if facts is None:
        _require_manifest(train, test, labelled)
        facts = _measured(arrays, key, Clock(f"measure {train.name}", watch))
    return replace(arrays, facts=facts)


def _arrays(train: Path, test: Path | None, watch: Watch, labelled: bool) -> tuple[Arrays, str]:
    """Both splits without their facts, and the key of these; raises FlowbenchError for odd ones."""
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
    return arrays, digest([state, held_state, labelled])


def _still(arrays: Arrays, facts: Facts) -> bool:
    """Whether the rows are those that were measured; not looked at where they are very many."""
    size = arrays.train.nbytes + (0 if arrays.test is None else arrays.test.nbytes)
    return size > LOOKED_AT or content(arrays) == facts.sha256


def _forget(train: Path, test: Path | None) -> None:
    """Remove the decoded images of damaged sets; raises FlowbenchError where they are not ours."""
    for path in filter(None, (train, test)):
        if path.is_dir() and (path / "images.npy").exists():
            raise FlowbenchError(
                f"{path} holds other images than when they were measured, at the same size and"
                " date: it is damaged, prepare it anew (or touch it, if you changed it yourself)"
            )
        shutil.rmtree(place_of(path), ignore_errors=True)


def _require_manifest(train: Path, test: Path | None, labelled: bool) -> None:
    """Raise FlowbenchError where arrays are not those of their manifest."""
    for path in filter(None, (train, test)):
        said = manifest.find(path) if (path / "images.npy").exists() else None
        if not labelled or said is None or "sha256" not in said:
            continue
        images, labels = mapped(path)
        if content(Arrays(images, labels=labels)) != said["sha256"]:
            raise FlowbenchError(f"{path} is not what its manifest says: prepare it anew")


def split(path: Path, watch: Watch = ignore) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Images (N, C, H, W) and labels (N,) or None, mapped from files, and the state of these."""
    if path.is_file():  # not opened before it has to be: a large zip has a large directory
        state = _state([path])
        return *_cached(path, state, watch), state
    if (path / "images.npy").exists():
        files = [path / "images.npy", path / manifest.LABELS]
        return *mapped(path), _state([file for file in files if file.exists()])
    state = folder(path).key
    return *_cached(path, state, watch), state


def _cached(path: Path, state: str, watch: Watch) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays of the cache; what was cut off there is decoded anew."""
    place = decoded(path, state, watch)
    try:
        return mapped(place)
    except FlowbenchError:
        shutil.rmtree(place, ignore_errors=True)
        return mapped(decoded(path, state, watch))


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
    labels = _load(place / manifest.LABELS, "r")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise FlowbenchError(f"{place / manifest.LABELS} holds not one label from 0 for each image")
    return images, labels.astype(np.int64)


def _load(path: Path, mode) -> np.ndarray:
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
                raise ValueError("it is none")
        with np.errstate(over="raise"):  # a header may say any shape
            return np.load(path, mmap_mode=mode, allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python does
        said = str(error).partition("\n")[0]
        raise FlowbenchError(f"{path} cannot be read as a NumPy array: {said}") from error


def _known_facts(key: str) -> Facts | None:
    """What was measured of arrays in this state; None where it has to be measured (anew)."""
    try:
        found = json.loads((cache.place("facts") / f"{key[:32]}.json").read_bytes())
        facts = Facts(str(found["sha256"]), float(found["std"]))
        return facts if found["checksum"] == digest([facts.sha256, facts.std]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _measured(arrays: Arrays, key: str, clock: Clock) -> Facts:
    """The hash and std of these arrays, kept in the cache with a checksum."""
    facts = measure(arrays, clock)
    known = {"sha256": facts.sha256, "std": facts.std}
    known["checksum"] = digest([facts.sha256, facts.std])
    write(cache.folder("facts") / f"{key[:32]}.json", json.dumps(known).encode())
    return facts
