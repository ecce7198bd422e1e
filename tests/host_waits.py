"""What a step does that would make the host wait for a GPU, found on the CPU by what it calls.

Everything that a step computes counts as if it were on the device. Two places may look at numbers:
optimisers, whose counts of steps are on the host on any device, and numbers that stay on the host.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from flowbench.training import Run

# What the device has to answer before the host can go on: a number, a list, or a shape.
OPERATORS = (
    *("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique2", "equal"),
    *("allclose", "bincount", "repeat_interleave"),
)
# Of a tensor; they call no operator where it is there already. `to` is missing: on the CPU nobody
# can tell `.to("cpu")` from a move to where everything is.
METHODS = ("cpu", "numpy", "tolist")
# Lines that draw numbers on the host, whatever the device.
ON_HOST = ("torch.arange(1.0, most + 1).multinomial(1)", "torch.rand(()).item()", "Beta(")


class Waits(Exception):
    """A step asked the device for an answer; says which code asked for what."""


def _ask(what: str) -> None:
    """Raise Waits with the line that asked, unless that line draws its numbers on the host."""
    frames = traceback.extract_stack()
    own = [f for f in frames if "site-packages" not in f.filename and f.filename != __file__]
    place = own[-1]
    if not any(words in (place.line or "") for words in ON_HOST):
        raise Waits(f"{what} at {place.filename}:{place.lineno} {place.line}")


class _Operators(TorchDispatchMode):
    """Hears of every operator, also of those that others and the backward pass call."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in OPERATORS or (name.startswith("index") and _masked(args)):
            _ask(name)
        return func(*args, **(kwargs or {}))


def _masked(args: tuple) -> bool:
    """Whether rows are chosen by a mask, so that the device has to count them."""
    lists = [arg for arg in args if isinstance(arg, list | tuple)]
    chosen = [each for some in lists for each in some if isinstance(each, Tensor)]
    return any(each.dtype == torch.bool for each in chosen)


class _Methods(TorchFunctionMode):
    """Hears of the calls that give a tensor to the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in METHODS:
            _ask(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def forbidden() -> Iterator[None]:
    """Raise Waits for what makes the host wait, but inside of optimisers."""
    paused: list = []

    def enter() -> None:
        modes = _Operators(), _Methods()
        for mode in modes:
            mode.__enter__()
        paused.append(modes)

    def leave() -> None:
        for mode in reversed(paused.pop()):
            mode.__exit__(None, None, None)

    hooks = (
        optimizer.register_optimizer_step_pre_hook(lambda *_: leave()),
        optimizer.register_optimizer_step_post_hook(lambda *_: enter()),
    )
    enter()
    try:
        yield
    finally:
        if paused:
            leave()
        for hook in hooks:
            hook.remove()


class Unwaiting(Run):
    """A run whose steps, between a batch and the next, must not make the host wait."""

    def batches(self, source, /, **parts):
        for batch in super().batches(source, **parts):
            with forbidden():
                yield batch
