"""Images as people hold them: an ordered list of files, archive members or rows, with labels."""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flowbench.data.recipes import Recipe
from flowbench.records import Absent, FlowbenchError, digest, visible

LARGEST = 2**28  # bytes of an image, or of the table of labels
LOSSY = (".jpg", ".jpeg")
IMAGES = (".png", *LOSSY)


@dataclass(frozen=True)
class Source:
    """Images in their order, none of them decoded yet.

    `read(name)` gives an encoded file, or pixels as uint8 (H, W, C), and may be called from many
    threads. `labels` is (n,) int64 or None. `state` lists (name, size, stamp) of what they are
    read from; the stamp is a time or a checksum.
    """

    path: Path
    names: Sequence[Any]
    read: Callable[[Any], bytes | np.ndarray]
    labels: np.ndarray | None
    state: Sequence[tuple[str, int, int]]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def key(self) -> str:
        """Changes with every file that is added, removed, renamed or written anew."""
        return digest([str(self.path.resolve()), *map(list, self.state)])

    @property
    def listing(self) -> str:
        """SHA-256 over names and sizes, the same wherever the source lies."""
        return digest([[name, size] for name, size, _ in self.state])

    def thin(self, limit: int | None) -> "Source":
        """`limit` of the images at equal distances, since sources are sorted by class."""
        if limit is None or limit >= len(self):
            return self
        rows = np.arange(limit) * len(self) // limit
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, names=[self.names[int(row)] for row in rows], labels=labels)


def open_source(recipe: Recipe, path: Path, split: str, exact: bool = True) -> Source:
    """The images at `path` for one split of `recipe`, in any form that is accepted for it.

    `exact` demands the published checksums and counts. Raises FlowbenchError that names the file
    which is missing, damaged or not what the recipe needs.
    """
    from flowbench.data import batches, flowers

    if not path.exists():
        raise Absent(f"{path} does not exist; {recipe.name} needs {recipe.get or 'images'}")
    if path.suffix == ".zip":
        source = zipped(path)
    elif recipe.reader == "cifar" and (path.is_file() or batches.is_cifar(path)):
        source = batches.cifar(path, split, exact)
    elif recipe.reader == "downsampled":
        source = batches.downsampled(path, split, recipe.side)
    elif recipe.reader == "flowers":
        source = flowers.flowers(path, split)
    else:
        source = folder(_split_folder(path, split, recipe))
    return _labelled_as(recipe, source, exact and recipe.counts.get(split))


def _labelled_as(recipe: Recipe, source: Source, count: int | bool | None) -> Source:
    """The source with the labels that the recipe wants, once they and `count` were checked."""
    if count and len(source) != count:
        raise FlowbenchError(
            f"{source.path} holds {len(source)} images, but this split of {recipe.name} has {count}"
            " (--allow-other-count takes what is there)"
        )
    if recipe.classes == 0:
        return replace(source, labels=None)
    if recipe.classes and source.labels is None:
        raise FlowbenchError(
            f"{source.path} has no labels, but {recipe.name} has {recipe.classes} classes:"
            " put the images into one folder a class"
        )
    if recipe.classes and source.labels is not None and source.labels.max() >= recipe.classes:
        row = int(source.labels.argmax())
        raise FlowbenchError(
            f"{source.names[row]} in {source.path} has the label {source.labels[row]}, but the"
            f" classes of {recipe.name} are 0 to {recipe.classes - 1}"
        )
    return source


