"""The two forms of a prepared image set: EDM's zip, and a folder of memory-mapped arrays."""

import json
import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from flowbench.checkpoints import write
from flowbench.data import manifest
from flowbench.data.rows import CHUNK, DONE, Clock


def pack_zip(
    target: Path, rows: Path, labels: np.ndarray | None, facts: dict[str, Any], clock: Clock
) -> None:
    """Write EDM's layout: stored, uncompressed PNG, labels in `dataset.json`, the manifest.

    The bytes depend on nothing but the arguments. `target` appears when it is complete.
    """
    images = np.load(rows, mmap_mode="r", allow_pickle=False)
    part = rows.with_name("archive.zip")
    with part.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for index, image in enumerate(images):
                _add(archive, member(index), _png(image))
                if (index + 1) % CHUNK == 0 or index + 1 == len(images):
                    clock(index + 1, len(images))
            _add(archive, "dataset.json", _label_table(labels))
            _add(archive, manifest.NAME, manifest.encode(facts))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, target)


def pack_array(
    target: Path, rows: Path, labels: np.ndarray | None, facts: dict[str, Any], clock: Clock
) -> None:
    """Make a folder of `images.npy`, `labels.npy` (where there are labels) and the manifest."""
    save_labels(rows.parent, labels)
    write(rows.with_name(manifest.NAME), manifest.encode(facts))
    os.rename(rows.parent, target)
    (target / DONE).unlink()


def save_labels(folder: Path, labels: np.ndarray | None) -> None:
    """Write `labels.npy` into a folder of arrays, where there are labels."""
    if labels is None:
        return
    buffer = BytesIO()
    np.save(buffer, labels.astype(np.int64))
    write(folder / manifest.LABELS, buffer.getvalue())


def member(index: int) -> str:
    """EDM's name of an image in the archive."""
    return f"{index // 1000:05d}/img{index:08d}.png"


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Store a member with the date that zip files begin with, so that bytes can be compared."""
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _label_table(labels: np.ndarray | None) -> bytes:
    if labels is None:
        return json.dumps({"labels": None}).encode()
    return json.dumps({"labels": [[member(i), int(y)] for i, y in enumerate(labels)]}).encode()


FORMS = {"zip": pack_zip, "array": pack_array}
