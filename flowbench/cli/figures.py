"""The charts and pictures of a page: drawn from the database and from the files of its runs."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from flowbench.cli import tables


@dataclass(frozen=True)
class Figures:
    """Draws sections of one view; what has no numbers or no files is left out."""

    store: Any
    view: Any
    folder: Path
    data_root: Path | None
    with_pictures: bool = True
    watch: Callable[[str], None] = lambda title: None

    def charts(self, section: Any) -> Sequence[Any]:
        """Quality, costs, straightness and training curves."""
        self.watch(section.dataset)
        from flowbench.comparison.naming import named
        from flowbench.report.charts import gallery, training

        names = [named(name, section.n) for name in tables.chosen_metrics(section, ())]
        goals = {name: cell.goal for (_, name, _), cell in section.cells.items()}
        metrics = [name for name in names if goals.get(name) and name not in section.facts]
        labels = sorted({g.label for s in self.view.sections for g in s.groups})
        logs = training.read(self.store, section, self.folder)
        return gallery.charts(section, metrics, labels, logs)

    def pictures(self, section: Any) -> Sequence[Any]:
        """Samples of the same noise, and trajectories where data are points of a plane."""
        if not self.with_pictures:
            return ()
        from flowbench.cli import page_pictures

        return page_pictures.pictures(self.store, section, self.folder, self.data_root)


@contextmanager
def watcher(count: int) -> Iterator[Callable[[str], None]]:
    """What is told of each of `count` sections before it is drawn: on a terminal it shows a line.

    The time that is left is that of the sections before, which take about equally long.
    """
    begun, done = time.monotonic(), 0
    terminal = sys.stderr.isatty()

    def watch(title: str) -> None:
        nonlocal done
        if terminal:
            left = (time.monotonic() - begun) / done * (count - done) if done else None
            eta = "" if left is None else f"  ETA {left:.0f} s"
            click.echo(f"\r\033[Kdrawing {title}, {done + 1} of {count}{eta}", err=True, nl=False)
        done += 1

    yield watch
    if terminal:
        click.echo("\r\033[K", err=True, nl=False)
