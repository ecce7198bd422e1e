"""From encoded images to pixels of one shape: decoding, cropping, scaling."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from flowbench.data.sources import Source
from flowbench.records import FlowbenchError

if TYPE_CHECKING:
    from PIL.Image import Image

# What PIL and zipfile raise for files that are cut off, damaged, encrypted or no images.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError)
BROKEN_ZIP = (struct.error, zlib.error, zipfile.BadZipFile)
PIXELS = 2**26  # of one image
TILE = 64  # images that one thread decodes before it takes others


def center_crop(image: "Image", side: int) -> "Image":
    """EDM's transform: the largest square in the middle, then Lanczos to `side`."""
    from PIL.Image import Resampling

    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    square = image.crop((left, top, left + edge, top + edge))
    return square.resize((side, side), Resampling.LANCZOS)


def dhariwal_crop(image: "Image", side: int) -> "Image":
    """ADM's transform: halve while both edges are twice `side`, bicubic to `side`, crop the middle.

    The two reductions work on the whole image, before the crop (Dhariwal and Nichol 2021).
    """
    from PIL.Image import Resampling

    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC
    )
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def resize(image: "Image", side: int) -> "Image":
    """Lanczos to `side` without a crop; raises ValueError for an image that is not square."""
    from PIL.Image import Resampling

    if image.width != image.height:
        raise ValueError(f"{image.width}x{image.height} is not square, and resize crops nothing")
    return image.resize((side, side), Resampling.LANCZOS)


TRANSFORMS: dict[str, Callable[["Image", int], "Image"]] = {
    "none": lambda image, side: image,
    "resize": resize,
    "center-crop": center_crop,
    "center-crop-dhariwal": dhariwal_crop,
}


class Pictures:
    """The images of a source as an array that decodes what is sliced from it.

    Slices are uint8 (n, C, H, W). `side` 0 takes the size of the first image, `channels` 0 its
    being grey or in colour; images in colour sets become RGB whatever they were. Raises
    FlowbenchError that names the damaged or odd image.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Source, transform: str = "none", side: int = 0, channels: int = 0):
        self.source, self.side = source, side
        self.transform = TRANSFORMS[transform]
        self.channels = channels
        self.pool: ThreadPoolExecutor | None = None
        first = self.pixels(source.names[0])
        self.channels = len(first)
        self.shape = (len(source), *first.shape)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def nbytes(self) -> int:
        """What all images take as uint8."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, rows: slice) -> np.ndarray:
        names = self.source.names[rows]
        if self.pool is None:
            return self._stack(names)
        tiles = [names[start : start + TILE] for start in range(0, len(names), TILE)]
        return np.concatenate(list(self.pool.map(self._stack, tiles)))

    @contextmanager
    def threads(self, jobs: int) -> Iterator["Pictures"]:
        """Decode with `jobs` threads inside this block; the pixels are the same.

        It pays for large images: PIL frees the interpreter only while it decodes and resizes.
        """
        if jobs == 1:
            yield self
            return
        with ThreadPoolExecutor(jobs) as self.pool:
            try:
                yield self
            finally:
                self.pool = None

    def _stack(self, names: Any) -> np.ndarray:
        images = [self.pixels(name) for name in names]
        for name, image in zip(names, images, strict=True):
            if image.shape != self.shape[1:]:
                raise FlowbenchError(
                    f"{name} in {self.source.path} is {image.shape}, the first image"
                    f" {self.shape[1:]}: choose a transform that makes them one size"
                )
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    def pixels(self, name: Any) -> np.ndarray:
        """One image by its name: uint8 (C, H, W)."""
        from PIL.Image import DecompressionBombError, DecompressionBombWarning

        bombs = (DecompressionBombError, DecompressionBombWarning)
        try:
            image = self.transform(self._open(name), self.side)
        except (*BROKEN, *BROKEN_ZIP, *bombs) as error:
            raise FlowbenchError(f"{name} in {self.source.path} cannot be read: {error}") from error
        if self.side and image.size != (self.side, self.side):
            raise FlowbenchError(
                f"{name} in {self.source.path} is {image.width}x{image.height}, not"
                f" {self.side}x{self.side}"
            )
        values = np.asarray(image)
        return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)

    def _open(self, name: Any) -> "Image":
        from PIL import Image

        content = self.source.read(name)
        if isinstance(content, np.ndarray):
            return Image.fromarray(np.ascontiguousarray(content))
        # By name it is one of these; what reads other formats may start other programs.
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > PIXELS:
                raise ValueError(f"it has {image.width}x{image.height} pixels, which is too many")
            if image.mode[0] in "IF":
                raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
            grey = image.mode in ("L", "1")  # a palette's numbers are no grey levels
            if self.channels == 1 and not grey:
                raise ValueError("it is in colour, but the first image is grey")
            return image.convert("L" if grey and self.channels != 3 else "RGB")
