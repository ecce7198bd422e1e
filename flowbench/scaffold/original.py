"""The method that a new one starts from: its source, its presets, and under which terms."""

import ast
import inspect
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from flowbench import plugins, resolution
from flowbench.records import FlowbenchError
from flowbench.scaffold import copying, licences
from flowbench.scaffold.naming import Names

# Options that make a test quick, for the methods that have them.
SMALL = {"width": 16, "pairs": 2000, "pair_steps": 20, "start": "random", "n": 24}
NFES = (1, 2, 5)
MOST = 100  # evaluations up to which a method is asked what it can do


@dataclass(frozen=True)
class Original:
    """A method by name and class; where it is from: `flowbench`, `0.1.0`."""

    name: str
    cls: type
    distribution: str
    version: str
    needs: tuple[str, ...] = ()

    @cached_property
    def terms(self) -> licences.Terms:
        """The terms of its distribution."""
        return licences.terms(self.distribution)

    @property
    def path(self) -> Path:
        """The file of its module."""
        return Path(inspect.getfile(self.cls))

    @property
    def presets(self) -> str:
        """The text of its presets, empty where it has none."""
        place = self.path.with_suffix(".toml")
        return place.read_text(encoding="utf-8") if place.is_file() else ""

    def source(self, names: Names) -> str:
        """Its module, with the names of the new method."""
        module = inspect.getmodule(self.cls)
        package = "" if module is None or not self.version else module.__package__ or ""
        old = (self.name, self.cls.__name__)
        text = self.path.read_text(encoding="utf-8")
        return copying.renamed(text, old, (names.name, names.class_name), package)

    @property
    def dependencies(self) -> list[str]:
        """What it needs beside flowbench, as pip takes it: its own package if it imports that."""
        top = self.cls.__module__.partition(".")[0]
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        own = bool(self.version) and top in set(_imported(tree, top))
        return [*self.needs, *[self.distribution] * own]

    @cached_property
    def small(self) -> dict[str, Any]:
        """Options with which a test of it is quick."""
        chosen: dict[str, Any] = {}
        for name, value in SMALL.items():
            with suppress(FlowbenchError):  # it knows no such option, or no such value
                plugins.instance(self.name, self.cls, {**chosen, name: value})
                chosen[name] = value
        return chosen

    @property
    def nfes(self) -> tuple[int, ...]:
        """A few numbers of evaluations that it can sample with."""
        method = self.cls(**self.small)
        if not any(resolution.refusal(method, nfe) for nfe in NFES):
            return NFES
        taken = (nfe for nfe in range(1, MOST) if not resolution.refusal(method, nfe))
        return tuple(islice(taken, len(NFES)))

    @cached_property
    def dataset(self) -> str:
        """Data that it can learn: `moons`, or what has a known law, or images."""
        if _can_learn(self.cls, known=False):
            return "moons"
        return "mog128" if _can_learn(self.cls, known=True) else "digits"


def find(method: str) -> Original:
    """The method of that name, imported; raises FlowbenchError where it cannot be used."""
    plugin = plugins.find("method", method)
    cls = type(plugins.method(method, {}))  # its defaults make an instance
    return Original(plugin.name, cls, plugin.distribution, plugin.version, plugin.needs)


def _imported(tree: ast.Module, top: str) -> Iterator[str]:
    """The packages that a module imports; `top` is the one behind the dots of relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield top if node.level else str(node.module).partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def _can_learn(cls: Any, known: bool) -> bool:
    """Whether it takes vectors, of a known law or of any."""
    import numpy as np

    from flowbench.data.base import Arrays, load
    from flowbench.mixtures import gaussian

    rows = np.zeros((4, 2), np.float32)
    data, method = load("zeros", Arrays(rows, law=gaussian(2) if known else None), "cpu"), cls()
    if getattr(method, "refuses_data", lambda data: None)(data) is not None:
        return False
    try:
        getattr(method, "network", lambda data: None)(data)
    except Exception:  # a stranger's code may raise anything for data that it does not know
        return False
    return True
