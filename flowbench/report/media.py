"""Samples as a picture for a page: images of the same noise by row and NFE."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowbench.comparison.view import Section
from flowbench.report import samples
from flowbench.report.charts import words
from flowbench.report.document import Picture
from flowbench.report.samples import Samples

LARGEST = 400_000  # bytes of a picture
WIDTH = 1000  # pixels of a grid, about
CELL = 26  # pixels of a small image, about
MOST = 10  # images of one row and NFE
THUMBNAIL = 96  # pixels of a large image
TEXT, GAP, EDGE = 14, 10, 8  # pixels: of letters, between columns, around all
SHORT = 26  # characters of a label


def grid(store: Any, section: Section, folder: Path, limit: int = LARGEST) -> Picture | None:
    """Images of the same noise: a line for each row, a column for each NFE, a strip in each.

    As many in a strip as fit the width and a PNG of `limit` bytes; None where there are no images.
    """
    found = samples.read(store, section, folder, MOST)
    if found is None or len(found.shape) == 1:
        return None
    for count in range(strip(found), 0, -1):
        content = png(sheet(found, count), limit)
        if content is not None:
            title = f"samples: {words.place(section)}"
            what = f"The first {count} samples of {place(found)}"
            return Picture("samples", title, f"{what}. {rows(found)}", content)
    return None


def strip(found: Samples) -> int:
    """How many images of each row and NFE fit the width."""
    wide = len(found.nfes) * (_size(found)[1] + 2)
    return max(1, min(len(next(iter(found.cells.values()))), WIDTH // wide))


def png(image: Image.Image, limit: int, exact: bool = True) -> bytes | None:
    """An image as a PNG of at most `limit` bytes, in its own colours or in 256; None if larger."""
    few = image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    for some in (image, few) if exact else (few,):
        content = BytesIO()
        some.save(content, format="PNG", optimize=True)
        if content.tell() <= limit:
            return content.getvalue()
    return None


def place(found: Samples) -> str:
    """Which samples these are."""
    return f"noise stream {found.stream}, training seed {found.seed}, the same noise everywhere"


def rows(found: Samples) -> str:
    """What is drawn and what is not."""
    nfes = ", ".join(str(nfe or "auto") for nfe in found.nfes)
    words = [f"Rows: {', '.join(found.labels)}", f"columns: NFE {nfes}"]
    if len(found.cells) < len(found.labels) * len(found.nfes):
        words.append("an empty place was not sampled")
    if found.absent:
        words.append(f"left out, since their samples are not here: {', '.join(found.absent)}")
    return f"{'; '.join(words)}."


def sheet(found: Samples, count: int) -> Image.Image:
    """The grid with its labels; an image lies at `corner(...)`."""
    frame = Frame.of(found, count)
    sheet = Image.new("L" if found.shape[-1] == 1 else "RGB", frame.size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=TEXT)
    for column, nfe in enumerate(found.nfes):
        left, top = frame.corner(0, column, 0)
        pen.text((left, top - 4), f"NFE {nfe or 'auto'}", fill="black", font=font, anchor="lb")
    texts = words.short(found.labels, SHORT)
    for row, label in enumerate(found.labels):
        middle = frame.corner(row, 0, 0)[1] + frame.tall // 2
        pen.text((EDGE, middle), texts[label], fill="black", font=font, anchor="lm")
        for column, nfe in enumerate(found.nfes):
            for number, image in enumerate(found.cells.get((label, nfe), [])[:count]):
                sheet.paste(_drawn(image, frame), frame.corner(row, column, number))
    return sheet


@dataclass(frozen=True)
class Frame:
    """Where the images of a sheet lie: each `tall` x `wide`, `count` in a strip."""

    tall: int
    wide: int
    count: int
    left: int  # of the first column
    rows: int
    columns: int

    @classmethod
    def of(cls, found: Samples, count: int) -> "Frame":
        """The frame for strips of `count`."""
        font = ImageFont.load_default(size=TEXT)
        texts = words.short(found.labels, SHORT).values()
        left = 2 * EDGE + int(max(font.getlength(text) for text in texts))
        return cls(*_size(found), count, left, len(found.labels), len(found.nfes))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        right, bottom = self.corner(self.rows, self.columns, 0)
        return right - GAP + EDGE, bottom + EDGE

    def corner(self, row: int, column: int, number: int) -> tuple[int, int]:
        """Left and top of an image of a strip."""
        strip = self.count * (self.wide + 2) + GAP
        top = EDGE + TEXT + 6
        return self.left + column * strip + number * (self.wide + 2), top + row * (self.tall + 4)


def _size(found: Samples) -> tuple[int, int]:
    """Height and width that an image is drawn with: small ones enlarged, large ones reduced."""
    tall, wide, _ = found.shape
    if max(tall, wide) > THUMBNAIL:
        part = -(-max(tall, wide) // THUMBNAIL)
        return -(-tall // part), -(-wide // part)
    scale = max(1, round(CELL / max(tall, wide)))
    return tall * scale, wide * scale


def _drawn(values: np.ndarray, frame: Frame) -> Image.Image:
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    if frame.tall < values.shape[0]:
        return image.reduce(-(-max(values.shape) // THUMBNAIL))
    return image.resize((frame.wide, frame.tall), Image.Resampling.NEAREST)
