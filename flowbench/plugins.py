"""Find plugins without importing more than was asked for, and give each run its own manager."""

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from flowbench import hookspecs, options
from flowbench.entries import Dataset, Metric
from flowbench.records import FlowbenchError

METHODS = "flowbench.methods"
EXTENSIONS = "flowbench.extensions"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A plugin that cannot be used, and why."""

    name: str
    group: str
    distribution: str
    why: str


def methods() -> dict[str, EntryPoint]:
    """Every installed method by name, without importing any; the first of two that share one."""
    return {name: points[0] for name, points in sorted(_claims().items())}


def clashes() -> list[Failure]:
    """The names that several distributions claim, with all of them."""
    return [
        Failure(name, METHODS, _origins(points), "several claim this name")
        for name, points in _claims().items()
        if len(points) > 1
    ]


def _claims() -> dict[str, list[EntryPoint]]:
    """Entry points by method name; one that is found twice in the same place counts once."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=METHODS):
        points = found.setdefault(point.name, [])
        if (origin(point), point.value) not in [(origin(p), p.value) for p in points]:
            points.append(point)
    return found


def origin(point: EntryPoint) -> str:
    """The distribution and version that an entry point came from, such as `flowbench 0.1.0`."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"


def _origins(points: list[EntryPoint]) -> str:
    return " and ".join(map(origin, points))


def method_class(name: str) -> type:
    """The class of the method called `name`.

    Raises FlowbenchError if it cannot be imported, or if two distributions have one of that name.
    """
    claims = _claims()
    point, *others = claims[options.choose("method", name, sorted(claims))]
    if others:
        both = _origins([point, *others])
        raise FlowbenchError(f"two methods are called {name}: in {both}; remove one")
    try:
        cls = point.load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FlowbenchError(
            f"method {name} from {origin(point)} cannot be imported: {reason}"
        ) from error
    if not (inspect.isclass(cls) and dataclasses.is_dataclass(cls)):
        raise FlowbenchError(f"method {name} from {origin(point)} is not a frozen dataclass")
    return cls


def method(name: str, words: Mapping[str, Any]) -> Any:
    """An instance of the method `name`; `words` are its options, typed by a user or values."""
    cls = method_class(name)
    chosen = options.parse(name, cls, words)
    try:
        return cls(**chosen)
    except (ValueError, TypeError) as error:
        raise FlowbenchError(f"{name} does not take these options: {error}") from error


def summary(point: EntryPoint) -> str:
    """The first line of a method's docstring, read from its source without importing it."""
    try:
        tree = ast.parse(_source(point.module).read_text(encoding="utf-8"))
    except (Exception, SystemExit) as error:  # the package around the module is imported
        return f"(cannot be read: {error})"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"no module {module}")
    return Path(spec.origin)


def description(cls: type) -> str:
    """The docstring of a method class, without its indentation."""
    return inspect.cleandoc(cls.__doc__ or "(no description)")


def source(cls: type) -> str:
    """Where a method comes from: the docstring of its module, which cites the paper."""
    return inspect.getdoc(inspect.getmodule(cls)) or ""


def code_hash(cls: type) -> str:
    """SHA-256 over the code of a method, comments and docstrings left out.

    That is its module; for a module inside a package, all of the package, except that the
    methods which come with flowbench are one file each.
    """
    path = Path(inspect.getfile(cls))
    package = cls.__module__.partition(".")[0]
    alone = "." not in cls.__module__ or package == "flowbench_plugins"
    files = [path] if alone else sorted(path.parent.rglob("*.py"))
    hasher = hashlib.sha256()
    for file in files:
        hasher.update(_bare(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return hasher.hexdigest()


def _bare(tree: ast.Module) -> str:
    """The syntax tree as text, without docstrings (comments are never in it)."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Expr(ast.Constant(""))
    return ast.dump(tree)


def extensions() -> tuple[list[ModuleType], list[Failure]]:
    """Every extension module that can be used, and those that cannot."""
    found, failures = [], []
    for point in sorted(entry_points(group=EXTENSIONS), key=lambda point: point.name):
        try:
            module = point.load()
            _check(module)
            found.append(module)
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}"
            failures.append(Failure(point.name, EXTENSIONS, origin(point), why))
    return list({module.__name__: module for module in found}.values()), failures


def _check(module: ModuleType) -> None:
    """Raise unless the module's hooks exist and its catalogues hold what they should."""
    hook = manager(module).hook
    for entries, kind in ((hook.datasets(), Dataset), (hook.metrics(), Metric)):
        for entry in (entry for part in entries for entry in part):
            if not isinstance(entry, kind):
                raise TypeError(f"{entry!r} is no {kind.__name__}")


def broken_methods() -> list[Failure]:
    """The methods that cannot be imported."""
    failures = []
    for name, point in methods().items():
        try:
            method_class(name)
        except FlowbenchError as error:
            failures.append(Failure(name, METHODS, origin(point), str(error)))
    return failures


def datasets() -> dict[str, Dataset]:
    """Every data set by name, in the order of the catalogue."""
    return _by_name(manager(*extensions()[0]).hook.datasets())


def metrics() -> list[Metric]:
    """Every metric, in the order of the catalogue."""
    return list(_by_name(manager(*extensions()[0]).hook.metrics()).values())


def _by_name(lists: list[list[Any]]) -> dict[str, Any]:
    """Entries by name, the first registered of equals; pluggy lists the last registered first."""
    found: dict[str, Any] = {}
    for part in reversed(lists):
        for entry in part:
            found.setdefault(entry.name, entry)
    return found


def manager(*plugins: Any) -> pluggy.PluginManager:
    """A fresh manager; of two wrappers that want to be first, the later is outermost.

    Raises pluggy's PluginValidationError for an unknown hook or argument.
    """
    pm = pluggy.PluginManager("flowbench")
    pm.add_hookspecs(hookspecs)
    for plugin in plugins:
        pm.register(plugin)
    pm.check_pending()
    return pm
