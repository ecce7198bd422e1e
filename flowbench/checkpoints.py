"""Files that survive a crash: written beside, flushed, then renamed; read without unpickling."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from flowbench import part_files, torch_files
from flowbench.disk import writing
from flowbench.records import FlowbenchError

CHUNK = 2**20  # bytes that are read together for a checksum


def write(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, so that a reader sees the old file or the new, never a part.

    A link stays one, and a device or pipe stays what it is: the content goes into it. Raises
    `disk.Unwritten` where the disk is full, broken or read-only.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            place = Path(os.path.realpath(path))
            place.parent.mkdir(parents=True, exist_ok=True)
            part_files.replace(place, content)


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
    try:
        return torch_files.load(BytesIO(body), device)
    except Exception as error:  # of a file that was made to fit its checksum
        raise FlowbenchError(
            f"{path} holds no state of a training; delete it, and this stage is trained anew"
        ) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Store tensors as safetensors with `facts` (JSON) and a checksum of all in the header."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, _sealed(dump_tensors(plain, {"facts": json.dumps(facts)})))


def _sealed(content: bytes) -> bytes:
    """The content of a safetensors file with `sha256` of the rest among its metadata.

    The format itself has no checksum: a flipped bit would be another weight.
    """
    header, tensors = _divided(content)
    header["__metadata__"]["sha256"] = _checksum(header, [tensors])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return b"".join([len(text).to_bytes(8, "little"), text, tensors])


def _divided(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and tensors of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), memoryview(content)[end:]


def _checksum(header: Mapping[str, Any], tensors: Iterable[bytes | memoryview]) -> str:
    hasher = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for part in tensors:
        hasher.update(part)
    return hasher.hexdigest()


def _verify(path: Path, header: dict[str, Any], tensors: Iterable[bytes | memoryview]) -> None:
    """Raise FlowbenchError where a file has a checksum and another content.

    Files of others and of earlier versions have none.
    """
    said = (header.get("__metadata__") or {}).pop("sha256", None)
    if said is not None and said != _checksum(header, tensors):
        raise FlowbenchError(f"{path} is damaged: its content is not that of its checksum")


def verify(path: Path) -> None:
    """Raise FlowbenchError for a damaged file of `save_tensors`; it is read, but not held."""
    read_facts(path)  # so that the header is sound
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        _verify(path, header, iter(lambda: file.read(CHUNK), b""))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` stored: (tensors, facts).

    Raises FlowbenchError for another file and for a damaged one.
    """
    from safetensors import SafetensorError

    try:
        content = path.read_bytes()
        tensors = load_tensors(content)
        facts = read_facts(path)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise FlowbenchError(f"{path} cannot be read as safetensors: {error}") from error
    header, rest = _divided(content)
    _verify(path, header, [rest])
    return tensors, facts


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of `save_tensors` alone, from the header, of which the checksum is not looked at.

    Raises FlowbenchError for another file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return json.loads((file.metadata() or {}).get("facts", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
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
