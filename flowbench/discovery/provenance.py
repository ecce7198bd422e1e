"""Which code a result was made with: the hash over a plugin's source, its version, its commit."""

import ast
import hashlib
import inspect
from pathlib import Path
from types import ModuleType

from flowbench import git
from flowbench.discovery.plugin import Plugin

OWN = "flowbench_plugins"  # the methods that come with flowbench: one file each


def code_hash(plugin: type | ModuleType) -> str:
    """SHA-256 over the code of a class or module, comments and docstrings left out.

    That is its module; for a module inside a package, all files of the package, except that the
    methods which come with flowbench are one file each.
    """
    hasher = hashlib.sha256()
    place = root(plugin)
    for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
        hasher.update(_bare(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return hasher.hexdigest()


def root(plugin: type | ModuleType) -> Path:
    """The file that defines a class or module, or the folder of its package; ours are alone."""
    path = Path(inspect.getfile(plugin))
    module = plugin.__name__ if isinstance(plugin, ModuleType) else plugin.__module__
    package, *inner = module.split(".")
    if package == OWN or (not inner and path.name != "__init__.py"):
        return path
    above = len(inner) if path.name == "__init__.py" else max(0, len(inner) - 1)
    return path.parents[above]


def _bare(tree: ast.Module) -> str:
    """The syntax tree as text, without docstrings (comments are never in it)."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Expr(ast.Constant(""))
    return ast.dump(tree)


def version(plugin: Plugin) -> str:
    """The origin of a plugin, with the commit of its own repository, if it has one.

    That of flowbench's own methods stands in the environment of each attempt.
    """
    if plugin.path is None or plugin.distribution == "flowbench":
        return plugin.origin
    commit = git.state(plugin.path)
    return f"{plugin.origin}, git {commit}" if commit else plugin.origin
