"""What a source says of itself without being run: its classes, hooks, needs and docstrings."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flowbench import hookspecs

OF_METHODS = {"train", "sample", "velocity", "measure"}
HOOKS = frozenset(name for name, hook in vars(hookspecs).items() if hasattr(hook, "flowbench_spec"))


@dataclass(frozen=True)
class Described:
    """A class with hooks, or the hooks of a module, as the source has them."""

    name: str  # as a user types it
    attribute: str
    hooks: frozenset[str] | None
    needs: tuple[str, ...] = ()
    summary: str = ""


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file; raises SyntaxError, ValueError or OSError."""
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def locate(module: str) -> Path | None:
    """The file of an installed module, or None; no package around it is imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.has_location else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *rest)
        for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None


def classes(tree: ast.Module) -> list[Described]:
    """Every public dataclass that implements hooks, or that names itself and inherits them.

    A class with a name in a file that adds networks is taken for the settings of one.
    """
    found, networks = [], "networks" in _implemented(tree.body)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and _is_data(node):
            named = _constant(node.body, "name")
            hooks = frozenset(_implemented(node.body))
            if hooks or (isinstance(named, str) and node.bases and not networks):
                found.append(_described(tree, node, named if isinstance(named, str) else "", hooks))
    return found


def find_class(tree: ast.Module, attribute: str) -> Described:
    """What is said of one class; nothing of one that is not defined there."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return _described(tree, node, "", frozenset(_implemented(node.body)))
    return Described("", attribute, None, _needs(tree.body))


def _described(tree: ast.Module, node: ast.ClassDef, name: str, hooks: frozenset[str]) -> Described:
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    needs = (*_needs(tree.body), *_needs(node.body))
    return Described(name or kebab(node.name), node.name, hooks, needs, summary)


def module(tree: ast.Module) -> Described:
    """The hooks of a module: what it defines or imports; None where a star may bring more."""
    names = set(_implemented(tree.body))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                return Described("", "", None, _needs(tree.body))
            names |= {alias.asname or alias.name for alias in node.names} & HOOKS
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)} & HOOKS
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Described("", "", frozenset(names), _needs(tree.body), summary)


def kebab(name: str) -> str:
    """A class's name as a user types it: MeanFlow is mean-flow, CTM2 is ctm2."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name)
    return parted.replace("_", "-").lower()


def _implemented(body: list[ast.stmt]) -> Iterator[str]:
    """The functions that are marked as implementations of hooks."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and any(map(_is_mark, node.decorator_list)):
            yield node.name


def _is_mark(node: ast.expr) -> bool:
    return _last(node) == "hookimpl"


def _is_data(node: ast.ClassDef) -> bool:
    return any(_last(decorator) == "dataclass" for decorator in node.decorator_list)


def _last(node: ast.expr) -> str:
    """The last name of a decorator: `dataclasses.dataclass(frozen=True)` is dataclass."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _needs(body: list[ast.stmt]) -> tuple[str, ...]:
    """The requirements that a module (NEEDS) or a class (needs) declares."""
    found = _constant(body, "NEEDS") or _constant(body, "needs")
    words = found if isinstance(found, tuple | list) else [found]
    return tuple(word for word in words if isinstance(word, str))


def _constant(body: list[ast.stmt], name: str) -> object:
    """The literal that a name is bound to, or None."""
    for node in body:
        if isinstance(node, ast.AnnAssign):
            target: ast.expr = node.target
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
        else:
            continue
        if isinstance(target, ast.Name) and target.id == name and node.value is not None:
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                return None
    return None
