"""The three doors: installed packages, loose files, folders of files."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from flowbench.discovery import reading, settings
from flowbench.discovery.plugin import Kind, Plugin

METHODS, OBSERVERS = "flowbench.methods", "flowbench.observers"
EXTENSIONS = "flowbench.extensions"
GROUPS: dict[str, Kind] = {METHODS: "method", OBSERVERS: "observer", EXTENSIONS: "extension"}


def everything(kind: Kind | None = None) -> list[Plugin]:
    """Every plugin of every door, those of flowbench first; disabled ones are marked.

    Raises FlowbenchError for a door that does not exist.
    """
    wanted = settings.wanted()
    found = [plugin for group, of in GROUPS.items() if kind in (None, of) for plugin in _in(group)]
    for word, path in wanted.paths:
        found += [plugin for plugin in _at(word, path) if kind in (None, plugin.kind)]
    return [_marked(plugin, wanted.disabled) for plugin in _once(found)]


def _once(found: Iterable[Plugin]) -> list[Plugin]:
    """Each plugin once: an editable install and its checkout may both be on the path."""
    unique = {(p.kind, p.name, p.module, p.attribute, p.origin): p for p in found}
    return sorted(unique.values(), key=lambda plugin: (plugin.loose, plugin.name))


def _marked(plugin: Plugin, disabled: frozenset[str]) -> Plugin:
    """The plugin, disabled where its name or address is left out."""
    return replace(plugin, disabled=bool({plugin.name, plugin.address} & disabled))


def _in(group: str) -> tuple[Plugin, ...]:
    """What is installed; looked for once, as long as the path stays as it is."""
    return _found(group, tuple(sys.path), entry_points)


@cache
def _found(group: str, path: tuple[str, ...], find: Callable[..., Any]) -> tuple[Plugin, ...]:
    return tuple(_installed(point, GROUPS[group]) for point in find(group=group))


def _installed(point: EntryPoint, kind: Kind) -> Plugin:
    found = Plugin(
        point.name,
        kind,
        point.module,
        point.attr or "",
        distribution=point.dist.name if point.dist else "unknown",
        version=point.dist.version if point.dist else "",
        path=reading.locate(point.module),
    )
    if found.path is None:
        return replace(found, problem=f"there is no module {point.module}")
    try:
        tree = reading.parse(found.path)
    except (SyntaxError, ValueError, OSError) as error:
        return replace(found, problem=_problem(error))
    said = reading.find_class(tree, point.attr) if point.attr else reading.module(tree)
    return replace(found, hooks=said.hooks, needs=said.needs, summary=said.summary)


def from_file(path: Path) -> list[Plugin]:
    """What a loose file or a folder of files holds."""
    return list(_at(str(path), path.resolve()))


def _at(word: str, path: Path) -> Iterator[Plugin]:
    if path.is_file():
        yield from _loose(word, path, None)
        return
    for file in sorted(path.glob("*.py")):
        if not file.name.startswith("_"):
            yield from _loose(str(Path(word, file.name)), file, path)


def _loose(word: str, path: Path, folder: Path | None) -> Iterator[Plugin]:
    """The classes of a file, and its hooks at module level as an extension."""
    base = Plugin(
        path.stem.replace("_", "-"),
        "extension",
        _module_name(path, folder),
        distribution=word,
        path=path,
        folder=folder,
        loose=True,
    )
    try:
        tree = reading.parse(path)
    except (SyntaxError, ValueError, OSError) as error:
        yield replace(base, problem=_problem(error))
        return
    for said in reading.classes(tree):
        yield _with(base, said, said.name)
    own = reading.module(tree)
    if own.hooks is None or own.hooks:
        yield _with(base, own)


def _kind(hooks: frozenset[str]) -> Kind:
    """What a class with these hooks is: a method, or one that only looks on."""
    return "observer" if "observe" in hooks and "train" not in hooks else "method"


def _with(base: Plugin, said: reading.Described, name: str = "") -> Plugin:
    """The plugin with what its source says; a class without hooks of its own inherits them."""
    hooks = said.hooks or None if said.attribute else said.hooks
    return replace(
        base,
        name=name or base.name,
        kind=_kind(said.hooks or frozenset()) if said.attribute else base.kind,
        attribute=said.attribute,
        hooks=hooks,
        needs=said.needs,
        summary=said.summary,
    )


def _module_name(path: Path, folder: Path | None) -> str:
    """A name that no other file has, so that two of one stem do not meet."""
    digest = hashlib.sha256(str(folder or path).encode()).hexdigest()[:12]
    return f"flowbench_folder_{digest}.{path.stem}" if folder else f"flowbench_file_{digest}"


def _problem(error: Exception) -> str:
    """Why a source cannot be read, in one line."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    return f"{type(error).__name__}: {error}"
