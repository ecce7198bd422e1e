"""Owns the merging of files into a database and its folder of runs: all of them, or nothing."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from flowbench.bundle import reading
from flowbench.bundle.reading import Bundle
from flowbench.records import FlowbenchError, RunFailed, visible
from flowbench.store import Store, foreign
from flowbench.store.merging import Merged, Source

ZIP = b"PK\x03\x04"
STAGE = ".merging"  # the folder where files wait inside that of the runs

Watch = Callable[[int, int], None]  # bytes done, and of all


@dataclass
class Joined:
    """What became of a source: rows, and how many files came along.

    `kept` are the paths where another file was and stayed; `running` attempts of a database had
    not ended and were left out, and `apart` says that it has files, which lie elsewhere.
    """

    source: Source
    merged: Merged = field(default_factory=Merged)
    files: int = 0
    kept: list[str] = field(default_factory=list)
    running: int = 0
    apart: bool = False


def merge(
    url: str,
    folder: Path,
    paths: Sequence[Path],
    watch: Watch = lambda done, total: None,
) -> list[Joined]:
    """Merge databases and bundles into the database at `url` and the `folder` of runs.

    Raises FlowbenchError, with nothing changed, where one of them is not what it says.
    """
    with ExitStack() as stack:
        found = [_source(path, stack) for path in paths]
        files = any(bundle is not None and bundle.files for _, bundle in found)
        stage = stack.enter_context(_stage(folder)) if files else folder
        waiting = [
            [] if bundle is None else list(_unpack(bundle, stage / str(number), folder, watch))
            for number, (_, bundle) in enumerate(found)
        ]
        joined = [_joined(source, bundle) for source, bundle in found]
        store = Store(url)
        stack.callback(store.close)
        placed = stack.enter_context(_undoing())
        sources = [source for source, _ in found]
        store.merge(sources, lambda told: _place_all(joined, told, waiting, placed))
        placed.clear()
    return joined


def _joined(source: Source, bundle: Bundle | None) -> Joined:
    apart = bundle is None and bool(source.rows["artifacts"])
    return Joined(source, running=source.rows.running, apart=apart)


def _source(path: Path, stack: ExitStack) -> tuple[Source, Bundle | None]:
    """What is at `path`, and the bundle if it is one."""
    try:
        with path.open("rb") as file:
            start = file.read(len(foreign.MAGIC))
    except OSError as error:
        raise FlowbenchError(f"{path} cannot be read: {error}") from error
    if start == foreign.MAGIC:
        rows = foreign.read(path)
        return Source(_name(path), "database", rows.digest, rows), None
    if start.startswith(ZIP):
        bundle = stack.enter_context(reading.read(path))
        return Source(_name(path), "bundle", bundle.digest, bundle.rows), bundle
    raise FlowbenchError(f"{path} is neither a database of flowbench nor a bundle")


def _name(path: Path) -> str:
    """The name of the file, which will be printed elsewhere too."""
    return visible(path.name)


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """An empty folder for files that wait, cleared of what a killed process left."""
    stage = folder / STAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{STAGE}.lock", timeout=0):
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir()
            try:
                yield stage
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except Timeout:
        raise RunFailed(f"another process is merging into {folder}") from None
    except OSError as error:
        raise RunFailed(f"{folder} cannot be written: {error}") from error


@dataclass(frozen=True)
class Waiting:
    """A file on its way to `target`; `staged` is where it waits, None where a file is there.

    `same` says whether that is the same file.
    """

    path: str
    sha256: str
    target: Path
    staged: Path | None = None
    same: bool = False


def _unpack(bundle: Bundle, stage: Path, folder: Path, watch: Watch) -> Iterator[Waiting]:
    """Write to `stage` what is not in `folder`."""
    total, done = sum(member.bytes for member in bundle.files.values()), 0
    for number, (path, member) in enumerate(bundle.files.items()):
        target, staged = folder / path, stage / str(number)
        if target.exists():
            yield Waiting(path, member.sha256, target, same=_hash(target) == member.sha256)
        else:
            stage.mkdir(exist_ok=True)
            bundle.extract(path, staged)
            yield Waiting(path, member.sha256, target, staged)
        done += member.bytes
        watch(done, total)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place_all(
    joined: Sequence[Joined],
    told: Sequence[Merged],
    waiting: Sequence[Sequence[Waiting]],
    placed: list[Path],
) -> None:
    """Move the files of all sources, once their rows are in; `placed` hears of each."""
    for one, merged, files in zip(joined, told, waiting, strict=True):
        one.merged = merged
        for file in files:
            _place(one, file, placed)


def _place(joined: Joined, file: Waiting, placed: list[Path]) -> None:
    """Move a file to its place, unless that is another's, whether or not a file is there."""
    claims = joined.merged.claims.get(file.path, {file.sha256})
    same = file.same
    if file.staged is not None and file.sha256 in claims:
        if _move(file.staged, file.target):
            placed.append(file.target)
            joined.files += 1
            return
        same = _hash(file.target) == file.sha256
    if not same:
        joined.kept.append(file.path)


def _move(staged: Path, target: Path) -> bool:
    """Move a file where none is; a rename alone would replace one that came meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if target.exists():
            return False
        os.rename(staged, target)
    return True


@contextmanager
def _undoing() -> Iterator[list[Path]]:
    """A list of files that are removed again if something goes wrong."""
    placed: list[Path] = []
    try:
        yield placed
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
