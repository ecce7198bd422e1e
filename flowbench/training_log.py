"""The loss while a network trains: a line for every so many steps, beside its checkpoints."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowbench.disk import writing
from flowbench.events import Point

if TYPE_CHECKING:
    from torch import Tensor

    from flowbench.records import Budget

FILE = "training.jsonl"
POINTS = 200  # of a stage


def read(path: Path) -> list[Point]:
    """The points of a file in their order; no file has none, and what is no point is left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    return list(_points(lines))


def _points(lines: list[bytes]) -> Iterator[Point]:
    for line in lines:
        try:
            yield _point(json.loads(line))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue  # torn by a crash, or not ours


def _point(parts: Any) -> Point:
    """A line as it was written; raises ValueError, TypeError or KeyError for another."""
    stage, step, images = parts["stage"], parts["step"], parts["images"]
    if not isinstance(stage, str) or type(step) is not int or type(images) is not int:
        raise TypeError
    loss = math.nan if parts["loss"] is None else float(parts["loss"])
    return Point(stage, step, images, loss, float(parts["seconds"]))


def _line(point: Point) -> str:
    loss = point.loss if math.isfinite(point.loss) else None  # JSON has no NaN
    return json.dumps(asdict(point) | {"loss": loss}) + "\n"


class Log:
    """Writes the points of one stage; losses are added up where they are, on the device.

    `observe` gets each point, once it is in the file.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        budget: "Budget",
        observe: Callable[[Point], None] = lambda point: None,
    ):
        self.path, self.stage, self.budget = folder / FILE, stage, budget
        self.observe = observe
        self.every = -(-budget.steps // POINTS)
        self.sum: Any = 0.0
        self.count = 0

    def begin(self, step: int, state: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint at `step`: what was written after it will be written anew.

        What stays is handed to `observe` again, for those who were not there.
        """
        if state is not None:
            self.sum, self.count = state["sum"], state["count"]
        if not self.path.exists():
            return
        from flowbench.checkpoints import write

        points = [p for p in read(self.path) if p.stage != self.stage or p.step <= step]
        content = "".join(map(_line, points)).encode()
        if content != self.path.read_bytes():
            write(self.path, content)
        for point in points:
            if point.stage == self.stage:
                self.observe(point)

    def add(self, loss: "Tensor") -> None:
        """Count the loss of a step; nothing waits for the device."""
        self.sum = self.sum + loss.double()
        self.count += 1

    def mark(self, step: int, seconds: float) -> float:
        """Write a point where it is time for one; returns the seconds that observers took."""
        if not self.count or (step % self.every and step < self.budget.steps):
            return 0.0
        images, loss = step * self.budget.batch, float(self.sum) / self.count
        point = Point(self.stage, step, images, loss, round(seconds, 3))
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(point))
        self.sum, self.count = 0.0, 0
        start = time.monotonic()
        self.observe(point)
        return time.monotonic() - start

    @property
    def state(self) -> dict[str, Any]:
        """What of the next point is there, for a checkpoint."""
        return {"sum": float(self.sum), "count": self.count}
