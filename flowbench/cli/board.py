"""How a suite shows how far it is: one live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flowbench.agenda import Task, Unready, span
from flowbench.cli import streams
from flowbench.suites import Cell
from flowbench.workers import Status

INTERVAL = 30.0  # seconds between plain lines about what runs
STYLES = {"waiting": "dim", "queued": "blue", "running": "cyan", "elsewhere": "yellow"}
STYLES |= {"done": "green", "failed": "bold red", "interrupted": "magenta"}
ROWS = 40  # above this, rows of which all is done are left out

Watch = Callable[[Status, str], None]


@contextmanager
def watcher(quiet: bool, terminal: bool, statuses: Sequence[Status], jobs: int) -> Iterator[Watch]:
    """The watcher for this output."""
    if quiet:
        yield lambda status, note: None
    elif terminal:
        with board(Progresses(statuses, jobs)) as watch:
            yield watch
    else:
        yield Lines(Progresses(statuses, jobs))


class Progresses:
    """All cells and the time that is left, from estimates and from what has ended by now."""

    def __init__(self, statuses: Sequence[Status], jobs: int):
        self.statuses, self.jobs = statuses, jobs

    def left(self, status: Status) -> float | None:
        """Seconds that a cell still takes; None where nothing is known."""
        if status.word in ("done", "failed"):
            return 0.0
        whole = status.task.seconds
        if whole is None:
            whole = self._as_others(status)
        if status.word in ("waiting", "queued"):
            return whole
        stage = status.progress.seconds_left if status.progress else None
        if whole is None:
            return stage
        return max(whole - (time.monotonic() - status.begun), stage or 0.0)

    def _as_others(self, status: Status) -> float | None:
        """What the cells of the same row have taken in this call."""
        row = (status.task.cell.row.label, status.task.cell.dataset)
        took = [
            other.ended - other.begun
            for other in self.statuses
            if other.word == "done" and other.begun and row == _row(other)
        ]
        return sum(took) / len(took) if took else None

    def total(self) -> str:
        """The time until all is done, or nothing where it cannot be known."""
        left = {id(status.task): self.left(status) for status in self.statuses}
        if None in left.values():
            return ""
        tasks = [status.task for status in self.statuses]
        seconds = span(tasks, self.jobs, lambda task: left[id(task)] or 0.0)
        return f"ETA {duration(seconds)}"

    def counts(self) -> str:
        """How many cells are in which state."""
        words = [status.word for status in self.statuses]
        return ", ".join(f"{words.count(word)} {word}" for word in STYLES if word in words)


def _row(status: Status) -> tuple[str, str]:
    return status.task.cell.row.label, status.task.cell.dataset


def duration(seconds: float) -> str:
    """Seconds as a reader likes them: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def words(status: Status, progresses: Progresses) -> str:
    """What stands in a cell of the table."""
    if status.word == "done":
        return f"done {duration(status.ended - status.begun)}" if status.begun else "done before"
    if status.word not in ("running", "elsewhere"):
        return status.word
    left = progresses.left(status)
    eta = f" ETA {duration(left)}" if left else ""
    progress = status.progress
    if progress is None or progress.step >= progress.steps:
        return f"{status.word}{eta}"
    return f"{progress.stage} {progress.step / progress.steps:.0%}{eta}"


class Lines:
    """A plain line when a cell starts and ends, and twice a minute what runs."""

    def __init__(self, progresses: Progresses):
        self.progresses, self.last = progresses, time.monotonic()

    def __call__(self, status: Status, note: str) -> None:
        name = status.task.cell.name
        if note:
            streams.tell(f"{name}: {note}")
        elif status.word in ("done", "failed"):
            why = f": {status.failure}" if status.failure else f", {self._rest(status)}"
            streams.tell(f"{status.word} {name}{why}")
        elif status.word in ("queued", "elsewhere", "interrupted"):
            streams.tell(f"{status.word} {name}")
        elif status.word == "running" and status.progress is None:
            streams.tell(f"start {name}")
        elif time.monotonic() - self.last >= INTERVAL:
            self.last = time.monotonic()
            for other in self.progresses.statuses:
                if other.word == "running":
                    now = words(other, self.progresses)
                    streams.tell(f"  {other.task.cell.name}: {now}")

    def _rest(self, status: Status) -> str:
        took = duration(status.ended - status.begun)
        return "  ".join(filter(None, [took, self.progresses.counts(), self.progresses.total()]))


