"""Owns the opening of a bundle from elsewhere: nothing in it is believed before a check."""

import hashlib
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from flowbench.bundle.manifest import (
    FILES,
    LONGEST,
    NAME,
    ROWS,
    TABLES,
    Manifest,
    Member,
    parse,
    rows_name,
)
from flowbench.records import FlowbenchError
from flowbench.store import forms, portable
from flowbench.store.portable import Rows
from flowbench.store.verification import verify

CHUNK = 2**20
MOST = 200_000  # members
LINE = 2**24  # bytes of one row
PACKED = 200  # how many times smaller than its content a bundle may be
ENCRYPTED = 1
# What reading a damaged zip may raise.
DAMAGED = (BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Bundle:
    """A bundle in which every hash fits; `digest` is that of its manifest."""

    path: Path
    zip: ZipFile
    manifest: Manifest
    digest: str
    rows: Rows

    @property
    def files(self) -> dict[str, Member]:
        """The artifact files by their path in the folder of runs."""
        members = self.manifest.files.items()
        return {name[len(FILES) :]: member for name, member in members if name.startswith(FILES)}

    def extract(self, path: str, target: Path) -> None:
        """Write an artifact file to `target`."""
        name = FILES + path
        with _refusing(self.path), target.open("xb") as file:
            for chunk in _chunks(self.zip, name, self.manifest.files[name], self.path):
                file.write(chunk)


@contextmanager
def read(path: Path) -> Iterator[Bundle]:
    """The bundle at `path`, once all of it was checked.

    Raises FlowbenchError in one line that names the file and the member.
    """
    with _refusing(path):
        file = ZipFile(path)
    with file:
        with _refusing(path):
            infos = _members(file, path)
            content = _manifest(file, infos, path)
            manifest = parse(content, f"{path}: {NAME}")
            _check(file, infos, manifest, path)
            rows = Rows({table: list(_rows(file, table, path)) for table in TABLES})
        verify(rows, str(path))
        bundle = Bundle(path, file, manifest, hashlib.sha256(content).hexdigest(), rows)
        _check_files(bundle)
        yield bundle


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FlowbenchError(f"{path} cannot be read as a bundle: {said!r}") from error


def _members(file: ZipFile, path: Path) -> dict[str, ZipInfo]:
    """The members by name; raises FlowbenchError for what no bundle has."""
    found: dict[str, ZipInfo] = {}
    if len(file.infolist()) > MOST:
        raise FlowbenchError(f"{path} has more than {MOST} members")
    for info in file.infolist():
        where, kind = f"{path}: {info.orig_filename!r}", stat.S_IFMT(info.external_attr >> 16)
        parts = info.filename.split("/")
        if info.filename != info.orig_filename or "\\" in info.filename:
            raise FlowbenchError(f"{where} is no portable name")
        if {"", ".", ".."} & set(parts) or not info.filename.isprintable():
            raise FlowbenchError(f"{where} is no path inside a bundle")
        if info.filename in found:
            raise FlowbenchError(f"{where} is there twice")
        if kind not in (0, stat.S_IFREG):
            raise FlowbenchError(f"{where} is a link or another special file")
        if info.flag_bits & ENCRYPTED or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise FlowbenchError(f"{where} is encrypted or packed in another way than ours")
        found[info.filename] = info
    return found


def _manifest(file: ZipFile, infos: dict[str, ZipInfo], path: Path) -> bytes:
    if NAME not in infos:
        raise FlowbenchError(f"{path} is no bundle of flowbench: it has no {NAME}")
    with file.open(NAME) as member:
        content = member.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise FlowbenchError(f"{path}: {NAME} is longer than {LONGEST} bytes")
    return content


def _check(file: ZipFile, infos: dict[str, ZipInfo], manifest: Manifest, path: Path) -> None:
    """Hold every member against the manifest, sizes first."""
    odd = sorted(infos.keys() ^ {*manifest.files, NAME})
    if odd:
        where = "in the manifest" if odd[0] in infos else "in the zip"
        raise FlowbenchError(f"{path}: {odd[0]!r} is not {where}")
    for name, member in manifest.files.items():
        if infos[name].file_size != member.bytes:
            raise FlowbenchError(f"{path}: {name!r} has not the size that the manifest says")
    total = sum(member.bytes for member in manifest.files.values())
    rows = sum(manifest.files[rows_name(table)].bytes for table in TABLES)
    if total > PACKED * path.stat().st_size or rows > ROWS:
        raise FlowbenchError(
            f"{path} would unpack to {total} bytes, which is more than results are"
        )
    for name, member in manifest.files.items():
        for _ in _chunks(file, name, member, path):
            pass


def _chunks(file: ZipFile, name: str, member: Member, path: Path) -> Iterator[bytes]:
    """The content of a member; raises FlowbenchError once it is not what the manifest says."""
    hasher, done = hashlib.sha256(), 0
    with file.open(name) as content:
        while chunk := content.read(CHUNK):
            hasher.update(chunk)
            done += len(chunk)
            if done > member.bytes:
                raise FlowbenchError(f"{path}: {name!r} is longer than the manifest says")
            yield chunk
    if hasher.hexdigest() != member.sha256:
        raise FlowbenchError(f"{path}: {name!r} has another hash than the manifest says")


def _rows(file: ZipFile, table: str, path: Path) -> Iterator[forms.Row]:
    """The rows of a table, each of its form."""
    name, number = rows_name(table), 0
    with file.open(name) as content:
        while line := content.readline(LINE + 1):
            number += 1
            where = f"{path}: {name}, line {number}"
            if len(line) > LINE:
                raise FlowbenchError(f"{where} is longer than {LINE} bytes")
            yield forms.check(portable.parse(line, where), forms.COLUMNS[table], where)


def _check_files(bundle: Bundle) -> None:
    """Every file has to be one that an attempt speaks of."""
    known = {(row["path"], row["sha256"], row["bytes"]) for row in bundle.rows["artifacts"]}
    for path, member in bundle.files.items():
        if (path, member.sha256, member.bytes) not in known:
            raise FlowbenchError(f"{bundle.path}: no attempt has left the file {path!r}")
