"""Find plugins without importing more than was asked for, and give each run its own manager."""

import ast
import dataclasses
import difflib
import hashlib
import importlib.util
import inspect
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from flowbench import hookspecs
from flowbench.records import Dataset, FlowbenchError, Metric

METHODS = "flowbench.methods"
EXTENSIONS = "flowbench.extensions"


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a method: its field, with the comment behind it as help."""

    name: str
    type: str
    default: Any
    help: str


@dataclasses.dataclass(frozen=True)
class Failure:
    """A plugin that cannot be used, and why."""

    name: str
    group: str
    distribution: str
    why: str


def methods() -> dict[str, EntryPoint]:
    """Every installed method by name, without importing any.

    Raises FlowbenchError where two distributions claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=METHODS):
        other = found.setdefault(point.name, point)
        if origin(other) != origin(point) or other.value != point.value:
            both = f"{origin(other)} and {origin(point)}"
            raise FlowbenchError(f"two methods are called {point.name}: in {both}; remove one")
    return dict(sorted(found.items()))


def origin(point: EntryPoint) -> str:
    """The distribution and version that an entry point came from, such as `flowbench 0.1.0`."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"


def choose(kind: str, name: str, names: Iterable[str]) -> str:
    """`name` if it is one of `names`; raises FlowbenchError with the nearest or all of them."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise FlowbenchError(f"no {kind} {name!r}: {hint}")


def method_class(name: str) -> type:
    """The class of the method called `name`; raises FlowbenchError if it cannot be imported."""
    point = methods()[choose("method", name, methods())]
    try:
        cls = point.load()
    except Exception as error:
        raise FlowbenchError(
            f"method {name} from {origin(point)} cannot be imported:"
            f" {type(error).__name__}: {error}"
        ) from error
    if not (inspect.isclass(cls) and dataclasses.is_dataclass(cls)):
        raise FlowbenchError(f"method {name} from {origin(point)} is not a frozen dataclass")
    return cls


def method(name: str, words: Mapping[str, Any]) -> Any:
    """An instance of the method `name`; `words` are its options, typed by a user or values."""
    cls = method_class(name)
    types = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    options = {
        choose(f"option of {name} called", option, fields): _value(
            name, option, types[option], word
        )
        for option, word in words.items()
    }
    return cls(**options)


def _value(method: str, option: str, type_: Any, word: Any) -> Any:
    """`word` as the type of the option; raises FlowbenchError in one line."""
    from pydantic import TypeAdapter, ValidationError

    arguments = typing.get_args(type_)
    if isinstance(word, str) and word.lower() == "none" and type(None) in arguments:
        return None
    if isinstance(word, str) and typing.get_origin(type_) in (tuple, list):
        word = [part for part in word.split(",") if part]
    try:
        value = TypeAdapter(type_).validate_python(word)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise FlowbenchError(
            f"option {option} of {method} takes {type_name(type_)}, not {word!r}: {problem}"
        ) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise FlowbenchError(f"option {option} of {method} must be finite, not {word}")
    return value


def type_name(type_: Any) -> str:
    """A type as a user reads it: `float`, `int or none`, `auto | heun | euler`."""
    arguments = typing.get_args(type_)
    if typing.get_origin(type_) is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if typing.get_origin(type_) in (tuple, list):
        return f"{type_name(arguments[0])}s with commas"
    if type(None) in arguments:
        return " or ".join(type_name(argument) for argument in arguments)
    return "none" if type_ is type(None) else getattr(type_, "__name__", str(type_))


def options(cls: type) -> list[Option]:
    """The options of a method class, each with its type, default and the comment on its line."""
    types, comments = typing.get_type_hints(cls), dict(_comments(cls))
    return [
        Option(
            field.name, type_name(types[field.name]), field.default, comments.get(field.name, "")
        )
        for field in dataclasses.fields(cls)
    ]


def _comments(cls: type) -> Iterator[tuple[str, str]]:
    for base in reversed(cls.__mro__[:-1]):
        lines, _ = inspect.getsourcelines(base)
        for line in lines:
            name, _, comment = line.partition("#")
            if comment and ":" in name:
                yield name.split(":")[0].strip(), comment.strip()


def summary(point: EntryPoint) -> str:
    """The first line of a method's docstring, read from its source without importing it."""
    try:
        tree = ast.parse(_source(point.module).read_text(encoding="utf-8"))
    except (ImportError, OSError, SyntaxError, ValueError) as error:
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
    """Every extension module that can be imported, and those that cannot."""
    found, failures = [], []
    for point in sorted(entry_points(group=EXTENSIONS), key=lambda point: point.name):
        try:
            module = point.load()
            manager(module)
            found.append(module)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            failures.append(Failure(point.name, EXTENSIONS, origin(point), why))
    return list({module.__name__: module for module in found}.values()), failures


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
    lists = manager(*extensions()[0]).hook.datasets()
    return {dataset.name: dataset for part in reversed(lists) for dataset in part}


def metrics() -> list[Metric]:
    """Every metric; a later one of the same name is left out."""
    lists = manager(*extensions()[0]).hook.metrics()
    return list({metric.name: metric for part in lists for metric in reversed(part)}.values())[::-1]


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
