"""The source of a method under a new name: its class, its own name, and imports that still work."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from flowbench.records import FlowbenchError

NAMED = ("teacher", "name")  # attributes whose value may be the method's own name


class Edit(NamedTuple):
    """Bytes `begin` to `end` of a line, counted from 1, and what takes their place."""

    line: int
    begin: int
    end: int
    text: str


def renamed(source: str, old: tuple[str, str], new: tuple[str, str], package: str) -> str:
    """The source of the method `old` (name, class) as that of `new`; comments stay.

    `package` is where its relative imports start. Raises FlowbenchError where the class is not
    written in this source, or where it binds the new name already.
    """
    tree = ast.parse(source)
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if old[1] not in classes:
        raise FlowbenchError(
            f"the class {old[1]} of {old[0]} is not written in its module: copy its file by hand"
        )
    if new[1] != old[1] and new[1] in set(_bound(tree)):
        raise FlowbenchError(
            f"the source of {old[0]} has a {new[1]} already: take another name than {new[0]}"
        )
    lines = source.encode().splitlines(keepends=True)
    edits = [*_classes(tree, lines, old[1], new[1]), *_own_names(tree, old[0], new[0])]
    if not package and any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree)):
        raise FlowbenchError(f"{old[0]} imports files beside it: install it as a package first")
    edits += _absolute(tree, lines, package)
    for edit in sorted(set(edits), reverse=True):
        line = lines[edit.line - 1]
        lines[edit.line - 1] = line[: edit.begin] + edit.text.encode() + line[edit.end :]
    return b"".join(lines).decode()


def _bound(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines, imports or uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name):
            yield node.id


def _classes(tree: ast.Module, lines: list[bytes], old: str, new: str) -> Iterator[Edit]:
    """Where the class is defined, used, and named in annotations that are strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == old:
            match = re.match(rb"\s*class\s+", lines[node.lineno - 1])
            assert match is not None
            yield Edit(node.lineno, match.end(), match.end() + len(old.encode()), new)
        elif isinstance(node, ast.Name) and node.id == old:
            yield _edit(node, new)
        for annotation in _annotations(node):
            if isinstance(annotation, ast.Constant) and annotation.value == old:
                yield _edit(annotation, f'"{new}"')


def _annotations(node: ast.AST) -> Iterator[ast.expr | None]:
    """What stands behind a colon or an arrow."""
    if isinstance(node, ast.FunctionDef):
        yield node.returns
    elif isinstance(node, ast.AnnAssign | ast.arg):
        yield node.annotation


def _own_names(tree: ast.Module, old: str, new: str) -> Iterator[Edit]:
    """The method's name where it says what it is called, or that it is its own teacher."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
        else:
            names = {node.name} if isinstance(node, ast.FunctionDef) else set()
        if names & set(NAMED):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and part.value == old:
                    yield _edit(part, f'"{new}"')


def _absolute(tree: ast.Module, lines: list[bytes], package: str) -> Iterator[Edit]:
    """Relative imports, from the package that they were written in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1]
            module = ".".join([*above, *filter(None, [node.module])])
            head = rb"\s*from\s*[.]+" + rb"\s*[\w.]+" * bool(node.module)
            match = re.match(head, lines[node.lineno - 1])
            assert match is not None
            yield Edit(node.lineno, node.col_offset, match.end(), f"from {module}")


def _edit(node: ast.expr, text: str) -> Edit:
    """An expression in one line, in other words."""
    return Edit(node.lineno, node.col_offset, node.end_col_offset or node.col_offset, text)
