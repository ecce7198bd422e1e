"""From a suite to tasks: what is there, what is missing, who needs whom, and how long it takes."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flowbench import planning, plugins, runner, setting
from flowbench.history import History
from flowbench.planning import Plan, Request, Setup
from flowbench.protocol import Key
from flowbench.records import Absent, FlowbenchError
from flowbench.store import Store
from flowbench.suitefile import Row
from flowbench.suites import Cell, Suite

UNKNOWN = 60.0  # seconds of a run that nothing is known about, to order it among others


@dataclass
class Task:
    """A cell with its plan and its place among the others.

    `missing` of the scores that are `expected` are to be made; `trouble` is why a finished run
    counts as failed. `teachers` are the cells that must end before, `shared` the names of the runs
    that this one trains unless another has done it: teachers that are no cells, and a network that
    it shares with cells which only sample in another way. `seconds` is the estimate for what is
    missing, if there is one.
    """

    cell: Cell
    request: Request
    plan: Plan
    expected: set[Key] = field(default_factory=set)
    missing: int = 0
    trouble: str = ""
    teachers: list["Task"] = field(default_factory=list)
    shared: set[str] = field(default_factory=set)
    seconds: float | None = None

    @property
    def key(self) -> str:
        """Of the run."""
        return self.plan.spec.key

    def ancestors(self) -> Iterator[Plan]:
        """The plans of its teacher, its teacher's teacher, and so on."""
        above = self.plan.teacher
        while above is not None:
            yield above
            above = above.teacher

    def needed(self) -> Iterator[Plan]:
        """The plans of other runs whose networks it reads: its teachers', or all of its own."""
        if self.plan.trained is not None:
            yield self.plan.trained
        yield from self.ancestors()


@dataclass(frozen=True)
class Unready:
    """A cell that cannot be planned yet, because `why` says what a user has to supply first."""

    cell: Cell
    why: str


def tasks(
    suite: Suite,
    setup: Setup | None = None,
    seeds: Iterable[int] = (),
    datasets=(),
    unready: list[Unready] | None = None,
) -> list[Task]:
    """A planned task for each cell, in the order of the file; `seeds`, `datasets` narrow them.

    Raises FlowbenchError, naming the row, for whatever cannot be run. With a list `unready`, what
    lacks data or weights is added to that instead.
    """
    cells = _narrowed(suite, set(seeds), set(datasets))
    setup = setup or Setup()  # on the CPU: the device is the workers' business
    rows, found = {row.label: row for row in suite.rows}, []
    for cell in cells:
        try:
            request = _request(suite, cell, rows, setup, ())
            found.append(Task(cell, request, planning.plan(request, setup)))
        except FlowbenchError as error:
            if isinstance(error, Absent) and unready is not None:
                unready.append(Unready(cell, str(error)))
                continue
            raise type(error)(f"{suite.path}: {cell.row.label}: {error}") from error
    return found


def _narrowed(suite: Suite, seeds: set[int], datasets: set[str]) -> list[Cell]:
    cells = suite.cells()
    for name, asked, known in (
        ("seed", seeds, {cell.seed for cell in cells}),
        ("dataset", datasets, {cell.dataset for cell in cells}),
    ):
        if asked - known:
            words = ", ".join(map(str, sorted(known)))
            raise FlowbenchError(f"{suite.path} has no {name} {min(asked - known)}: it has {words}")
    return [
        cell
        for cell in cells
        if cell.seed in (seeds or {cell.seed}) and cell.dataset in (datasets or {cell.dataset})
    ]


def _request(
    suite: Suite, cell: Cell, rows: Mapping[str, Row], setup: Setup, students: tuple[str, ...]
) -> Request:
    """The words of a cell; a teacher that is a row becomes the run of that row."""
    row, head, teacher = cell.row, suite.head, cell.row.teacher
    word: str | Request | None = teacher
    if teacher in students:
        raise FlowbenchError(f"{teacher} would be its own teacher's student")
    if teacher is not None and teacher in rows:
        above = replace(cell, row=rows[teacher])
        word = _request(suite, above, rows, setup, (*students, row.label))
    elif teacher is not None and teacher not in plugins.methods():
        raise FlowbenchError(f"its teacher {teacher!r} is neither a label nor a method")
    return Request(
        row.method,
        cell.dataset,
        cell.seed,
        row.steps,
        batch=row.batch,
        options=row.options,
        teacher=word,
        samples=row.samples,
        sample_seed=head.sample_seed,
        reference_rows=head.reference_rows,
        **{name: getattr(row, name) for name in (*setting.WORDS, "preset")},
        nfe=tuple(row.nfe),
    )


