"""A sheet of samples: one row per method and NFE, the same noise in each column."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from safetensors import SafetensorError
from safetensors.numpy import load_file

from flowbench.records import FlowbenchError

CELL = 48  # pixels that the side of one sample is drawn with, about
LABEL = 190


def images(path: Path, count: int) -> np.ndarray | None:
    """The first `count` samples of a file as uint8 (n, H, W, C); None if they are no images.

    Raises FlowbenchError where the file is gone or damaged.
    """
    if not path.exists():
        raise FlowbenchError(f"{path} is not there: name the folder of the runs with --runs")
    try:
        samples = load_file(path)["samples"][:count]
    except (SafetensorError, OSError, KeyError) as error:
        raise FlowbenchError(f"{path} is damaged: {error}") from error
    return samples.transpose(0, 2, 3, 1) if samples.dtype == np.uint8 else None


def draw(rows: Sequence[tuple[str, np.ndarray]], out: Path) -> None:
    """Write a PNG with a labelled row for each (label, samples (n, H, W, C))."""
    if not rows:
        raise FlowbenchError("there are no images to show: a sheet is for data sets of images")
    side = rows[0][1].shape[1]
    scale = max(1, CELL // side)
    cell, count = side * scale + 4, max(len(samples) for _, samples in rows)
    sheet = Image.new("RGB", (LABEL + count * cell, len(rows) * cell), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for y, (label, samples) in enumerate(rows):
        pen.text((8, y * cell + cell // 2), label, fill="black", font=font, anchor="lm")
        for x, sample in enumerate(samples):
            picture = Image.fromarray(sample[:, :, 0] if sample.shape[2] == 1 else sample)
            picture = picture.resize((side * scale, side * scale), Image.Resampling.NEAREST)
            sheet.paste(picture, (LABEL + x * cell, y * cell + 2))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    except (OSError, ValueError) as error:
        raise FlowbenchError(f"{out} cannot be written as a picture: {error}") from error
