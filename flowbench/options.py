"""The options of a method: the fields of its dataclass, described, and read from a user's words."""

import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from flowbench.records import FlowbenchError

# What names that all methods share mean: numbers from the first and below the second.
BOUNDS = {
    "width": (1, math.inf),
    "lr": (0, math.inf),
    "ema": (0, 1),
    "pairs": (1, math.inf),
    "pair_steps": (1, math.inf),
}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a method: its field, with the comment behind it as help."""

    name: str
    type: str
    default: Any
    help: str


def choose(kind: str, name: str, names: Iterable[str]) -> str:
    """`name` if it is one of `names`; raises FlowbenchError with the nearest or all of them."""
    names = list(names)
    if name in names:
        return name
    raise FlowbenchError(f"no {kind} {name!r}: {hint(name, names)}")


def hint(name: str, names: Iterable[str]) -> str:
    """What was perhaps meant by `name`, or all `names`."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    near = near or [other for other in names if other.lower() == name.lower()]
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"


def parse(method: str, cls: type, words: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the fields of `cls`; raises FlowbenchError for a wrong name or type."""
    types = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    values = {}
    for word, value in words.items():
        option = choose(f"option of {method} called", word, fields)
        values[option] = _value(method, option, types[option], value)
    return values


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
    parts = value if isinstance(value, tuple | list) else [value]
    if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
        raise FlowbenchError(f"option {option} of {method} must be finite, not {word}")
    least, below = BOUNDS.get(option, (-math.inf, math.inf))
    if isinstance(value, int | float) and not least <= value < below:
        most = "" if below == math.inf else f" and below {below:g}"
        words = f"takes numbers from {least:g}{most}, not {word}"
        raise FlowbenchError(f"option {option} of {method} {words}")
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


def values(method: Any) -> dict[str, Any]:
    """The options of an instance as JSON knows them: tuples become lists, paths strings."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(dataclasses.asdict(method))


def parse_word(kind: str, word: str, classes: Mapping[str, type]) -> Any:
    """An instance from a word: "ddpmpp", or "adm,channels=64,mult=1-2" with what differs.

    `classes` are dataclasses by name. Raises FlowbenchError for a name or value that is not there.
    """
    name, *parts = word.split(",")
    cls = classes[choose(kind, name, classes)]
    types, words = typing.get_type_hints(cls), {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals:
            raise FlowbenchError(
                f"{kind} {word}: write NAME=VALUE instead of {part!r}, and a list as 1-2-2"
            )
        several = typing.get_origin(types.get(option)) is tuple
        words[option] = [n for n in value.split("-") if n] if several else value
    return cls(**parse(f"{kind} {name}", cls, words))


def to_word(instance: Any) -> str:
    """The shortest word that `parse_word` reads as this instance, which has a `name`."""
    parts = [instance.name]
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if value != field.default:
            text = "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
            parts.append(f"{field.name}={text}")
    return ",".join(parts)


def describe(cls: type) -> list[Option]:
    """The options of a method class, each with its type, default and the comment on its line."""
    types, comments = typing.get_type_hints(cls), dict(_comments(cls))
    return [
        Option(
            field.name, type_name(types[field.name]), field.default, comments.get(field.name, "")
        )
        for field in dataclasses.fields(cls)
    ]


def _comments(cls: type) -> Iterator[tuple[str, str]]:
    """(field, comment on its line) for the fields in the class's own source and its bases'."""
    for base in reversed(cls.__mro__[:-1]):
        source = textwrap.dedent(inspect.getsource(base))
        lines = source.encode().splitlines()
        for node in getattr(ast.parse(source).body[0], "body", []):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                rest = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :]
                yield node.target.id, rest.decode().partition("#")[2].strip()
