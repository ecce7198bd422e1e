"""Where the weights of pretrained networks lie, and how they are read without running anything."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowbench.known_weights import KNOWN
from flowbench.records import FlowbenchError

NETWORKS = {"inception": "inception", "clean": "inception", "dinov2": "dinov2"}  # by extractor


def find(name: str, given: Mapping[str, Path]) -> Path | None:
    """The weights of the extractor or network `name`, or None where there are none.

    A path in `given` (by extractor or network), else the one that an environment variable names,
    else the known file in the folder `weights` of the cache. Raises FlowbenchError where a file
    was named that does not exist.
    """
    known = KNOWN[NETWORKS.get(name, name)]
    path, source = given.get(name, given.get(known.name)), "you named"
    if path is None and os.environ.get(known.variable):
        path, source = Path(os.environ[known.variable]), f"{known.variable} names"
    if path is not None:
        if not path.is_file():
            raise FlowbenchError(f"{source} the weights {path}, but there is no such file")
        return path
    return known.place if known.place.is_file() else None


def read(path: Path, network: str) -> dict[str, Any]:
    """The tensors by name of a file of `torch.save` or safetensors; no code in the file is run.

    Tensors that the file holds under the one key "model", as DeiT's authors publish them, are
    taken from there. Raises FlowbenchError, in one line that names the right file, for anything
    else.
    """
    import torch

    if not path.is_file():
        raise FlowbenchError(f"there is no file {path}; the weights are {KNOWN[network].file}")
    if _holds_code(path):
        raise FlowbenchError(
            f"{path} is TorchScript, which could run any code; give {KNOWN[network].file} instead"
        )
    try:
        state = _tensors(path)
    except Exception as error:  # of pickle, zipfile, safetensors or torch, as the damage has it
        raise wrong(path, network) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise wrong(path, network)
    return state


def wrong(path: Path, network: str) -> FlowbenchError:
    """The error for a file that holds something else."""
    return FlowbenchError(
        f"{path} does not hold the weights of {network}; give {KNOWN[network].file}"
    )


def _tensors(path: Path) -> Any:
    from safetensors.torch import load_file

    from flowbench import torch_files

    if path.suffix == ".safetensors":
        return load_file(path)
    return torch_files.load(path, repeated=True)  # into networks of known shapes


def _holds_code(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
