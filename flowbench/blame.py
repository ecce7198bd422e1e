"""Where a run went wrong: the plugin's own line, in words for people."""

import linecache
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from flowbench import disk
from flowbench.discovery import everything, provenance
from flowbench.records import FlowbenchError, RunFailed, visible

OURS = Path(__file__).parent
CODE, MESSAGE = 80, 300  # characters of a line of code and of an error that are shown
NO_ROOM = ("can't allocate memory", "not enough memory", "out of memory")
Place = tuple[FrameType, int]  # a frame and the line that it has come to


def line(error: BaseException, method: Any) -> str:
    """`my_method.py:31 in train: x = a / 0: ZeroDivisionError: division by zero`, in one line.

    The place is the innermost in the file or package of `method`; where there is none, the
    innermost in another plugin or flowbench.
    """
    return ": ".join([*where(error, method), f"{type(error).__name__}: {message(error)}"])


def where(error: BaseException, method: Any) -> list[str]:
    """The place that `line` names and its code; nothing for an error that was never raised."""
    places = list(traceback.walk_tb(error.__traceback__))
    if not places:
        return []
    frame, number = places[position(error, method)]
    path = frame.f_code.co_filename
    code = _short(linecache.getline(path, number, frame.f_globals).strip(), CODE)
    name = f"{visible(Path(path).name)}:{number} in {frame.f_code.co_name}"
    return [name, *([code] if code else [])]


def position(error: BaseException, method: Any) -> int:
    """The place of the frame to blame among those of the traceback, counted from the outermost."""
    places = list(traceback.walk_tb(error.__traceback__))
    own, others = _within([provenance.root(type(method))]), _within([OURS, *_extensions()])
    for mine in (own, others):
        for index in reversed(range(len(places))):
            if mine(places[index]):
                return index
    return len(places) - 1


def depth(trace: TracebackType | None) -> int:
    """How many frames a traceback has."""
    return sum(1 for _ in traceback.walk_tb(trace))


def _within(roots: Iterable[Path]) -> Callable[[Place], bool]:
    """Whether a frame's code lies in one of these files or folders."""
    known = [root.resolve() for root in roots]

    def inside(place: Place) -> bool:
        path = Path(place[0].f_code.co_filename).resolve()
        return any(path.is_relative_to(root) for root in known)

    return inside


def _extensions() -> Iterator[Path]:
    """The files of plugins that are imported: an error is no time to import more."""
    with suppress(FlowbenchError):
        for plugin in everything():
            if plugin.path is not None and plugin.module in sys.modules:
                yield plugin.path


def message(error: BaseException) -> str:
    """What an error says, in one short line in which every character can be seen."""
    try:
        words = str(error)
    except Exception:  # of a stranger's class
        words = "(it cannot say what is wrong)"
    return _short(" ".join(words.split()), MESSAGE)


def _short(text: str, most: int) -> str:
    text = visible(text)
    return text if len(text) <= most else f"{text[:most]}..."


def is_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_ROOM)


@contextmanager
def memory(plan: Any) -> Iterator[None]:
    """Raises RunFailed with what to do, in the place of an error that memory or a disk ran out.

    `plan` is a `plans.Plan`.
    """
    try:
        yield
    except FlowbenchError:
        raise
    except Exception as error:
        if unwritten := disk.unwritten(error):
            raise unwritten from error
        if not is_memory(error):
            raise
        place = "".join(f"{word}: " for word in where(error, plan.method)[:1])
        words = message(error).partition(". ")[0] or type(error).__name__
        batch = plan.spec.budget.batch
        cure = f"give a smaller --batch than {batch}, or a smaller --network"
        raise RunFailed(f"out of memory: {place}{words}; {cure}") from error


def told(error: Exception, plan: Any, log: Path) -> str:
    """The error at hand in one line; of one that is not meant for users, the plugin's own line.

    The traceback of the latter goes to the file `log`.
    """
    if isinstance(error, FlowbenchError):
        return str(error)
    if unwritten := disk.unwritten(error):
        return str(unwritten)
    try:
        log.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError as trouble:
        return f"{line(error, plan.method)} (its traceback cannot be kept: {trouble})"
    return f"{line(error, plan.method)} (traceback in {log})"