@contextmanager
def board(progresses: Progresses) -> Iterator[Watch]:
    """A live table: rows of the suite, a column for each seed."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)

    def picture() -> Any:
        return table(progresses, console.height - 4)

    live = Live(get_renderable=picture, console=console, refresh_per_second=2)
    with live:

        def watch(status: Status, note: str) -> None:
            text = note or (status.failure if status.word == "failed" else "")
            if text:
                console.print(f"{status.task.cell.name}: {text}", markup=False, highlight=False)

        yield watch


def table(progresses: Progresses, height: int = ROWS) -> Any:
    """The rich table of all cells; rows that are done are left out where it is too high."""
    from rich.table import Table
    from rich.text import Text

    statuses = progresses.statuses
    seeds = sorted({status.task.cell.seed for status in statuses})
    places = list(dict.fromkeys(map(_row, statuses)))
    shown = places
    if len(places) > height:
        open_ones = {_row(s) for s in statuses if s.word not in ("waiting", "done")}
        waiting = [_row(s) for s in statuses if s.word == "waiting"]
        keep = open_ones | set(list(dict.fromkeys(waiting))[: max(0, height - len(open_ones))])
        shown = [place for place in places if place in keep]
    grid = Table(caption=f"{progresses.counts()}  {progresses.total()}", caption_justify="left")
    for name in ("method", "data", *(f"seed {seed}" for seed in seeds)):
        grid.add_column(name, no_wrap=True)
    for label, dataset in shown:
        cells = {s.task.cell.seed: s for s in statuses if _row(s) == (label, dataset)}
        texts = [
            Text(words(cells[seed], progresses), STYLES[cells[seed].word]) if seed in cells else ""
            for seed in seeds
        ]
        grid.add_row(label, dataset, *texts)
    return grid


def plan_table(
    tasks: Sequence[Task], jobs: int, title: str, unready: Sequence[Unready] = ()
) -> Any:
    """What `--dry-run` prints: each cell, what is there of it, and what it will take."""
    from flowbench.report.layout import Table, Text

    columns = ["method", "data", "seed", "state", "seconds", "GPU-hours", "run"]
    rows = [
        (*_place(t.cell), _state(t), _seconds(t), _gpu_hours(t.cell), t.plan.spec.name)
        for t in tasks
    ]
    rows += [(*_place(e.cell), "not here", "unknown", _gpu_hours(e.cell), "") for e in unready]
    shown = [n for n, name in enumerate(columns) if name != "GPU-hours" or any(r[n] for r in rows)]
    words = [[Text(row[n]) for n in shown] for row in rows]
    found = Table(title, [columns[n] for n in shown], words)
    found.notes += _plan_notes(tasks, jobs, unready)
    return found


def _plan_notes(tasks: Sequence[Task], jobs: int, unready: Sequence[Unready]) -> Iterator[str]:
    """What is to do and what it takes, and what has to be supplied first."""
    todo = [task for task in tasks if task.missing]
    known = duration(span(tasks, jobs))
    unknown = sum(task.seconds is None for task in todo) + len(unready)
    more = f", and {unknown} runs of which nothing is known" if unknown else ""
    count = f"{len(todo) + len(unready)} of {len(tasks) + len(unready)}"
    yield f"{count} runs to do, {jobs} at a time: {known}{more}"
    cells = [*(task.cell for task in todo), *(entry.cell for entry in unready)]
    hours = [cell.row.gpu_hours for cell in cells if cell.row.gpu_hours is not None]
    if hours:
        total = _hours(sum(hours))
        yield f"about {total} GPU-hours on a GPU of the H200's class, by the file's estimate"
    yield from (f"not here: {why}" for why in dict.fromkeys(entry.why for entry in unready))


def _place(cell: Cell) -> tuple[str, str, str]:
    return cell.row.label, cell.dataset, str(cell.seed)


def _seconds(task: Task) -> str:
    return "unknown" if task.seconds is None else f"{task.seconds:.0f}"


def _gpu_hours(cell: Cell) -> str:
    return "" if cell.row.gpu_hours is None else _hours(cell.row.gpu_hours)


def _state(task: Task) -> str:
    if task.trouble:
        return "diverged"
    if not task.missing:
        return "cached"
    return "new" if task.missing == len(task.expected) else f"{task.missing} scores missing"


def _hours(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
