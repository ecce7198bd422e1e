"""How a run shows how far it is: a bar on a terminal, plain lines elsewhere, or nothing."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowbench.cli import streams
from flowbench.training import Progress, ignore

INTERVAL = 10.0  # seconds between plain lines of one stage


@contextmanager
def watcher(quiet: bool, terminal: bool) -> Iterator[Callable[[Progress], None]]:
    """The watcher for this output; a bar is taken away at the end."""
    if quiet:
        yield ignore
    elif terminal:
        with bar() as watch:
            yield watch
    else:
        yield Lines()


class Lines:
    """A plain line at the start and end of each stage and every ten seconds between."""

    def __init__(self) -> None:
        self.stage, self.last, self.start = "", 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self.stage:
            self.stage, self.last, self.start = progress.stage, -math.inf, now
        if now - self.last >= INTERVAL or progress.step == progress.steps:
            self.last = now
            streams.tell(line(progress))


def line(progress: Progress) -> str:
    """One line about a stage."""
    return f"{progress.stage}: {facts(progress)}"


def facts(progress: Progress) -> str:
    """How far a stage is: step, loss, examples per second, time left."""
    words = [f"{progress.step}/{progress.steps}"]
    if math.isfinite(progress.loss):
        words.append(f"loss {progress.loss:.4g}")
    if progress.rate:
        words.append(f"{progress.rate:.0f} images/s")
    if progress.seconds_left:
        words.append(f"ETA {progress.seconds_left:.0f} s")
    return "  ".join(words)


@contextmanager
def bar() -> Iterator[Callable[[Progress], None]]:
    """A rich progress bar for the stage at hand."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"))
    with Bars(*columns, transient=True, console=Console(stderr=True)) as bars:
        task = bars.add_task("", facts="", visible=False)

        def watch(progress: Progress) -> None:
            bars.update(
                task,
                description=progress.stage,
                completed=progress.step,
                total=progress.steps,
                facts=facts(progress),
                visible=True,
            )

        yield watch
