"""Which importer reads a file: that is decided by what the file holds."""

import dataclasses
import pickle
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from flowbench import torch_files
from flowbench.checkpoints import file_hash, read_tensors
from flowbench.imports.edm import described, read_edm
from flowbench.imports.imported import Imported, restore
from flowbench.imports.openai import read_openai
from flowbench.imports.torchcfm import read_torchcfm
from flowbench.records import Absent, FlowbenchError

# How a file of torch.save starts: as a zip archive, or before torch 1.6 with torch's number.
TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")

# Licence and source of the published files; what a user says instead comes first.
ORIGINS = {
    "edm-pickle": ("CC BY-NC-SA 4.0", "https://github.com/NVlabs/edm"),
    "consistency-models": ("MIT", "https://github.com/openai/consistency_models"),
    "ctm": ("MIT (the code of CTM's authors)", "https://github.com/sony/ctm"),
    "torchcfm": ("MIT", "https://github.com/atong01/conditional-flow-matching"),
}
EDM_FILES = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"


def read(
    path: Path, name: str | None = None, licence: str | None = None, source: str | None = None
) -> Imported:
    """The network of a published file, or of one that `flowbench import` made of it.

    `name` is the published file's name where `path` has another. Raises FlowbenchError in one
    line for files of other content; none of the code that a file carries is run.
    """
    name = name or path.name
    try:
        found = _read(path, name)
    except RecursionError as error:
        raise FlowbenchError(f"{path} is nested too deeply: import a published file") from error
    found.check(path)
    facts = dict(found.facts) or _facts(path, name, found.form)
    said = {"licence": licence, "source": source}
    return dataclasses.replace(found, facts=facts | {k: v for k, v in said.items() if v})


def _read(path: Path, name: str) -> Imported:
    start = _start(path)
    if start.startswith(TORCH):
        return _of_torch(path, _load(path), name)
    if start[4:9] == b"\0\0\0\0{":  # the length of a header, less than 4 GiB, and its start
        return restore(path, *read_tensors(path))
    if start.startswith(b"\x80"):
        return read_edm(path)
    raise FlowbenchError(f"{path} is no checkpoint: give a .pkl, .pt or .safetensors file")


def _start(path: Path) -> bytes:
    """The first bytes of a file."""
    try:
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise Absent(f"there is no file {path}: download the published checkpoint") from error
    except OSError as error:
        raise FlowbenchError(f"{path} cannot be read: {error.strerror}") from error


def _load(path: Path) -> Any:
    """The content of a file of torch.save, which may hold tensors and plain values only."""
    try:
        return torch_files.load(path)
    except pickle.UnpicklingError as error:
        raise FlowbenchError(
            f"{path} holds more than tensors and plain values, which is not run:"
            " import a published file, or save the state dict alone"
        ) from error
    except Exception as error:  # whatever a damaged file leads to
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise FlowbenchError(f"{path} cannot be read ({problem}): get it anew") from error


def _of_torch(path: Path, content: Any, name: str) -> Imported:
    """The network in what a file of torch.save held."""
    content = content if isinstance(content, dict) else {}
    for key in ("ema_model", "net_model"):  # the average is what torchcfm examines
        if isinstance(content.get(key), dict):
            return read_torchcfm(path, _tensors(content[key]))
    tensors = _tensors(content)
    if "model.map_layer0_s.weight" in tensors:
        return _ctm(path, tensors)
    if "time_embed.0.weight" in tensors:
        return read_openai(path, tensors, name)
    raise FlowbenchError(
        f"{path} holds no network that is known: import a published file of EDM, CTM,"
        " torchcfm or the consistency models"
    )


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, without the prefix of parallel training."""
    return {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }


def _ctm(path: Path, tensors: Mapping[str, Tensor]) -> Imported:
    """CTM's network for CIFAR-10 (Kim et al. 2024): EDM's layout with a second time, `_s`."""
    named = {name.replace("_s.", "_second."): t.float() for name, t in tensors.items()}
    network, shape, classes = described(path, named)
    prefixed = {f"net.{name}": tensor for name, tensor in named.items()}
    return Imported("ctm", "ctm", network, shape, classes, prefixed)


def _facts(path: Path, name: str, form: str) -> dict[str, Any]:
    """Where a file comes from, as far as its form and name tell."""
    licence, source = ORIGINS[form]
    if form == "edm-pickle" and name.startswith("edm-"):
        source = f"{EDM_FILES}/{name}"
    return {
        "sha256": file_hash(path),
        "file": name,
        "licence": licence,
        "source": source,
        "importer": f"flowbench {version('flowbench')}",
    }
