"""What extensions add to the catalogues of data sets, networks, metrics and formats of reports."""

import dataclasses
import inspect
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from flowbench.discovery import hooks, provenance
from flowbench.discovery.doors import everything
from flowbench.discovery.loading import Broken, load
from flowbench.discovery.plugin import Plugin
from flowbench.entries import Dataset, Metric, ReportFormat
from flowbench.records import PluginWarning

OWN = "flowbench"  # the distribution whose entries come first


def _is_network(entry: Any) -> bool:
    named = isinstance(getattr(entry, "name", None), str) and hasattr(entry, "build")
    return named and inspect.isclass(entry) and dataclasses.is_dataclass(entry)


CATALOGUES: dict[str, tuple[str, Callable[[Any], bool]]] = {  # what a hook may give
    "datasets": ("flowbench.Dataset", lambda entry: isinstance(entry, Dataset)),
    "networks": ("subclass of nets.settings.Network", _is_network),
    "metrics": ("flowbench.Metric", lambda entry: isinstance(entry, Metric)),
    "reports": ("flowbench.ReportFormat", lambda entry: isinstance(entry, ReportFormat)),
}


def usable(hook: str | None) -> list[tuple[Plugin, ModuleType]]:
    """Extensions that work, or those that implement `hook`; a PluginWarning tells of others."""
    found: dict[str, tuple[Plugin, ModuleType]] = {}
    for plugin in everything("extension"):
        if plugin.disabled or (hook is not None and not plugin.implements(hook)):
            continue
        try:
            found.setdefault(plugin.module, (plugin, checked(plugin)))
        except Broken as error:
            why = f"{error} (more: flowbench plugins --why {plugin.name})"
            warnings.warn(why, PluginWarning, stacklevel=2)
    return list(found.values())


def checked(plugin: Plugin) -> ModuleType:
    """The module of an extension; raises Broken unless its hooks give what they should."""
    module = load(plugin)
    wrong = hooks.mistake(module)
    if wrong:
        raise Broken(f"extension {plugin.name} from {plugin.origin} cannot work: {wrong}")
    for hook in CATALOGUES:
        if plugin.implements(hook):
            entries(plugin, module, hook)
    return module


def entries(plugin: Plugin, module: ModuleType, hook: str) -> list[Any]:
    """What an extension adds to a catalogue; raises Broken for what has no place in it."""
    said = f"extension {plugin.name} from {plugin.origin}: its hook {hook}"
    try:
        found = [*(getattr(module, hook, list)() or ())]
    except (Exception, SystemExit) as error:
        raise Broken(f"{said} fails: {type(error).__name__}: {error}") from error
    kind, fits = CATALOGUES[hook]
    for entry in found:
        if not fits(entry):
            raise Broken(f"{said} gives {entry!r}, which is no {kind}")
    return found


def first(hook: str) -> dict[str, Any]:
    """Entries by name; of several that share one the first, flowbench's own before others."""
    return {name: several[0][1] for name, several in claims(hook).items()}


def claims(hook: str) -> dict[str, list[tuple[Plugin, Any]]]:
    """What extensions add to a catalogue, by name, with who claims it."""
    found: dict[str, list[tuple[Plugin, Any]]] = {}
    for plugin, module in sorted(usable(hook), key=lambda pair: pair[0].distribution != OWN):
        for entry in entries(plugin, module, hook):
            found.setdefault(entry.name, []).append((plugin, _stamped(plugin, entry)))
    return found


def _stamped(plugin: Plugin, entry: Any) -> Any:
    """A third party's metric with the hash of its code, which decides what it compares with."""
    if not isinstance(entry, Metric) or plugin.distribution == OWN:
        return entry
    return dataclasses.replace(entry, code=provenance.code_hash(load(plugin)))
