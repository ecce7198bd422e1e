"""Presets: a paper's settings in a TOML file beside the method's module, each with its source."""

import inspect
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowbench import options, plugins, toml_files
from flowbench.plans import Request
from flowbench.records import ADAPTIVE, FlowbenchError

Scalar = bool | int | float | str


class Value(BaseModel):
    """A value and where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Scalar | list[Scalar]
    source: str = Field(min_length=1)

    @property
    def word(self) -> str:
        """The value as a user types it."""
        parts = self.value if isinstance(self.value, list) else [self.value]
        return ",".join(map(str, parts))


class Words(BaseModel):
    """What a preset says in the words of `flowbench run`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Value | None = None
    batch: Value | None = None
    samples: Value | None = None
    nfe: Value | None = None
    network: Value | None = None
    precision: Value | None = None
    augment: Value | None = None
    unconditional: Value | None = None
    optimizer: Value | None = None


class Table(BaseModel):
    """A preset as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    run: Words = Words()
    options: dict[str, Value] = {}
    fixed: dict[str, Value] = {}


@dataclass(frozen=True)
class Preset:
    """`run` and `options` are set by it, `fixed` is what the method does anyway; by name."""

    title: str
    run: dict[str, Value] = field(default_factory=dict)
    options: dict[str, Value] = field(default_factory=dict)
    fixed: dict[str, Value] = field(default_factory=dict)

    @property
    def chosen(self) -> dict[str, Any]:
        """The values of `options` alone, as a method takes them."""
        return {name: value.value for name, value in self.options.items()}


def place(method: str) -> Path:
    """The file of a method's presets, which need not be there."""
    return Path(inspect.getfile(plugins.method_class(method))).with_suffix(".toml")


@cache
def of(method: str) -> dict[str, Preset]:
    """The presets of a method by name; raises FlowbenchError, in one line, for a wrong file."""
    path = place(method)
    if not path.is_file():
        return {}
    try:
        tables = toml_files.read(path)
    except ValueError as error:
        raise FlowbenchError(f"the presets {path} are no TOML: {error}") from error
    found = {}
    for name, table in tables.items():
        try:
            found[name] = _preset(Table.model_validate(table))
            plugins.method(method, found[name].chosen)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise FlowbenchError(f"the presets {path}: {where}: {first['msg']}") from error
        except FlowbenchError as error:
            raise FlowbenchError(f"the presets {path}: {name}: {error}") from error
    return found


def _preset(table: Table) -> Preset:
    said = {name: getattr(table.run, name) for name in Words.model_fields}
    run = {name: value for name, value in said.items() if value is not None}
    return Preset(table.title, run, table.options, table.fixed)


def get(method: str, name: str) -> Preset:
    """The preset `name` of a method; raises FlowbenchError with those that there are."""
    known = of(method)
    if not known:
        raise FlowbenchError(f"{method} has no presets: leave --preset out")
    return known[options.choose(f"preset of {method} called", name, known)]


def fill(request: Request) -> Request:
    """The request with what its preset says wherever the user says nothing."""
    if request.preset is None:
        return request
    preset = get(request.method, request.preset)
    words: dict[str, Any] = {name: value.value for name, value in preset.run.items()}
    if request.images is not None:
        words.pop("steps", None)
    if "nfe" in words:
        words["nfe"] = tuple(ADAPTIVE if n == "auto" else n for n in words["nfe"])
    unsaid = {name: word for name, word in words.items() if getattr(request, name) in (None, False)}
    return replace(request, options={**preset.chosen, **request.options}, **unsaid)
