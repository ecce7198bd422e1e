"""Importing a plugin so that it cannot take flowbench down: limited in time, errors kept."""

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from flowbench.discovery import needs
from flowbench.discovery.plugin import Plugin
from flowbench.discovery.settings import FILE
from flowbench.records import FlowbenchError

SECONDS = "FLOWBENCH_PLUGIN_SECONDS"  # how long an import may take; 30 unless set, 0 for ever


class Broken(FlowbenchError):
    """A plugin that cannot be used; `trace` is its traceback, or nothing."""

    def __init__(self, message: str, trace: str = "", state: str = "broken"):
        super().__init__(message)
        self.trace, self.state = trace, state


class TooLong(BaseException):
    """Ends an import; no `except Exception` of a plugin catches it."""


def load(plugin: Plugin) -> Any:
    """The class or module of a plugin; raises Broken, in one line, where it cannot be used."""
    found = _outcome(plugin)
    if isinstance(found, Broken):
        raise found
    return found


@cache
def _outcome(plugin: Plugin) -> Any:
    """What the import came to, tried once in a process."""
    try:
        return _imported(plugin)
    except Broken as error:
        return error


def _imported(plugin: Plugin) -> Any:
    said = f"{plugin.kind} {plugin.name} from {plugin.origin}"
    if plugin.disabled:
        raise Broken(f"{said} is disabled by FLOWBENCH_DISABLED or {FILE}", "", "disabled")
    unmet = needs.missing(plugin.needs)
    if unmet:
        words = f"{said} needs what is not here: {needs.cure(unmet)}"
        raise Broken(words, "", "unavailable")
    if plugin.problem:
        raise Broken(f"{said} cannot be read: {plugin.problem}")
    try:
        with _limited(plugin), contextlib.redirect_stdout(sys.stderr):
            module = _module(plugin)
            return getattr(module, plugin.attribute) if plugin.attribute else module
    except TooLong as error:
        cure = f"set {SECONDS} to wait longer, or FLOWBENCH_DISABLED={plugin.name}"
        words = f"{said} took more than {_seconds():g} s to import: {cure}"
        raise Broken(words, traceback.format_exc()) from error
    except (Exception, SystemExit) as error:
        words = f"{said} cannot be imported: {_words(error, plugin)}"
        raise Broken(words, traceback.format_exc()) from error


def _words(error: BaseException, plugin: Plugin) -> str:
    """The error with the plugin's own line, and the cure of a missing package."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame, plugin)]
    place = f" ({Path(lines[-1].filename).name}:{lines[-1].lineno})" if lines else ""
    cure = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        cure = f": install what has {error.name.partition('.')[0]}, and name it in NEEDS"
    said = str(error).replace("\n", " ")
    return f"{type(error).__name__}: {said}{place}{cure}"


def _is_own(frame: traceback.FrameSummary, plugin: Plugin) -> bool:
    return plugin.path is not None and Path(frame.filename) == plugin.path


def _module(plugin: Plugin) -> ModuleType:
    if not plugin.loose:
        return importlib.import_module(plugin.module)
    assert plugin.path is not None
    if plugin.folder is not None:
        _package(plugin.module.partition(".")[0], plugin.folder)
        return importlib.import_module(plugin.module)
    return sys.modules.get(plugin.module) or _executed(plugin.module, plugin.path)


def _package(name: str, folder: Path) -> None:
    """Make a folder a package, so that its files may import each other: `from . import other`."""
    if name in sys.modules:
        return
    file = folder / "__init__.py"
    if file.is_file():
        _executed(name, file, [str(folder)])
        return
    module = ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def _executed(name: str, path: Path, folders: list[str] | None = None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _seconds() -> float:
    try:
        return float(os.environ.get(SECONDS, "30"))
    except ValueError:
        raise Broken(f"{SECONDS} takes a number of seconds, not {os.environ[SECONDS]!r}") from None


@contextlib.contextmanager
def _limited(plugin: Plugin) -> Iterator[None]:
    """Raise TooLong inside after so many seconds, where the system has such a clock.

    flowbench's own plugins end, and the first of them waits for torch.
    """

    def stop(number: int, frame: Any) -> None:
        raise TooLong

    limit = 0.0 if plugin.distribution == "flowbench" else _seconds()
    here = threading.current_thread() is threading.main_thread()
    if not limit or not here or not hasattr(signal, "setitimer") or signal.getitimer(0)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
