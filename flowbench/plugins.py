"""What plugins offer, by name: nothing more is imported than was asked for.

How they are found is the business of `flowbench.discovery`.
"""

import inspect
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import pluggy

from flowbench import hookspecs, options
from flowbench.discovery import Plugin, catalogues, classes, everything, provenance
from flowbench.entries import Dataset, Metric, ReportFormat
from flowbench.records import FlowbenchError

code_hash = provenance.code_hash


def methods() -> dict[str, Plugin]:
    """Every method by name, without importing any; the first of two that share one."""
    return {name: claims[0] for name, claims in sorted(claimed("method").items())}


def claimed(kind: Any) -> dict[str, list[Plugin]]:
    """Those that claim a name, by name; disabled ones have no claim."""
    found: dict[str, list[Plugin]] = {}
    for plugin in everything(kind):
        if not plugin.disabled:
            found.setdefault(plugin.name, []).append(plugin)
    return found


def find(kind: Any, name: str) -> Plugin:
    """The plugin of this name; raises FlowbenchError where there is none, or more than one."""
    claims = claimed(kind)
    if name not in claims:
        raise FlowbenchError(f"{_unknown(kind, name, claims)}{_unread()}")
    first, *others = claims[name]
    if others:
        raise FlowbenchError(clash(f"{kind}s", name, [first, *others]))
    return first


def _unknown(kind: Any, name: str, names: Iterable[str]) -> str:
    """That there is no such name, with the state of one that is disabled."""
    for plugin in everything(kind):
        if plugin.name == name:
            return f"{kind} {name} from {plugin.origin} is disabled in this folder or environment"
    return f"no {kind} {name!r}: {options.hint(name, sorted(names))}"


def _unread() -> str:
    """The loose files that cannot be read, in which the name may stand."""
    broken = [f"{p.origin}: {p.problem}" for p in everything() if p.loose and p.problem]
    return f" ({'; '.join(broken)})" if broken else ""


def clash(what: str, name: str, plugins: Iterable[Plugin]) -> str:
    """That several claim one name, with the cure."""
    several = list(plugins)
    both = " and ".join(plugin.origin for plugin in several)
    return (
        f"two {what} are called {name}: in {both}; rename one, or leave one out:"
        f" FLOWBENCH_DISABLED={several[-1].address}"
    )


def version(method: str) -> str:
    """Where a method came from, with version and commit, as results have it; nothing if unknown."""
    found = methods().get(method)
    return provenance.version(found) if found else ""


def method_class(name: str) -> type:
    """The class of the method called `name`.

    Raises FlowbenchError if it cannot be used, or if two plugins have one of that name.
    """
    return classes.checked(find("method", name))


def method(name: str, words: Mapping[str, Any]) -> Any:
    """An instance of the method `name`; `words` are its options, typed by a user or values."""
    return instance(name, method_class(name), words)


def observer(name: str, words: Mapping[str, Any]) -> Any:
    """An instance of the observer `name`, as `--track` asks for it."""
    return instance(name, classes.checked(find("observer", name)), words)


def instance(name: str, cls: type, words: Mapping[str, Any]) -> Any:
    """An instance with these options; raises FlowbenchError, in one line, for wrong ones."""
    chosen = options.parse(name, cls, words)
    try:
        return cls(**chosen)
    except FlowbenchError:
        raise
    except Exception as error:
        raise FlowbenchError(f"{name} does not take these options: {error}") from error


def summary(plugin: Plugin) -> str:
    """The first line of a plugin's docstring, read from its source without importing it."""
    return f"(cannot be read: {plugin.problem})" if plugin.problem else plugin.summary


def description(cls: type) -> str:
    """The docstring of a method class, without its indentation."""
    return inspect.cleandoc(cls.__doc__ or "(no description)")


def source(cls: type) -> str:
    """Where a method comes from: the docstring of its module, which cites the paper."""
    return inspect.getdoc(inspect.getmodule(cls)) or ""


def extensions(hook: str | None = None) -> list[ModuleType]:
    """Every extension module that can be used, or those that implement `hook`.

    What cannot be used is left out with a PluginWarning, which names it and the cure.
    """
    return [module for _, module in catalogues.usable(hook)]


def datasets() -> dict[str, Dataset]:
    """Every data set by name, in the order of the catalogue."""
    return catalogues.first("datasets")


def networks() -> dict[str, Any]:
    """The settings of every large backbone by name."""
    return catalogues.first("networks")


def reports() -> dict[str, ReportFormat]:
    """Every format of reports by name."""
    return catalogues.first("reports")


def metrics() -> list[Metric]:
    """Every metric, in the order of the catalogue; a third party's carries the hash of its code."""
    return list(catalogues.first("metrics").values())


def refuse_clash(hook: str, name: str) -> None:
    """Raise FlowbenchError where several extensions have an entry of this name."""
    claims = [plugin for plugin, _ in catalogues.claims(hook).get(name, [])]
    if len(claims) > 1:
        raise FlowbenchError(clash(hook, name, claims))


def manager(*plugins: Any) -> pluggy.PluginManager:
    """A fresh manager; of two wrappers that want to be first, the later is outermost.

    Raises pluggy's PluginValidationError for an unknown hook or argument.
    """
    pm = pluggy.PluginManager("flowbench")
    pm.add_hookspecs(hookspecs)
    for plugin in plugins:
        pm.register(plugin)
    pm.check_pending()
    return pm