def look_up(found: Sequence[Task], store: Store | None, force: bool, setup: Setup) -> None:
    """Fill in what is stored already, who waits for whom, and what it will take."""
    by_key = {task.key: task for task in reversed(found)}
    names = {task.cell.dataset for task in found}
    tried = [t for name in names for t in store.tried(name)] if store else []
    measured = [m for name in names for m in store.measured(name)] if store else []
    last = {attempt.run: attempt for attempt in tried}
    for task in found:
        task.expected = runner.expected(task.plan, setup)
        task.missing = missing(task, None if force else store, setup)
        attempt = last.get(task.plan.spec.name)
        if not task.missing and attempt is not None and attempt.outcome == "diverged":
            task.trouble = f"{attempt.error} (--force tries anew)"
        needed = list(task.needed())
        task.teachers = [by_key[p.spec.key] for p in needed if p.spec.key in by_key]
        task.shared = {_trained(p).spec.name for p in needed if not _is_made(p, setup)}
        task.shared -= {_trained(teacher.plan).spec.name for teacher in task.teachers}
    _estimate(found, History(measured, tried), force, setup)


def missing(task: Task, store: Store | None, setup: Setup) -> int:
    """How many scores of a task the store lacks; without one, that is all of them."""
    return len(runner.missing(store, task.plan, setup, task.expected))


def _trained(plan: Plan) -> Plan:
    """The run that trains the plan's network: itself, unless it only samples in another way."""
    return plan.trained or plan


def _is_made(plan: Plan, setup: Setup) -> bool:
    """Whether the network is there, so that who needs it only has to read it."""
    file = _trained(plan).folder(setup) / "network.safetensors"
    return plan.weights is not None or file.exists()


def _estimate(found: Sequence[Task], history: History, force: bool, setup: Setup) -> None:
    """Set `seconds` from history, else from the file; a shared network counts once."""
    counted: set[str] = set()
    for task in found:
        if not task.missing:
            task.seconds = 0.0
            continue
        training = history.training(task.plan.spec)
        if training is None:
            task.seconds = task.cell.row.seconds
            continue
        own = _trained(task.plan).spec.name
        trains = force or not (own in counted or _is_made(task.plan, setup))
        task.seconds = history.examining(task.plan.spec) + training * trains
        for above in task.ancestors():
            if above.spec.name in task.shared - counted:
                task.seconds += history.training(above.spec) or 0.0
        counted |= {own, *task.shared}


def priorities(found: Sequence[Task]) -> dict[str, float]:
    """By key: seconds from the start of a task to the end of the last that waits for it.

    Those that come first in this order keep the whole as short as it can be; a teacher always
    ranks above its students.
    """
    students: dict[str, list[Task]] = defaultdict(list)
    for task in found:
        for teacher in task.teachers:
            students[teacher.key].append(task)
    known: dict[str, float] = {}

    def rank(task: Task) -> float:
        if task.key not in known:
            own = UNKNOWN if task.seconds is None else max(task.seconds, 1e-3)
            known[task.key] = own + max(map(rank, students[task.key]), default=0.0)
        return known[task.key]

    return {task.key: rank(task) for task in found}


def span(found: Sequence[Task], jobs: int, left: Callable[[Task], float] | None = None) -> float:
    """Seconds until all has ended with so many jobs; `left` says what each task still takes.

    By default that is its estimate, and nothing where there is none.
    """
    left = left or (lambda task: task.seconds or 0.0)
    rank, now = priorities(found), 0.0
    waiting = sorted(found, key=lambda task: -rank[task.key])
    running: list[tuple[float, int, Task]] = []  # when it ends, and a number that breaks ties
    while waiting or running:
        open_ones = {id(task) for task in (*waiting, *(task for _, _, task in running))}
        for task in list(waiting):
            ready = not any(id(teacher) in open_ones for teacher in task.teachers)
            if ready and len(running) < jobs:
                waiting.remove(task)
                heapq.heappush(running, (now + left(task), id(task), task))
        now, _, _ = heapq.heappop(running)
    return now
