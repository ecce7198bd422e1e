"""Whether what a plugin implements are hooks of flowbench, with arguments that they have."""

import inspect
from collections.abc import Iterator
from typing import Any

from flowbench import hookspecs, options
from flowbench.discovery.reading import HOOKS, OF_METHODS

MARK = "flowbench_impl"  # pluggy's, on what `hookimpl` decorates


def implemented(plugin: Any) -> Iterator[tuple[str, Any]]:
    """(name, function) of everything that is marked as the implementation of a hook."""
    for name in dir(plugin):
        if name.startswith("__"):
            continue
        function = inspect.getattr_static(plugin, name, None)
        if getattr(function, MARK, None) is not None:
            yield name, function


def mistake(plugin: Any) -> str | None:
    """What is wrong with the hooks of a class or module, in words, or None."""
    for name, function in implemented(plugin):
        if name not in HOOKS:
            return f"there is no hook {name}: {options.hint(name, HOOKS)}"
        known = list(inspect.signature(getattr(hookspecs, name)).parameters)
        given = list(inspect.signature(function).parameters)
        for argument in given[inspect.isclass(plugin) :]:
            if argument not in known:
                return f"hook {name} takes no {argument}: it takes {', '.join(known) or 'nothing'}"
    return None


def lacking(cls: type) -> str | None:
    """Which hook a method lacks, in words, or None."""
    own = {name for name, _ in implemented(cls)}
    absent = [name for name in ("train", "sample") if name not in own]
    if not absent:
        return None
    plain = [name for name in absent if callable(getattr(cls, name, None))]
    if plain:
        return f"its {plain[0]} is no hook: write @hookimpl above it"
    near = [name for name in vars(cls) if options.hint(name, OF_METHODS).startswith("did you")]
    meant = f": is {near[0]} meant as it" if near and not own else ""
    return f"it has no hook {absent[0]}{meant}"
