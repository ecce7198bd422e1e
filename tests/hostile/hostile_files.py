"""Files that a stranger could have made: bombs, lies about sizes, names that lead elsewhere."""

import io
import json
import pickle
import zipfile

import torch


class Call:
    """Pickles as a call, which an unpickler that trusts it would make."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved(content) -> bytes:
    """What torch.save makes of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def repacked(content: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip whose members are packed another way."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", how) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    return buffer.getvalue()


def safetensors(header, tensors: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header: JSON, or the bytes themselves."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + tensors


def entry(shape, offsets, dtype="F32"):
    """One tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def poisoned(command: str) -> bytes:
    """A pickle that runs a command where it is trusted."""
    import os

    return pickle.dumps(Call(os.system, command))
