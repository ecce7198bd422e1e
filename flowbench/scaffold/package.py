"""The files of a new package: which there are, and what their templates are told."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FunctionLoader, StrictUndefined

from flowbench import plugins
from flowbench.records import FlowbenchError, visible
from flowbench.scaffold.licences import EXPRESSIONS, together
from flowbench.scaffold.naming import Names
from flowbench.scaffold.original import Original

Kind = Literal["method", "dataset", "metric"]
SUMMARIES = {
    "method": "Regress the velocity of straight lines from noise to data.",
    "dataset": "Two spiral arms in the plane.",
    "metric": "The energy distance between samples and data.",
}
COMMON = {
    "pyproject.toml": "common-pyproject.toml",
    "README.md": "common-README.md",
    ".gitignore": "common-gitignore",
    ".github/workflows/test.yml": "common-test.yml",
    "CITATION.cff": "common-CITATION.cff",
}
MAILBOX = re.compile(r"(?P<name>[^<>]*?)\s*<(?P<email>[^<>@\s]+@[^<>@\s]+)>")


@dataclass(frozen=True)
class Order:
    """What to write: `author` may be `Name <address>`, `licence` is a key of EXPRESSIONS."""

    kind: Kind
    names: Names
    licence: str = "mit"
    author: str = ""
    original: Original | None = None

    def __post_init__(self) -> None:
        if self.author != visible(self.author) or self.author != self.author.strip():
            raise FlowbenchError("--author takes one line of text, such as 'Ann Lee <ann@x.org>'")

    @property
    def summary(self) -> str:
        """What the package does, in one line."""
        if self.original is None:
            return SUMMARIES[self.kind]
        return plugins.description(self.original.cls).partition("\n")[0]

    @property
    def expression(self) -> str:
        """The SPDX expression of the whole package; empty where it has no licence of its own."""
        other = self.original.terms.expression if self.original else ""
        return together(EXPRESSIONS[self.licence], other)

    @property
    def notice(self) -> str:
        """The file with the terms of the method that is copied; empty where there are none."""
        if self.original is None or not self.original.terms.text:
            return ""
        return f"LICENSE-{self.original.distribution}"

    @property
    def dataset(self) -> str:
        """Data to try the method on."""
        return self.original.dataset if self.original else "moons"


def files(order: Order) -> dict[str, str]:
    """The text of every file by its path in the package."""
    render = _renderer(order)
    module = f"src/{order.names.package}"
    test = "copy" if order.original else "test"
    made = {path: render(template) for path, template in COMMON.items()}
    made[f"{module}/__init__.py"] = render("common-init.py")
    made[f"tests/test_{order.kind}.py"] = render(f"{order.kind}-{test}.py")
    if order.licence != "none":
        made["LICENSE"] = render(f"licence-{order.licence}")
    if order.original is None:
        return made | {f"{module}/{order.kind}.py": render(f"{order.kind}.py")}
    head, source = render("method-header.py"), order.original.source(order.names)
    made[f"{module}/method.py"] = head + source
    if order.notice:
        made[order.notice] = order.original.terms.text
    if order.original.presets:
        made[f"{module}/method.toml"] = order.original.presets
    return made


def next_steps(order: Order, target: Path) -> list[str]:
    """The three commands to type next."""
    name, place = order.names.name, shlex.quote(str(target))
    install = f"pip install -e {place}"
    if order.kind == "method":
        return [
            install,
            f"flowbench check {name}",
            f"flowbench run {name} --dataset {order.dataset}",
        ]
    if order.kind == "dataset":
        return [install, f"python -m pytest {place}", f"flowbench run cfm --dataset {name}"]
    compare = f"flowbench compare --dataset moons --metric {name}"
    return [install, "flowbench run cfm --dataset moons", compare]


def _renderer(order: Order) -> Callable[[str], str]:
    """What renders a template for this order."""
    mailbox = MAILBOX.fullmatch(order.author)
    author = mailbox["name"] or mailbox["email"] if mailbox else order.author
    context: dict[str, Any] = {
        "order": order,
        "names": order.names,
        "original": order.original,
        "author": author or f"The {order.names.distribution} authors",
        "email": mailbox["email"] if mailbox else "",
        "year": date.today().year,
        "host": _host(),
        **_copied(order.original),
    }
    return lambda name: _environment().get_template(name).render(context)


def _copied(original: Original | None) -> dict[str, Any]:
    """What only a method that is made from another one has."""
    if original is None:
        return {"dependencies": [], "has_presets": False}
    return {
        "dependencies": original.dependencies,
        "has_presets": bool(original.presets),
        "words": ", ".join(f"{name}={json.dumps(value)}" for name, value in original.small.items()),
        "vectors": original.dataset == "mog128",
        "nfes": repr(original.nfes),
    }


@cache
def _environment() -> Environment:
    """Templates of plain text: nothing is escaped, and what is not defined is an error."""
    environment = Environment(
        loader=FunctionLoader(_read),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)
    return environment


def _read(name: str) -> str:
    place = resources.files("flowbench.scaffold.templates").joinpath(f"{name}.j2")
    return place.read_text(encoding="utf-8")


def _host() -> str:
    """Where this flowbench was installed from, as pip takes it; empty where only we can say."""
    try:
        text = distribution("flowbench").read_text("direct_url.json") or "{}"
    except PackageNotFoundError:
        return ""
    said = json.loads(text)
    url, origin = said.get("url", ""), said.get("vcs_info")
    if not url.startswith("https://"):
        return ""
    return f"{origin['vcs']}+{url}@{origin['commit_id']}" if origin else url
