"""`flowbench.json`: what a prepared image set is, how it was made, and the hash of its pixels."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from flowbench.data.sources import member
from flowbench.records import FlowbenchError

# What a damaged zip raises, and JSON that is none; RecursionError is a RuntimeError.
BROKEN = (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile)
NAME = "flowbench.json"
LABELS = "labels.npy"
VERSIONS = ("pillow", "flowbench")  # who made it: no difference in what it is


def find(path: Path) -> dict[str, Any] | None:
    """The manifest of a prepared archive or folder; None where it has none.

    Raises FlowbenchError where it cannot be read.
    """
    try:
        if path.is_dir():
            text = (path / NAME).read_bytes() if (path / NAME).exists() else None
        else:
            with zipfile.ZipFile(path) as archive:
                text = member(archive, NAME) if NAME in archive.namelist() else None
        manifest = None if text is None else json.loads(text)
    except BROKEN as error:
        raise FlowbenchError(f"{NAME} in {path} cannot be read: {error}") from error
    if manifest is not None and not isinstance(manifest, dict):
        raise FlowbenchError(f"{NAME} in {path} is no JSON object: prepare the set anew")
    return manifest


def differences(manifest: dict[str, Any], facts: dict[str, Any]) -> str:
    """How `facts` differ from what a manifest says, in words; empty where they do not."""
    wrong = [
        key for key, value in facts.items() if manifest.get(key) != value and key not in VERSIONS
    ]
    return ", ".join(f"{key} is {facts[key]}, not {manifest.get(key)}" for key in wrong)


def encode(manifest: dict[str, Any]) -> bytes:
    """The manifest as its file holds it: JSON, the same bytes for the same facts."""
    return json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
