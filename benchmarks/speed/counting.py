"""What the operators ask for that some work calls: operations, and bytes in and out.

Operations are those of PyTorch's formulas (`torch.utils.flop_counter`): of matrix products,
convolutions and attention, forward and backward, a multiplication with an addition as two. Bytes
are the sizes of the tensors that an operator reads and of those that it writes, each once; views
and fresh memory are none. So it is the traffic that operators ask for: caches serve some of it,
and kernels that walk twice over a tensor ask for more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
FRESH = (aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided)
OVERWRITING = (aten.copy_, aten._foreach_copy_, aten.fill_, aten.zero_, aten.normal_, aten.uniform_)


@dataclass(frozen=True)
class Operator:
    """One call of an operator."""

    name: str
    flops: int
    bytes: int


class Counter(TorchDispatchMode):
    """Lists the `operators` that are called inside, in their order, backward passes too."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[Operator] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        size = _bytes(func, args, kwargs, made)
        self.operators.append(Operator(str(func), _flops(func, args, kwargs, made), size))
        return made

    @property
    def flops(self) -> int:
        """Operations of all."""
        return sum(each.flops for each in self.operators)

    @property
    def bytes(self) -> int:
        """Bytes of all."""
        return sum(each.bytes for each in self.operators)


def count(work: Callable[[], object]) -> Counter:
    """What one call of `work` asks for."""
    with Counter() as counter:
        work()
    return counter


def _flops(func: Any, args: tuple, kwargs: dict, made: Any) -> int:
    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else formula(*args, **kwargs, out_val=made)


def _bytes(func: Any, args: tuple, kwargs: dict, made: Any) -> int:
    if func.overloadpacket in FRESH:
        return 0
    given, changed = _tensors((args, kwargs)), _changed(func, args, kwargs)
    held = {tensor.untyped_storage().data_ptr() for tensor in given}
    fresh = [each for each in _tensors(made) if each.untyped_storage().data_ptr() not in held]
    if not fresh and not func._schema.is_mutable and _tensors(made):
        return 0  # a view: what comes out lies in what went in
    blind = func.overloadpacket in OVERWRITING or "out" in kwargs
    unread = _keys(changed) if blind else set()
    read = [each for each in given if _key(each) not in unread]
    return _size(read) + _size(fresh) + _size(changed)


def _changed(func: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    """The tensors among what is given that the operator writes to."""
    takes = func._schema.arguments
    named = dict(zip((each.name for each in takes), args, strict=False)) | kwargs
    writes = [each.name for each in takes if each.alias_info and each.alias_info.is_write]
    return _tensors([named.get(name) for name in writes])


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> tuple:
    """Where it lies and how; equal for a tensor that is given twice."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _keys(tensors: Iterable[Tensor]) -> set[tuple]:
    return {_key(each) for each in tensors}


def _size(tensors: Iterable[Tensor]) -> int:
    """Bytes of all, each once, and what is expanded as it lies in memory."""
    some = {_key(each): each for each in tensors}.values()
    return sum(each.element_size() * _entries(each) for each in some if each.numel())


def _entries(tensor: Tensor) -> int:
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(size for size, stride in steps if stride)
