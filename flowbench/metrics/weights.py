"""Where the weights of feature extractors lie, and how they are read without running anything."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowbench import cache
from flowbench.records import FlowbenchError

NETWORKS = {"inception": "inception", "clean": "inception", "dinov2": "dinov2"}  # by extractor
FILES = {  # of torch-fidelity and pytorch-fid, of DINOv2
    "inception": "weights-inception-2015-12-05-6726825d.pth",
    "dinov2": "dinov2_vitl14_pretrain.pth",
}
VARIABLES = {"inception": "FLOWBENCH_INCEPTION", "dinov2": "FLOWBENCH_DINOV2"}


def find(name: str, given: Mapping[str, Path]) -> Path | None:
    """The weights of the extractor `name`, or None where there are none.

    A path in `given` (by extractor or network), else the one that an environment variable names,
    else the known file in the folder `weights` of the cache. Raises FlowbenchError where a file
    was named that does not exist.
    """
    network = NETWORKS[name]
    path, source = given.get(name, given.get(network)), "you named"
    if path is None and os.environ.get(VARIABLES[network]):
        path, source = Path(os.environ[VARIABLES[network]]), f"{VARIABLES[network]} names"
    if path is not None:
        if not path.is_file():
            raise FlowbenchError(f"{source} the weights {path}, but there is no such file")
        return path
    known = cache.place("weights", FILES[network])
    return known if known.is_file() else None


def read(path: Path, network: str) -> dict[str, Any]:
    """The tensors by name of a file of `torch.save`; no code in the file is run.

    Raises FlowbenchError, in one line that names the right file, for anything else.
    """
    import torch

    if not path.is_file():
        raise FlowbenchError(f"there is no file {path}; the weights are {FILES[network]}")
    if _holds_code(path):
        raise FlowbenchError(
            f"{path} is TorchScript, which could run any code; give {FILES[network]} instead"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zipfile or torch, as the damage has it
        raise wrong(path, network) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise wrong(path, network)
    return state


def wrong(path: Path, network: str) -> FlowbenchError:
    """The error for a file that holds something else."""
    return FlowbenchError(f"{path} does not hold the weights of {network}; give {FILES[network]}")


def _holds_code(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
