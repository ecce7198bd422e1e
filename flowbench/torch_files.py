"""Files of torch.save from anywhere: tensors and plain values, and no more than the file holds."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

LARGEST = 2**30


def load(source: Path | IO[bytes], device: str = "cpu", repeated: bool = False) -> Any:
    """The content of a file; no code that it names is run.

    A tensor may be one number, `repeated` to at most LARGEST bytes, for a reader that knows how
    large it has to be. Raises pickle.UnpicklingError for anything but tensors and plain values,
    ValueError for members that are packed, as torch never packs them, and for tensors larger than
    what is stored of them; and whatever torch raises for a damaged file.
    """
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is packed, and could unpack to any size")
    if not isinstance(source, Path):
        source.seek(0)
    content = torch.load(source, map_location=device, weights_only=True)
    for tensor in tensors(content):
        _check(tensor, repeated)
    return content


def _check(tensor: Tensor, repeated: bool) -> None:
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise ValueError("a tensor in it is sparse or has no content")
    most = max(tensor.untyped_storage().nbytes(), LARGEST if repeated else 0)
    if tensor.numel() * tensor.element_size() > most:
        raise ValueError("a tensor in it is larger than what is stored of it")


def tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor in nested mappings, lists and tuples, which may contain themselves."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