def zipped(path: Path) -> Source:
    """A zip of images in EDM's layout: sorted by name, labels in `dataset.json`."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise FlowbenchError(f"{path} cannot be read as a zip archive: {error}") from error
    members = archive.infolist()
    names = [check_name(member.filename, path) for member in members]
    if len(set(names)) < len(names):
        raise FlowbenchError(f"{path} holds two members of one name: pack it anew")
    images = sorted(name for name in names if is_image(PurePosixPath(name)))
    if not images:
        raise FlowbenchError(f"{path} holds no PNG or JPEG images")
    text = None
    if "dataset.json" in names:
        try:
            text = member(archive, "dataset.json")
        except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise FlowbenchError(f"dataset.json in {path} cannot be read: {error}") from error
    for name in set(names).difference(images, ["dataset.json"]):
        _require_name(archive, name, path)
    state = [(m.filename, m.file_size, m.CRC) for m in sorted(members, key=lambda m: m.filename)]
    return Source(path, images, partial(member, archive), _table(text, images, path), state)


def _require_name(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Raise FlowbenchError where a member that will not be read has two names: one is damaged."""
    try:
        archive.open(name).close()
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise FlowbenchError(f"{visible(name)} in {path} cannot be read: {error}") from error


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of a member; raises OSError for one that would unpack to more than it may."""
    size = archive.getinfo(name).file_size
    if size > LARGEST:
        raise OSError(f"it would unpack to {size} bytes, and at most {LARGEST} are read")
    return archive.read(name)


def check_name(name: str, path: Path) -> str:
    """The name of an archive's member; raises FlowbenchError where it points out of the archive."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name[:3]:
        raise FlowbenchError(f"{name} in {path} points out of the archive: do not trust this file")
    return name


def is_image(path: PurePosixPath | Path) -> bool:
    """Whether the file is an image by its name; hidden files are not."""
    return path.suffix.lower() in IMAGES and not path.name.startswith(".")


def folder(path: Path) -> Source:
    """A folder of images: labels from `dataset.json`, else from its folders in sorted order."""
    files = sorted(
        Path(place, name) for place, _, names in os.walk(path) for name in names if _counts(name)
    )
    if not files:
        raise FlowbenchError(f"{path} holds no PNG or JPEG images")
    names = [file.relative_to(path).as_posix() for file in files]
    listed = path / "dataset.json"
    text = listed.read_bytes() if listed.exists() else None
    labels = _table(text, names, path) if text else _by_folder(names, path)
    facts = [file.stat() for file in files]
    state = [(n, fact.st_size, fact.st_mtime_ns) for n, fact in zip(names, facts, strict=True)]
    if text is not None:
        state.append(("dataset.json", len(text), listed.stat().st_mtime_ns))
    return Source(path, names, lambda name: (path / name).read_bytes(), labels, state)


def _counts(name: str) -> bool:
    return is_image(PurePosixPath(name))


def _by_folder(names: Sequence[str], path: Path) -> np.ndarray | None:
    """Labels by the sorted names of the folders that the images lie in; None where they lie flat.

    Raises FlowbenchError where some lie in folders and others beside them.
    """
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if classes == [""]:
        return None
    if "" in classes:
        stray = names[tops.index("")]
        raise FlowbenchError(f"{path / stray} lies in no class folder, but other images do")
    numbers = {top: number for number, top in enumerate(classes)}
    return np.array([numbers[top] for top in tops], np.int64)


def _split_folder(path: Path, split: str, recipe: Recipe) -> Path:
    """Where the images of a split lie below `path`."""
    within = {"train": ["train"], "test": ["test", "val"]}.get(split, [])
    inner = next((path / name for name in within if (path / name).is_dir()), path)
    halves = [name for name in ("train", "test", "val") if (path / name).is_dir()]
    if inner == path and len(halves) > 1 and "all" not in recipe.counts:
        raise FlowbenchError(f"{path} holds {' and '.join(halves)}: name one of them with --split")
    return inner


def _table(text: bytes | None, names: Sequence[str], path: Path) -> np.ndarray | None:
    """Labels from the text of a `dataset.json`, (n,) int64; None where it holds none.

    Raises FlowbenchError where an image has no label or two, where a label is no whole number
    from 0, or where an image that is labelled is missing.
    """
    if text is None:
        return None
    try:
        pairs = json.loads(text).get("labels")
        if not pairs:
            return None
        table = dict(pairs)
        labels = [table.pop(name) for name in names]
        if table or len(pairs) != len(names):
            stray = next(iter(table), "an image")
            raise FlowbenchError(f"dataset.json in {path} labels {stray}, which is not there once")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FlowbenchError(
            f"dataset.json in {path} does not label every image: {error!r}"
        ) from error
    for name, label in zip(names, labels, strict=True):
        if type(label) is not int or not 0 <= label < 2**31:
            raise FlowbenchError(f"dataset.json in {path} gives {name} the label {label!r}")
    return np.array(labels, np.int64)
