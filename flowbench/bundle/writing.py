"""Owns the making of a bundle: the same bytes for the same results, or no file at all."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from flowbench import disk, part_files
from flowbench.bundle.manifest import FILES, NAME, ROWS, TABLES, Manifest, Member, rows_name
from flowbench.records import FlowbenchError
from flowbench.store import Store
from flowbench.store.portable import Rows, lines

CHUNK = 2**20
SHOWN = 5  # names in an error message
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can say

Watch = Callable[[int, int], None]  # bytes done, and of all


@dataclass(frozen=True)
class Exported:
    """What a bundle holds; the files of `missing` paths were not there."""

    rows: Rows
    files: int
    bytes: int
    missing: tuple[str, ...]


def export(
    store: Store,
    folder: Path,
    output: Path,
    dataset: str | None = None,
    methods: Collection[str] | None = None,
    files: bool = True,
    watch: Watch = lambda done, total: None,
) -> Exported:
    """Write the chosen runs, with their `files` from the `folder` of runs, to the zip `output`.

    Raises FlowbenchError where no run is chosen, or a file is not the one that was stored.
    """
    rows = store.rows(dataset, methods)
    if not rows["runs"]:
        raise FlowbenchError("there is no such run that has ended: nothing was exported")
    known = _hashes(rows) if files else {}
    missing = tuple(sorted(path for path in known if not (folder / path).is_file()))
    there = {path: known[path] for path in sorted(known.keys() - set(missing))}
    with _atomic(output) as part, ZipFile(part, "w") as bundle:
        members = {rows_name(table): _rows(bundle, table, rows) for table in TABLES}
        if sum(member.bytes for member in members.values()) > ROWS:
            raise FlowbenchError("these are too many rows for a bundle: choose with --dataset")
        members |= _files(bundle, folder, there, watch)
        manifest = Manifest(version("flowbench"), members, missing)
        _write(bundle, NAME, [manifest.to_json()], ZIP_DEFLATED)
    return Exported(rows, len(there), output.stat().st_size, missing)


def _hashes(rows: Rows) -> dict[str, set[str]]:
    """What the files were when they were stored, by path; a later attempt may have written anew."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows["artifacts"]:
        found[row["path"]].add(row["sha256"])
    return found


def _files(
    bundle: ZipFile, folder: Path, known: Mapping[str, set[str]], watch: Watch
) -> dict[str, Member]:
    """Copy all files; raises FlowbenchError where one is not what any attempt has left."""
    members, odd, done = {}, [], 0
    total = sum((folder / path).stat().st_size for path in known)
    for path, hashes in known.items():
        members[FILES + path] = member = _file(bundle, folder / path, path)
        if member.sha256 not in hashes:
            odd.append(path)
        done += member.bytes
        watch(done, total)
    if odd:
        raise FlowbenchError(_other(folder, odd))
    return members


def _rows(bundle: ZipFile, table: str, rows: Rows) -> Member:
    return _write(bundle, rows_name(table), lines(rows[table]), ZIP_DEFLATED)


def _file(bundle: ZipFile, place: Path, path: str) -> Member:
    with place.open("rb") as file:
        chunks = iter(lambda: file.read(CHUNK), b"")
        # Tensors hardly become smaller, so they are stored as they are.
        return _write(bundle, FILES + path, chunks, ZIP_STORED)


def _other(folder: Path, odd: list[str]) -> str:
    """What to say of files that no attempt at their run has left so."""
    names = ", ".join(str(folder / path) for path in odd[:SHOWN])
    more = f", and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
    return (
        f"not the content that was stored: {names}{more}; put that back, move the files away, or"
        " use --no-artifacts"
    )


def _write(bundle: ZipFile, name: str, chunks: Iterable[bytes], how: int) -> Member:
    """Add a member without time, owner or any other trace of this machine."""
    info = ZipInfo(name, EPOCH)
    info.create_system, info.external_attr = 3, 0o644 << 16
    info.compress_type = how
    hasher, done = hashlib.sha256(), 0
    with bundle.open(info, "w", force_zip64=True) as member:
        for chunk in chunks:
            member.write(chunk)
            hasher.update(chunk)
            done += len(chunk)
    return Member(hasher.hexdigest(), done)


@contextmanager
def _atomic(output: Path) -> Iterator[Path]:
    """A file beside `output` that takes its place at the end, and is removed otherwise.

    A link stays one; raises FlowbenchError for a device or pipe, which a zip cannot be.
    """
    if not output.name:
        raise FlowbenchError("a bundle needs the name of a file")
    if output.exists() and not output.is_file():
        raise FlowbenchError(f"{output} is no file: give the bundle another name")
    place = Path(os.path.realpath(output))
    part = part_files.beside(place.with_name(f".{place.name}"))
    try:
        with disk.writing(output):
            place.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, place)
    except OSError as error:
        raise FlowbenchError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()
