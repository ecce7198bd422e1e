"""Reference statistics of real images: made once for data and extractor, kept in the cache."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowbench import cache, ranks
from flowbench.checkpoints import read_facts
from flowbench.data.base import Split, scattered
from flowbench.disk import writing
from flowbench.metrics.reference_building import Building, Note, intact, save
from flowbench.metrics.statistics import Moments, Statistics
from flowbench.records import FlowbenchError, digest
from flowbench.training import Progress, ignore

FORM = 2  # raise it when the same facts would give other numbers
FILE = "reference.safetensors"


@dataclass(frozen=True)
class Reference:
    """What samples are held against: moments of the features of real images.

    `n` is the number of images, None where a file does not say; `features` (m, d) float32 are
    pool features of at most 50 000 of the images at equal distances, None for files of others;
    `facts` are what must agree before two numbers may be compared.
    """

    pool: Moments
    spatial: Moments | None
    features: Tensor | None
    n: int | None
    facts: Mapping[str, Any]


def facts(data_sha256: str, split_name: str, n: int, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What a reference depends on: the data, which rows of them, and the extractor's protocol."""
    return {"data": data_sha256, "split": split_name, "n": n, "extractor": dict(protocol)}


def find_built(wanted: Mapping[str, Any]) -> Path | None:
    """The cached file of the reference with these `facts`, or None where it has to be made."""
    path = _folder(wanted) / FILE
    return path if path.exists() else None


def built() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each cached file with its header: `facts`, and the `label` of the data set."""
    for path in sorted(cache.folder("references").glob(f"*/{FILE}")):
        header = read_header(path)
        if header is not None:  # else the next build of this reference says so and makes it anew
            yield path, header


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a file that `build` has made, or None for another."""
    try:
        header = read_facts(path)
    except FlowbenchError:
        return None
    return header if isinstance(header, dict) and {"facts", "label"} <= header.keys() else None


def read(path: Path) -> Reference:
    """A file that `build` has made; raises FlowbenchError for a damaged one or another."""
    header, tensors = read_header(path), intact(path, lambda text: None) or {}
    if header is None or not {"features", "pool.n", "pool.mean", "pool.m2"} <= tensors.keys():
        raise FlowbenchError(f"{path} is damaged or no reference: make it with flowbench ref build")
    return _reference(tensors, header["facts"])


def build(
    split: Split,
    data_sha256: str,
    split_name: str,
    extractor: Any,
    rows: int | None = None,
    watch: Callable[[Progress], None] | None = None,
    note: Note = lambda text: None,
    label: str = "",
) -> Reference:
    """The reference of `rows` images of a split, drawn with a fixed seed (None: all), or its file.

    `extractor` is a `metrics.extractors.Extractor`; `label` names the data in a listing. What a
    killed process has made is taken over; of two processes, one works and the other waits.
    Raises FlowbenchError for data that are no images, RunFailed for features that are not finite.
    """
    chosen = _choose(split, rows, label)
    wanted = facts(data_sha256, split_name, len(chosen), extractor.protocol)
    path = _folder(wanted) / FILE
    with _alone(path.parent, note):
        tensors = ranks.decided(lambda: intact(path, note))
        if tensors is None:
            work = Building(split, chosen, extractor, path.parent, watch or ignore, note)
            tensors = work.whole()
            header = {"facts": wanted, "label": label}
            ranks.decided(lambda: save(path, tensors, header))
        for shard in path.parent.glob("rows-*") if ranks.first() else ():
            shard.unlink()
    return _reference(tensors, wanted)


def _choose(split: Split, rows: int | None, label: str) -> Tensor:
    """The numbers of the rows to use."""
    if split.values.dtype != torch.uint8:
        raise FlowbenchError(f"{label or 'these data'} are no images, so they have no reference")
    chosen = scattered(len(split), len(split) if rows is None else rows)
    if len(chosen) < 2:
        raise FlowbenchError(f"a reference takes at least 2 images, not {len(chosen)}")
    return chosen


def _reference(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> Reference:
    pool = Statistics.from_tensors(tensors, "pool")
    spatial = None
    if "spatial.n" in tensors:
        spatial = Statistics.from_tensors(tensors, "spatial").moments
    return Reference(pool.moments, spatial, tensors["features"], pool.n, known)


def _folder(wanted: Mapping[str, Any]) -> Path:
    return cache.folder("references") / digest([FORM, dict(wanted)])[:32]


@contextmanager
def _alone(folder: Path, note: Note) -> Iterator[None]:
    """Hold the lock of a folder, as the first rank for all; the system frees it when that dies."""
    from filelock import FileLock, Timeout

    if not ranks.first():
        yield
        return
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        with writing(folder):
            lock.acquire(timeout=0)
    except Timeout:
        note("another process makes this reference: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
