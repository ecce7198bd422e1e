"""Checks of what a method says of itself before anything is trained: group A."""

import dataclasses
import importlib
import inspect
import json
import re
import sys
import typing
from typing import Any

from flowbench import options, plugins
from flowbench.discovery import Broken, Plugin, hooks, needs
from flowbench.records import FlowbenchError
from flowbench.testing.check import Check, Found, Skipped, Warned, require
from flowbench.testing.subject import Subject

SOURCE = re.compile(r"\b(1[89]|20)\d\d\b|arxiv|doi|https?://", re.IGNORECASE)


def imported(subject: Subject) -> None:
    """The class is there, can be found again by its name, and its source can be read."""
    try:
        cls = subject.cls
    except Broken as error:
        if error.state == "unavailable":
            raise Skipped("what it needs is not here: see A08") from error
        raise
    require(inspect.isclass(cls), f"{subject.name} is {type(cls).__name__}, not a class")
    module = sys.modules.get(cls.__module__) or importlib.import_module(cls.__module__)
    require("<locals>" not in cls.__qualname__, f"{cls.__name__} is made inside a function")
    try:
        plugins.code_hash(cls)
    except (OSError, TypeError, SyntaxError) as error:
        raise Found(f"the source of {module.__name__} cannot be read: {error}") from error


def dataclass(subject: Subject) -> None:
    """A frozen dataclass, whose defaults are an instance."""
    cls = subject.cls
    require(dataclasses.is_dataclass(cls), f"{cls.__name__} is no dataclass")
    frozen = cls.__dataclass_params__.frozen
    require(frozen, f"options of {cls.__name__} can be changed after it is made")
    try:
        cls()
    except Exception as error:
        raise Found(f"its defaults make no instance: {_words(error)}") from error
    try:
        _ = subject.method
    except FlowbenchError as error:
        raise Found(str(error)) from error


def hooked(subject: Subject) -> None:
    """It has train and sample, and all its hooks exist and name known arguments."""
    wrong = hooks.mistake(subject.cls) or hooks.lacking(subject.cls)
    require(wrong is None, str(wrong))


def typed(subject: Subject) -> None:
    """Every option has a type, and comes back the same from JSON and from a user's words."""
    types = typing.get_type_hints(subject.cls)
    for method in (subject.cls(), subject.method):
        texts = json.loads(json.dumps(options.values(method)))
        written = {name: _written(value) for name, value in texts.items()}
        for form, words in (("JSON", texts), ("words", written)):
            for field in dataclasses.fields(method):
                value, word = getattr(method, field.name), words[field.name]
                try:
                    read = options.parse(subject.name, subject.cls, {field.name: word})[field.name]
                except FlowbenchError as error:
                    raise Found(f"its own value is not read back from {form}: {error}") from error
                same = read == value and type(read) is type(value)
                kind = options.type_name(types[field.name])
                require(same, f"{field.name}: {kind} is {value!r}, but {read!r} from {form}")


def _written(value: Any) -> str:
    """A value of JSON as a user types it."""
    if isinstance(value, list):
        return ",".join(map(_written, value))
    return "none" if value is None else str(value)


def described(subject: Subject) -> None:
    """Its class and its module have docstrings of their own."""
    written = vars(subject.cls).get("__doc__") or ""
    automatic = written.startswith(f"{subject.cls.__name__}(")
    require(bool(written.strip()) and not automatic, "its class has no docstring")
    require(bool(plugins.source(subject.cls).strip()), "its module has no docstring")


def sourced(subject: Subject) -> None:
    """The module says where the method comes from, and each option what it does."""
    without = [option.name for option in options.describe(subject.cls) if not option.help]
    if without:
        raise Warned(f"no comment behind {', '.join(without)}")
    if not SOURCE.search(plugins.source(subject.cls)):
        raise Warned("its module's docstring names no paper: no year, arXiv number or address")


def unique(subject: Subject) -> None:
    """No other plugin has its name."""
    cls = subject.cls
    own = [p for p in plugins.methods().values() if _is(p, cls)]
    name = own[0].name if own else subject.name
    others = [p for p in plugins.claimed("method").get(name, []) if not _is(p, cls)]
    origins = " and ".join(plugin.origin for plugin in others)
    require(not others, f"the name {name} is claimed by {origins} too")


def _is(plugin: Plugin, cls: Any) -> bool:
    return (plugin.module, plugin.attribute) == (cls.__module__, cls.__qualname__)


def needed(subject: Subject) -> None:
    """What it declares to need is installed, and its teacher is there."""
    try:
        cls = subject.cls
    except Broken as error:
        if error.state != "unavailable":
            raise Skipped("A01 did not pass") from error
        raise Found(str(error)) from error
    said: list[str] = []
    for found in (getattr(cls, "needs", ()), getattr(inspect.getmodule(cls), "NEEDS", ())):
        said += [found] if isinstance(found, str) else [*found]
    unmet = needs.missing(said)
    require(not unmet, f"not here, or of another version: {', '.join(unmet)}")
    try:
        _ = subject.teacher_method
    except FlowbenchError as error:
        raise Found(f"its teacher: {error}") from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


READY = ("A01", "A02", "A03", "A08")  # what everything that is trained stands on
CHECKS = (
    Check(
        *("A01", "import", "its module can be imported and its source read"),
        "mend the import; define the class at the top level of a file",
        imported,
    ),
    Check(
        *("A02", "dataclass", "it is a frozen dataclass with defaults"),
        "write @dataclass(frozen=True) above it, and give each option a default that works",
        dataclass,
        after=("A01",),
    ),
    Check(
        *("A03", "hooks", "it has train and sample, and its hooks are known"),
        "write @hookimpl above train and sample; take names from flowbench/hookspecs.py",
        hooked,
        after=("A01",),
    ),
    Check(
        *("A04", "options", "its options are typed and survive JSON and words"),
        "take bool, int, float, str, Literal, tuples of these, or one of them or None",
        typed,
        after=("A01", "A02"),
    ),
    Check(
        *("A05", "description", "its class and module have docstrings"),
        "say in the class what it does, and in the module what the method is",
        described,
        after=("A01",),
    ),
    Check(
        *("A06", "source", "the paper is named and each option commented"),
        "cite the paper in the module's docstring; write a comment on each option's line",
        sourced,
        after=("A01", "A02", "A05"),
    ),
    Check(
        *("A07", "name", "nobody else claims its name"),
        "choose another name, or leave one out with FLOWBENCH_DISABLED",
        unique,
        after=("A01",),
    ),
    Check(
        *("A08", "needs", "what it needs is installed"),
        "pip install what is missing, or correct the requirement",
        needed,
    ),
)
