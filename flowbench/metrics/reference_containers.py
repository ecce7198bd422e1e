"""Opens the files of reference statistics that other programs write, without running their code."""

import codecs
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowbench.records import FlowbenchError


@dataclass(frozen=True)
class Container:
    """What lies in a file: shape and type of each array by name, and how to get one.

    `kind` is "npz", "pickle" or "torch". Nested names are joined by a point, as in `fid.mu`.
    """

    path: Path
    kind: str
    shapes: Mapping[str, tuple[tuple[int, ...], str]]
    get: Callable[[str], Any]

    def read(self, name: str) -> np.ndarray:
        """One array; raises FlowbenchError where the file is damaged."""
        with _one_line(self.path):
            return np.asarray(self.get(name))

    def __str__(self) -> str:
        """Names, shapes and types in one line."""
        words = [f"{name} {shape} {kind}" for name, (shape, kind) in self.shapes.items()]
        return ", ".join(words) or "nothing"


def open_container(path: Path) -> Container:
    """The arrays of an npz, a pickle of arrays or a torch file.

    Raises FlowbenchError for a file that is missing, damaged, of another kind, or that holds
    anything but arrays and numbers: such a pickle could run code.
    """
    if not path.is_file():
        raise FlowbenchError(f"{path} is no file: name a file of reference statistics")
    with _one_line(path):
        if not zipfile.is_zipfile(path):
            return _pickle(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return _torch(path)
        if names and all(name.endswith(".npy") for name in names):
            return _npz(path)
    raise FlowbenchError(
        f"{path} is an archive of {len(names)} other files, no reference statistics: those of a"
        " data set are made with flowbench ref build"
    )


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises, and that may be anything, into one line."""
    try:
        yield
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FlowbenchError(f"{path} cannot be read as reference statistics: {reason}") from error


def _npz(path: Path) -> Container:
    """An npz is read array by array: what is not asked for may be large."""

    def get(name: str) -> np.ndarray:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]

    with zipfile.ZipFile(path) as archive:
        shapes = {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist()}
    return Container(path, "npz", shapes, get)


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], str]:
    """Shape and type from the header of one array."""
    from numpy.lib import format as form

    with archive.open(name) as file:
        version = form.read_magic(file)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, not numbers")
    return shape, str(dtype)


def _pickle(path: Path) -> Container:
    """A pickle as EDM2 writes it: a dict of dicts of arrays."""
    with path.open("rb") as file:
        return _held(path, "pickle", _Arrays(file).load())


class _Arrays(pickle.Unpickler):
    """Knows the few names that NumPy arrays and numbers are pickled with, and no other."""

    KNOWN: ClassVar[dict[str, Any]] = {
        "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
        "multiarray.scalar": np.float64(0).__reduce__()[0],
        "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "_codecs.encode": codecs.encode,  # of bytes in old pickles
    }

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed its rooms.
        known = f"{module.removeprefix('numpy.core.').removeprefix('numpy._core.')}.{name}"
        if known not in self.KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return self.KNOWN[known]


def _torch(path: Path) -> Container:
    """A file of torch-fidelity's cache: a tensor of features, or a dict of NumPy arrays."""
    import torch

    from flowbench import torch_files

    try:
        found = torch_files.load(path)
    except pickle.UnpicklingError:  # arrays lie within the pickle itself
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            found = _Arrays(io.BytesIO(archive.read(name))).load()
    if isinstance(found, torch.Tensor):
        found = {"features": found}
    return _held(path, "torch", found)


def _held(path: Path, kind: str, found: Any) -> Container:
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not a dict of arrays")
    arrays = dict(_flat(found))
    shapes = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    return Container(path, kind, shapes, arrays.__getitem__)


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in found.items():
        if isinstance(value, dict) and not prefix:
            yield from _flat(value, f"{name}.")
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{prefix}{name} is a {type(value).__name__}, not an array of numbers")
        yield f"{prefix}{name}", array
