"""The processes of one run on several devices: who they are, and what they tell each other.

`torchrun` starts them; without it there is one, and every function here is then the plain one.
All of them go through the same steps: what is drawn, trained and decided is the same on each, and
only the first one writes. Values travel over the processors (gloo), gradients between the devices.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as processes

from flowbench import torchrun
from flowbench.pairwise import Pairwise
from flowbench.records import FlowbenchError, RunFailed

PATIENCE = timedelta(days=7)  # one rank may work while the others wait; torchrun ends the dead
GONE = ("closed by peer", "reset by peer", "Broken pipe")  # what gloo says of a dead process
Value = TypeVar("Value")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """The rows `start` to `stop` of `total` that belong together, such as those of a rank."""

    start: int
    stop: int
    total: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def share(self) -> float:
        """What of the whole it is."""
        return len(self) / self.total

    @property
    def rows(self) -> slice:
        """Its rows among all."""
        return slice(self.start, self.stop)

    @property
    def whole(self) -> bool:
        """Whether it is all there is."""
        return len(self) == self.total

    @property
    def even(self) -> bool:
        """Whether it can be halved, and all that is before it and behind it."""
        return not (self.start % 2 or self.stop % 2 or self.total % 2)

    def cut(self, start: int, stop: int) -> "Part":
        """The part whose rows are `start` to `stop` of these."""
        return Part(self.start + start, self.start + stop, self.total)


@contextmanager
def joined(place: str) -> Iterator[None]:
    """Be one of the processes that `torchrun` has started, on the device `place`, in the block."""
    if torchrun.launched() == 1:
        yield
        return
    if place.startswith("cuda"):
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.startswith("cuda") else "gloo"
    store, rank, world = torchrun.met()
    with _together():
        processes.init_process_group(
            backend, store=store, rank=rank, world_size=world, timeout=PATIENCE
        )
    try:
        yield
    finally:
        leave()


def leave() -> None:
    """Be alone from now on; who waits for this process hears that it is gone."""
    if processes.is_initialized():
        processes.destroy_process_group()


def count() -> int:
    """How many ranks there are."""
    return processes.get_world_size() if processes.is_initialized() else 1


def own() -> int:
    """The number of this rank, from 0."""
    return processes.get_rank() if processes.is_initialized() else 0


def first() -> bool:
    """Whether this is the rank that reads, writes and speaks."""
    return own() == 0


def part(total: int, unit: int = 1) -> Part:
    """The rows of `total` that are this rank's, from one multiple of `unit` to another.

    Ranks come in the order of the rows, as evenly as that allows; where rows are few, the last have
    none.
    """
    n, units = count(), -(-total // unit)
    each, more = divmod(units, n)
    starts = [unit * (rank * each + min(rank, more)) for rank in (own(), own() + 1)]
    start, stop = (min(total, start) for start in starts)
    return Part(start, stop, total)


@contextmanager
def _together() -> Iterator[None]:
    """Say in a line that the processes do not hear each other, mostly since one of them is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        text = f"another process of this run has ended (rank {own()} was left alone)"
        if not any(words in str(error) for words in GONE):
            text = f"rank {own()} cannot talk to the other processes ({torchrun.reason(error)})"
        raise RunFailed(f"{text}: see its message") from error


def wait() -> None:
    """Wait until all ranks are here."""
    gathered(None)


def gathered(value: Value) -> list[Value]:
    """What each rank has brought, in the order of ranks, on the host."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    with _together():
        processes.all_gather_object(found, value)
    return found


def told(value: Value) -> Value:
    """What the first rank has brought."""
    if count() == 1:
        return value
    box = [value if first() else None]
    with _together():
        processes.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]  # type: ignore[return-value]


def decided(make: Callable[[], Value]) -> Value:
    """What `make` gives on the first rank, the only one where it is called.

    An error that is meant for users is raised on all.
    """
    value, error = None, None
    try:
        value = make() if first() else None
    except FlowbenchError as caught:
        if count() == 1:
            raise
        error = caught
    value, error = told((value, error))
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def agreed(make: Callable[[], Value] | None) -> list[Value]:
    """What `make` gives on each rank that has one, in the order of ranks.

    Where it raises FlowbenchError on one of them, all raise the first of these errors.
    """
    if count() == 1 and make is not None:
        return [make()]
    value, error = None, None
    try:
        value = None if make is None else make()
    except FlowbenchError as caught:
        error = caught
    found = gathered((make is not None, value, error))
    for _, _, failed in found:
        if failed is not None:
            raise failed
    return [value for there, value, _ in found if there]  # type: ignore[misc]


def shared(items: Sequence[Item], work: Callable[[Item], Value]) -> list[Value]:
    """`work` of each item, in their order; every rank does some of them."""
    mine = agreed(lambda: [work(item) for item in items[own() :: count()]])
    return [mine[number % count()][number // count()] for number in range(len(items))]


def summed(tensors: Sequence[Tensor], exact: bool = True) -> list[Tensor]:
    """The sums over all ranks of tensors on one device, the same bits on all.

    If `exact`, 2, 4 or 8 ranks have the same, where those of each are sums of `Pairwise`.
    """
    if count() == 1 or not tensors:
        return list(tensors)
    found = list(tensors)
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [i for i, tensor in enumerate(tensors) if tensor.dtype == kind]
        flat = _sum(torch.cat([tensors[i].detach().reshape(-1) for i in places]), exact)
        for i, some in zip(places, flat.split([tensors[i].numel() for i in places]), strict=True):
            # In the order in memory that it had: sums over its numbers hang on that.
            found[i] = torch.empty_like(tensors[i]).copy_(some.view_as(tensors[i]))
    return found


def _sum(flat: Tensor, exact: bool) -> Tensor:
    with _together():
        if not exact:
            processes.all_reduce(flat)
            return flat
        parts = [torch.empty_like(flat) for _ in range(count())]
        processes.all_gather(parts, flat)
    total = Pairwise()
    for part in parts:
        total.add({0: part})
    return total.sum[0]


def averaged(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The means over all ranks, such as of what batch norms have seen."""
    return [tensor / count() for tensor in summed(tensors)]


def differing(tensors: dict[str, Tensor]) -> str:
    """The name of a tensor that is not the same on all ranks, or nothing."""
    if count() == 1:
        return ""
    sums = {name: _bits(tensor) for name, tensor in tensors.items()}
    others = gathered(sums)
    return next((name for name in sums if any(o.get(name) != sums[name] for o in others)), "")


def _bits(tensor: Tensor) -> tuple[float, float]:
    """Two sums that tell tensors apart which are not equal."""
    x = tensor.detach().double().flatten()
    weights = torch.linspace(1, 2, max(1, x.numel()), dtype=x.dtype, device=x.device)[: x.numel()]
    return x.sum().item(), (x * weights).sum().item()
