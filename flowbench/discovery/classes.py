"""The classes of methods and observers, held against what flowbench asks of them."""

import dataclasses
import inspect
from typing import Any

from flowbench.discovery import hooks
from flowbench.discovery.loading import Broken, load
from flowbench.discovery.plugin import Plugin


def checked(plugin: Plugin) -> Any:
    """The class of a method or observer; raises Broken where it is none that could work."""
    cls, said = load(plugin), f"{plugin.kind} {plugin.name} from {plugin.origin}"
    if not (inspect.isclass(cls) and dataclasses.is_dataclass(cls)):
        raise Broken(f"{said} is not a frozen dataclass: write @dataclass(frozen=True) above it")
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise Broken(f"{said} can be changed: write @dataclass(frozen=True) above it")
    wrong = hooks.mistake(cls) or (hooks.lacking(cls) if plugin.kind == "method" else None)
    if wrong:
        raise Broken(f"{said} cannot work: {wrong}")
    return cls
