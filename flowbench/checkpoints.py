"""Files that survive a crash: written beside, flushed, then renamed; read without unpickling."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from flowbench.records import FlowbenchError


def write(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, so that a reader sees the old file or the new, never a part.

    A link stays one, and a device or pipe stays what it is: the content goes into it.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Store a nested mapping of tensors and plain values, with a checksum behind it."""
    from io import BytesIO

    buffer = BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write(path, content + hashlib.sha256(content).digest())


def load_state(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save_state` stored; raises FlowbenchError where the file is damaged."""
    from io import BytesIO

    content = path.read_bytes()
    body, checksum = content[:-32], content[-32:]
    if hashlib.sha256(body).digest() != checksum:
        raise FlowbenchError(f"{path} is damaged; delete it, and this stage is trained anew")
    return torch.load(BytesIO(body), map_location=device, weights_only=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Store tensors as safetensors with `facts` (JSON) in the header."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, dump_tensors(plain, {"facts": json.dumps(facts)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` stored: (tensors, facts); raises FlowbenchError for another file."""
    from safetensors import SafetensorError

    try:
        tensors = load_tensors(path.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise FlowbenchError(f"{path} cannot be read as safetensors: {error}") from error
    return tensors, read_facts(path)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of `save_tensors` alone, from the header; raises FlowbenchError likewise."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return json.loads((file.metadata() or {}).get("facts", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise FlowbenchError(f"{path} cannot be read as safetensors: {error}") from error


def find_tensors(
    path: Path, note: Callable[[str], None]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save_tensors` stored, or None where it has to be made; `note` hears of damage."""
    if not path.exists():
        return None
    try:
        return read_tensors(path)
    except FlowbenchError as error:
        note(f"{error}; it is made anew")
        return None


def weights_hash(network: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all parameters and buffers."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        hasher.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
