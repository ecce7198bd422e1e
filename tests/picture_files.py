"""Files of images as people hold them, written by the tests in their real forms."""

import io
import json
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image


def images(n=6, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def encoded(picture, kind="PNG"):
    """One image (C, H, W) or (H, W) as a file's bytes."""
    buffer = io.BytesIO()
    pixels = picture if picture.ndim == 2 else picture.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind)
    return buffer.getvalue()


def write_zip(path, pictures, labels=None, kind="PNG", extra=None):
    with zipfile.ZipFile(path, "w") as zipped:
        names = [f"00000/img{i:08d}.{kind.lower()}" for i in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            zipped.writestr(name, encoded(picture, kind))
        if labels is not None:
            pairs = [[n, int(y)] for n, y in zip(names, labels, strict=False)]
            zipped.writestr("dataset.json", json.dumps({"labels": pairs}))
        for name, content in (extra or {}).items():
            zipped.writestr(name, content)


def write_folder(path, pictures, tops, kind="PNG"):
    """Images into the folders `tops`, "" for none; returns the paths in order."""
    files = []
    for i, (picture, top) in enumerate(zip(pictures, tops, strict=True)):
        file = path / top / f"image_{i:04d}.{kind.lower()}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture, kind))
        files.append(file)
    return files


def python2_batch(pictures, labels):
    """A batch of CIFAR-10 as Python 2 and an early NumPy pickled it."""
    data = pictures.reshape(len(pictures), -1)
    raw, shape = data.tobytes(), b"".join(b"J" + struct.pack("<i", n) for n in data.shape)
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ" + b"\xff" * 4
    dtype += b"J" + b"\xff" * 4 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    array += b"(K\x01" + shape + b"\x86" + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw
    numbers = b"".join(b"J" + struct.pack("<i", label) for label in labels)
    return b"\x80\x02}(U\x04data" + array + b"tbU\x06labels](" + numbers + b"eu."


def write_tar(path, members):
    """A tar.gz of the extracted folder's files: name to content."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def cifar_batches(pictures, labels):
    """The six batches of CIFAR-10 with a few of `pictures` each, the last one for testing."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    parts = zip(np.array_split(pictures, 6), np.array_split(labels, 6), strict=True)
    return {name: python2_batch(*part) for name, part in zip(names, parts, strict=True)}
