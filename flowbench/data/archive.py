"""Image archives in EDM's layout: a zip of PNG or JPEG files with labels in `dataset.json`."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from flowbench.data.base import Arrays
from flowbench.records import Absent, FlowbenchError

IMAGES = (".png", ".jpg", ".jpeg")


def archive(root: Path | None, name: str, stem: str) -> Arrays:
    """Find `stem.zip` (or `stem-train.zip`, held-out `stem-test.zip`) in the folder `root`.

    Images are decoded when they are read, so no second copy of the data is ever held.
    Raises FlowbenchError where files are missing, damaged or of mixed sizes.
    """
    folder = _folder(root, name, stem)
    train = next((p for p in _candidates(folder, stem) if p.exists()), None)
    if train is None:
        names = " or ".join(p.name for p in _candidates(folder, stem))
        raise Absent(f"{name} needs {names} (EDM's zip layout), but {folder} has neither")
    images, test = ZipImages(train), folder / f"{stem}-test.zip"
    held_out = ZipImages(test) if test.exists() else None
    labels = images.labels()
    return Arrays(
        train=images,
        labels=labels,
        test=held_out,
        test_labels=None if held_out is None else held_out.labels(),
        classes=0 if labels is None else int(labels.max()) + 1,
    )


def _folder(root: Path | None, name: str, stem: str) -> Path:
    if root is None:
        raise Absent(
            f"{name} does not come with flowbench: put {stem}.zip (EDM's zip layout) into a folder"
            " and name the folder with --data-root DIR or FLOWBENCH_DATA"
        )
    return Path(root)


def _candidates(folder: Path, stem: str) -> list[Path]:
    return [folder / f"{stem}.zip", folder / f"{stem}-train.zip"]


class ZipImages:
    """The images of a zip, sorted by name, as an array that decodes what is sliced from it.

    Slices are uint8 (n, C, H, W). Raises FlowbenchError that names the damaged or odd file.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path):
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise FlowbenchError(f"{path} cannot be read as a zip archive: {error}") from error
        self.names = sorted(n for n in self.zip.namelist() if n.lower().endswith(IMAGES))
        if not self.names:
            raise FlowbenchError(f"{path} holds no PNG or JPEG images")
        self.shape = (len(self.names), *self._decode(self.names[0]).shape)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """What all images take as uint8."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, rows: slice) -> np.ndarray:
        images = [self._decode(name) for name in self.names[rows]]
        for name, image in zip(self.names[rows], images, strict=True):
            if image.shape != self.shape[1:]:
                raise FlowbenchError(
                    f"{name} in {self.path} is {image.shape}, the first image {self.shape[1:]}"
                )
        return np.stack(images)

    def _decode(self, name: str) -> np.ndarray:
        from PIL import Image

        try:
            with Image.open(BytesIO(self.zip.read(name))) as image:
                known = image.mode in ("L", "RGB")  # a palette's numbers are no grey levels
                pixels = np.asarray(image if known else image.convert("RGB"))
        except (OSError, zipfile.BadZipFile) as error:  # PIL's own errors are OSErrors
            raise FlowbenchError(f"{name} in {self.path} cannot be decoded: {error}") from error
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def labels(self) -> np.ndarray | None:
        """Labels from `dataset.json`, (N,) int64; None where the archive has none."""
        if "dataset.json" not in self.zip.namelist():
            return None
        try:
            pairs = json.loads(self.zip.read("dataset.json")).get("labels")
            table = dict(pairs) if pairs else None
            return np.array([table[name] for name in self.names], np.int64) if table else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FlowbenchError(
                f"dataset.json in {self.path} does not label every image: {error!r}"
            ) from error
