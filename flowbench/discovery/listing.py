"""All plugins with their state: what `flowbench plugins` prints."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flowbench.discovery import catalogues, classes
from flowbench.discovery.doors import everything
from flowbench.discovery.loading import Broken
from flowbench.discovery.plugin import Plugin

KINDS = {  # of what each hook adds
    "datasets": "dataset",
    "networks": "network",
    "metrics": "metric",
    "reports": "report",
}
ORDER = ("method", *KINDS.values(), "observer", "extension")


@dataclass(frozen=True)
class Row:
    """A plugin, or what an extension adds to a catalogue.

    `state` is ok, broken, shadowed (another has its name), unavailable (something that it needs is
    missing) or disabled; `why` says so in one line, and `trace` is the traceback of what is broken.
    """

    name: str
    kind: str
    state: str
    plugin: Plugin
    why: str = ""
    trace: str = ""

    @property
    def file(self) -> Path | None:
        """Where its code stands."""
        return self.plugin.path


def rows() -> list[Row]:
    """Every plugin, by kind and name; each is imported, and none can break the list."""
    found = [row for plugin in everything() for row in _of(plugin)]
    return sorted(_shadowed(found), key=lambda row: (ORDER.index(row.kind), row.name))


def _of(plugin: Plugin) -> Iterator[Row]:
    """What a plugin offers, or the one row of a plugin that cannot be used."""
    try:
        if plugin.kind == "extension":
            yield from list(_added(plugin))
        else:
            classes.checked(plugin)
            yield Row(plugin.name, plugin.kind, "ok", plugin)
    except Broken as error:
        yield Row(plugin.name, plugin.kind, error.state, plugin, str(error), error.trace)


def _added(plugin: Plugin) -> Iterator[Row]:
    """What an extension adds, and itself where it only watches or wraps."""
    module, none = catalogues.checked(plugin), True
    for hook, kind in KINDS.items():
        for entry in catalogues.entries(plugin, module, hook):
            none = False
            yield Row(entry.name, kind, "ok", plugin)
    if hasattr(module, "observe") and plugin.implements("observe"):
        yield Row(plugin.name, "observer", "ok", plugin)
    elif none:
        yield Row(plugin.name, "extension", "ok", plugin)


def _shadowed(found: list[Row]) -> Iterator[Row]:
    """The rows; those whose name another has too are marked, and name both."""
    for row in found:
        same = [other for other in found if _rivals(row, other)]
        if row.state == "disabled" or len(same) < 2:
            yield row
            continue
        both = " and ".join(other.plugin.origin for other in same)
        cure = f"rename one, or leave one out: FLOWBENCH_DISABLED={row.plugin.address}"
        yield replace(row, state="shadowed", why=f"{row.name} is in {both}; {cure}")


def _rivals(row: Row, other: Row) -> bool:
    return (row.kind, row.name) == (other.kind, other.name) and other.state != "disabled"
