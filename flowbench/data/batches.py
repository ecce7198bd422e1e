"""Image sets that are published as arrays: CIFAR-10's pickles and ImageNet's downsampled npz."""

import hashlib
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from flowbench.data.sources import LARGEST, Source, check_name
from flowbench.records import FlowbenchError

BROKEN = (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile)
LARGEST_BATCH = 2**32  # bytes that an array of the downsampled ImageNet has at most
RECONSTRUCT: Any = np.empty(0).__reduce__()[0]  # NumPy's own, under whatever name it has


def _encode(text: str, encoding: str) -> bytes:
    """What newer pickles of bytes call; no other codec has a place in them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"holds text in {encoding}")
    return text.encode(encoding)


KNOWN: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads plain values and NumPy arrays; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is no array")
        return KNOWN[module, name]


def unpickle(content: bytes, where: str) -> dict[str, Any]:
    """A dictionary of plain values and arrays; raises FlowbenchError for any other pickle."""
    try:
        value = ArrayUnpickler(BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may call what it found with any arguments
        raise FlowbenchError(f"{where} cannot be read as CIFAR-10's batches: {error}") from error
    if not isinstance(value, dict):
        raise FlowbenchError(f"{where} holds no dictionary, so it is no batch of CIFAR-10")
    return value


def is_cifar(path: Path) -> bool:
    """Whether `path` is the extracted folder of CIFAR-10, or holds it."""
    return any((place / "data_batch_1").exists() for place in (path, path / "cifar-10-batches-py"))


def cifar(path: Path, split: str, exact: bool = True) -> Source:
    """CIFAR-10 from `cifar-10-python.tar.gz` or its extracted folder, in the published order.

    `exact` demands the MD5 sums that torchvision knows. Nothing is extracted, and the pickles may
    hold nothing but arrays. Raises FlowbenchError that names the damaged file.
    """
    from torchvision.datasets import CIFAR10

    sums = dict(CIFAR10.train_list if split == "train" else CIFAR10.test_list)
    if path.is_file():
        contents = _from_tar(path, list(sums), CIFAR10.tgz_md5 if exact else None)
        files = [path]
    else:
        home = path if (path / "data_batch_1").exists() else path / CIFAR10.base_folder
        files = [home / name for name in sums]
        contents = _from_folder(files, sums if exact else {})
    parts = [_cifar_rows(content, f"{name} in {path}") for name, content in contents.items()]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Source(path, range(len(images)), images.__getitem__, labels, _state(files))


def _state(files: list[Path]) -> list[tuple[str, int, int]]:
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _expect(path: Path, known: str | None) -> None:
    """Raise FlowbenchError where the file's MD5 is not the published one."""
    if known is None:
        return
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != known:
        raise FlowbenchError(
            f"{path} has the MD5 {md5}, not {known}: it is damaged or another file; fetch it anew"
        )


def _from_folder(files: list[Path], sums: Mapping[str, str]) -> dict[str, bytes]:
    for file in files:
        if not file.is_file():
            raise FlowbenchError(f"{file} is missing: extract cifar-10-python.tar.gz anew")
        _expect(file, sums.get(file.name))
    return {file.name: file.read_bytes() for file in files}


def _from_tar(path: Path, names: list[str], known: str | None) -> dict[str, bytes]:
    """The named members of a tar, read without writing any file."""
    _expect(path, known)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                check_name(member.name, path)
                if not (member.isfile() or member.isdir()):
                    raise FlowbenchError(f"{member.name} in {path} is a link or device: refused")
                if member.size > LARGEST:
                    raise FlowbenchError(
                        f"{member.name} in {path} has {member.size} bytes: refused"
                    )
                stream = tar.extractfile(member) if Path(member.name).name in names else None
                if stream is not None:
                    found[Path(member.name).name] = stream.read()
    except (*BROKEN, tarfile.TarError) as error:
        raise FlowbenchError(f"{path} cannot be read as a tar archive: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise FlowbenchError(f"{path} lacks {', '.join(missing)}: fetch it anew")
    return {name: found[name] for name in names}


def _cifar_rows(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,) of one batch."""
    batch = unpickle(content, where)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise FlowbenchError(f"{where} holds no uint8 data of shape (n, 3072)")
    good = isinstance(labels, list) and len(labels) == len(data)
    if not good or not all(type(y) is int and 0 <= y < 10 for y in labels or []):
        raise FlowbenchError(f"{where} does not hold one label from 0 to 9 for each image")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def downsampled(path: Path, split: str, side: int) -> Source:
    """The official downsampled ImageNet from `train_data_batch_1..10.npz` or `val_data.npz`.

    Labels 1 to 1000 in the files become 0 to 999. Raises FlowbenchError that names the file.
    """
    files = [path] if path.is_file() else _npz_files(path, split)
    labels = [_npz(file, "labels") for file in files]
    for file, column in zip(files, labels, strict=True):
        if column.ndim != 1 or column.dtype.kind not in "iu" or not len(column):
            raise FlowbenchError(f"{file} holds no column of whole numbers as its labels")
        if column.min() < 1 or column.max() > 1000:
            raise FlowbenchError(f"{file} holds labels outside 1 to 1000")
    names = [(number, row) for number, column in enumerate(labels) for row in range(len(column))]
    lock, load = Lock(), lru_cache(2)(lambda number: _pixels(files[number], side))

    def read(name: tuple[int, int]) -> np.ndarray:
        number, row = name
        with lock:  # a batch has gigabytes: it is loaded once
            images = load(number)
        if len(images) != len(labels[number]):
            raise FlowbenchError(f"{files[number]} has not one label for each image")
        return images[row].transpose(1, 2, 0)

    return Source(path, names, read, np.concatenate(labels).astype(np.int64) - 1, _state(files))


def _npz_files(path: Path, split: str) -> list[Path]:
    numbered = [path / f"train_data_batch_{number}.npz" for number in range(1, 11)]
    files = numbered if split == "train" else [path / "val_data.npz"]
    present = [file for file in files if file.exists()]
    if not present:
        raise FlowbenchError(f"{path} lacks {files[0].name}: fetch the npz form, not the pickles")
    return present


def _pixels(file: Path, side: int) -> np.ndarray:
    images = _npz(file, "data")
    if images.dtype != np.uint8 or images.shape[1:] != (3 * side * side,):
        raise FlowbenchError(f"{file} holds no uint8 data of shape (n, {3 * side * side})")
    return images.reshape(-1, 3, side, side)


def _npz(file: Path, key: str) -> np.ndarray:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            size = arrays.zip.getinfo(f"{key}.npy").file_size
            if size > LARGEST_BATCH:
                raise ValueError(f"it would unpack to {size} bytes")
            return arrays[key]
    except (*BROKEN, TypeError, AttributeError, MemoryError) as error:
        raise FlowbenchError(f"{file} cannot be read as npz with {key}: {error}") from error
