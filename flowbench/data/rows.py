"""A file of decoded images that grows chunk by chunk, and goes on where a crash left it."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from flowbench.checkpoints import write
from flowbench.data.pictures import Pictures
from flowbench.training import Progress, ignore

CHUNK = 1000  # images between two points to go on from
DONE = "done.json"  # beside the file: how many rows are on the disk for certain


@dataclass
class Clock:
    """Tells a watcher how far a stage is, with the rate since it was started."""

    stage: str
    watch: Callable[[Progress], None] = ignore
    start: float = field(default_factory=time.monotonic)
    first: int = 0

    def __call__(self, done: int, total: int) -> None:
        seconds = max(time.monotonic() - self.start, 1e-6)
        rate = (done - self.first) / seconds
        left = (total - done) / rate if rate else 0.0
        self.watch(Progress(self.stage, done, total, rate=rate, seconds_left=left))


def fill(path: Path, pictures: Pictures, jobs: int = 1, clock: Clock | None = None) -> None:
    """Write all images to `path` as a NumPy file of uint8 (N, C, H, W).

    What an interrupted call of the same images wrote is kept; the bytes are the same in the end.
    """
    done, total = finished(path, pictures), len(pictures)
    clock = clock or Clock("decode")
    clock.first = done
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if done else "wb") as file, pictures.threads(jobs):
        file.write(_header(pictures.shape))
        file.seek(done * pictures.nbytes // total, os.SEEK_CUR)
        file.truncate()
        for start in range(done, total, CHUNK):
            rows = pictures[start : start + CHUNK]
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
            write(path.parent / DONE, json.dumps(start + len(rows)).encode())
            clock(start + len(rows), total)


def finished(path: Path, pictures: Pictures) -> int:
    """How many rows of an interrupted file of `pictures` are on the disk; a damaged one has 0."""
    try:
        done = json.loads((path.parent / DONE).read_bytes())
        size = path.stat().st_size
    except (OSError, ValueError, RecursionError):
        return 0
    if type(done) is not int or not 0 <= done <= len(pictures):
        return 0
    whole = len(_header(pictures.shape)) + done * pictures.nbytes // len(pictures)
    return done if size >= whole else 0


def _header(shape: tuple[int, ...]) -> bytes:
    facts: dict[str, Any] = {"descr": "|u1", "fortran_order": False}
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, facts | {"shape": tuple(map(int, shape))})
    return buffer.getvalue()
