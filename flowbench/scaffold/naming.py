"""The names of a new package: what a user types, and what Python and pip make of it."""

import importlib.util
import re
from dataclasses import dataclass
from keyword import iskeyword

from flowbench import plugins
from flowbench.discovery.reading import kebab
from flowbench.records import FlowbenchError, visible

LONGEST = 30  # characters, so that no line of the package is longer than 100
WORD = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
PREFIX = "flowbench-"
# Names at the top of the templates, which a class of the same name would hide.
BOUND = frozenset({"Literal", "ClassVar", "MethodContract"})


@dataclass(frozen=True)
class Names:
    """A name as a user types it, such as `my-method`; raises FlowbenchError for a bad one."""

    name: str

    def __post_init__(self) -> None:
        if self.name.startswith(PREFIX):
            raise FlowbenchError(
                f"flowbench- is put before the name of the package: try {self.name[len(PREFIX) :]}"
            )
        if not WORD.fullmatch(self.name) or len(self.name) > LONGEST:
            raise FlowbenchError(
                f"{visible(self.name)!r} is no name: at most {LONGEST} lower-case letters, digits"
                f" and single hyphens, a letter first; try {_suggestion(self.name)}"
            )
        if iskeyword(self.class_name) or self.class_name in BOUND:
            raise FlowbenchError(
                f"a class called {self.class_name} would hide Python's: try my-{self.name}"
            )

    @property
    def distribution(self) -> str:
        """What pip calls the package."""
        return PREFIX + self.name

    @property
    def package(self) -> str:
        """What Python imports."""
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        """The class of a method: MyMethod."""
        return "".join(part.capitalize() for part in self.name.split("-"))

    @property
    def title(self) -> str:
        """The name in words, to begin a sentence with."""
        return self.name.replace("-", " ").capitalize()


def _suggestion(name: str) -> str:
    """A good name near to a bad one."""
    near = re.sub(r"[^a-z0-9]+", "-", kebab(name)).lstrip("-0123456789")
    return near[:LONGEST].rstrip("-") or "my-method"


def check_free(kind: str, names: Names) -> None:
    """Raise FlowbenchError where the name, or that of its package, is another's already."""
    name = names.name
    if name in _taken(kind):
        words = f"there is a {kind} called {name} already: take another name"
        start = f", or start from it: flowbench new method my-{name} --from {name}"
        raise FlowbenchError(words + start * (kind == "method"))
    if importlib.util.find_spec(names.package) is not None:
        raise FlowbenchError(
            f"a package {names.package} is installed already: take another name,"
            f" or first: pip uninstall {names.distribution}"
        )


def _taken(kind: str) -> set[str]:
    """The names of this kind that users can type already."""
    if kind == "method":
        return set(plugins.methods())
    if kind == "dataset":
        return set(plugins.datasets())
    return {metric.name for metric in plugins.metrics()}
