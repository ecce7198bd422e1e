"""EDM's pickles, read without running any code that they name or carry."""

import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowbench import torch_files
from flowbench.records import FlowbenchError


@dataclass
class Module:
    """A module in a pickle: the name of its class and its attributes."""

    name: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """Its named submodules."""
        for name, child in self._part("_modules").items():
            if isinstance(child, Module):
                yield name, child

    def modules(self) -> Iterator["Module"]:
        """This module and all below it."""
        yield self
        for _, child in self.children():
            yield from child.modules()

    def state(self, prefix: str = "") -> dict[str, Tensor]:
        """Its state dict: parameters, buffers that are kept, and those of all submodules."""
        passing = self.attributes.get("_non_persistent_buffers_set")
        hidden = passing if isinstance(passing, set) else set()
        kept = {k: v for k, v in self._part("_buffers").items() if k not in hidden}
        own = {**self._part("_parameters"), **kept}
        found = {prefix + name: v for name, v in own.items() if isinstance(v, Tensor)}
        for name, child in self.children():
            found |= child.state(f"{prefix}{name}.")
        return found

    def number(self, name: str) -> float | None:
        """An attribute that is a number, or None."""
        value = self.attributes.get(name)
        return float(value) if isinstance(value, float | int) else None

    def _part(self, name: str) -> dict[str, Any]:
        part = self.attributes.get(name)
        return {str(k): v for k, v in part.items()} if isinstance(part, dict) else {}


def read_pickle(path: Path) -> Any:
    """The content of a pickle: plain values, tensors, and a `Module` for each module.

    Raises FlowbenchError, before anything is called, where the pickle names a class or function
    that these do not need; and where it is damaged.
    """
    try:
        with path.open("rb") as file:
            return Reader(file, path).load()
    except FlowbenchError:
        raise
    except Exception as error:  # whatever a damaged or forged pickle leads to
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise FlowbenchError(f"{path} cannot be read ({problem}): get it anew") from error


class Reader(pickle.Unpickler):
    """An unpickler that knows the names in its table, and refuses all others."""

    def __init__(self, file: Any, path: Path):
        super().__init__(file)
        self.path, self.known = path, known()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle; raises FlowbenchError for one not in the table."""
        asked = f"{module}.{name}"
        try:
            return self.known[asked]
        except KeyError:
            raise FlowbenchError(
                f"{self.path} asks for {asked!r}, which is not run:"
                " import a pickle of EDM's code, or save the weights as safetensors"
            ) from None


def known() -> dict[str, Callable[..., Any]]:
    """What stands for each name that a pickle of EDM may use.

    All that is callable here is made anew for each file: a pickle can set attributes of what it
    names, and none of that must reach what is not its own.
    """
    container, dtype = stand_ins()
    table: dict[str, Callable[..., Any]] = {
        "builtins.set": set,
        "__builtin__.set": set,  # its name in protocol 2
        "collections.OrderedDict": dict,
        "dnnlib.util.EasyDict": dict,
        "torch_utils.persistence._reconstruct_persistent_obj": lambda meta: persistent(meta),
        "torch.nn.modules.container.ModuleDict": container,
        "torch.storage._load_from_bytes": lambda content: storage(content),
        "torch._utils._rebuild_tensor_v2": lambda *parts: tensor(*parts[:4]),
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
        "numpy.dtype": dtype,
        "_codecs.encode": lambda text, _: text.encode("latin1"),  # bytes in protocol 2
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[f"{module}.scalar"] = lambda dtype, content: number(dtype.code, dtype.order, content)
    return table


def stand_ins() -> tuple[type, type]:
    """Classes in place of torch.nn.ModuleDict and numpy.dtype, which keep what they are given."""

    class Container(Module):
        def __setstate__(self, attributes: dict[str, Any]) -> None:
            self.name, self.attributes = "ModuleDict", attributes

    class DType:
        def __init__(self, code: str, *_: Any):
            self.code, self.order = code, ""

        def __setstate__(self, state: tuple) -> None:
            self.order = state[1].strip("|")  # "|" is for types of one byte

    return Container, DType


def persistent(meta: dict[str, Any]) -> Module:
    """A class of EDM, whose source in the pickle is left alone."""
    return Module(str(meta["class_name"]), dict(meta["state"] or {}))


def storage(content: bytes) -> Any:
    """The numbers behind a tensor, which the pickle holds as a file of torch."""
    return torch_files.load(BytesIO(content))


def tensor(source: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor of its own memory; raises ValueError where it would leave the storage."""
    flat = torch.empty(0, dtype=source.dtype).set_(source._untyped_storage)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    many = math.prod(size) > len(flat)  # strides of 0 would make much of little
    if min(offset, *size, *stride, 0) < 0 or (0 not in size and (many or last >= len(flat))):
        raise ValueError("a tensor lies outside its storage")
    return flat.as_strided(size, stride, offset).clone()


def number(code: str, order: str, content: bytes) -> float | int | bool:
    """A number of NumPy as one of Python; raises ValueError for what is none."""
    import numpy as np

    if code[:1] not in {"f", "i", "u", "b"}:
        raise ValueError(f"a NumPy value of type {code!r}")
    return np.frombuffer(content, np.dtype(order + code), 1)[0].item()
