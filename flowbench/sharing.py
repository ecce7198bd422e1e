"""What ranks share of a training step: its rows and, whoever wrote the loop, its gradients."""

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowbench import ranks
from flowbench.records import FlowbenchError, RunFailed

STRATA = 8  # rows that stay together where they are many: kernels round other numbers otherwise


def part(batch: int) -> ranks.Part:
    """The rows of a batch that this rank computes; raises FlowbenchError where there are none."""
    if batch < ranks.count():
        raise FlowbenchError(
            f"{ranks.count()} processes cannot share a batch of {batch}: start at most so many, or"
            " give a larger --batch"
        )
    n = STRATA * ranks.count()
    return ranks.part(batch, STRATA if batch % n == 0 or batch > 4 * n else 1)


def exact(device: str) -> bool:
    """Whether sums over ranks have the same bits for any number of them, which takes longer."""
    return not device.startswith("cuda") or torch.are_deterministic_algorithms_enabled()


def weights(parts: Mapping[str, Any]) -> dict[str, nn.Parameter]:
    """The parameters of the networks among `parts`, by name."""
    found: dict[str, nn.Parameter] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            found |= {f"{name}.{own}": weight for own, weight in part.named_parameters()}
    return found


@contextmanager
def gradients(
    parts: Mapping[str, Any], others: Container[int], share: float, exact: bool
) -> Iterator[None]:
    """In the block, backward passes give the networks among `parts` the gradients of whole batches.

    Losses are means over the rows of this rank, which are the `share` of all. Weights whose `id` is
    among `others` are left alone: their gradients are summed elsewhere. `exact` as of
    `ranks.summed`.
    """

    def hook(weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        def total(gradient: Tensor) -> Tensor:
            if id(weight) in others:
                return gradient
            return ranks.summed([gradient * share], exact)[0]

        return total

    alone = ranks.count() == 1
    learned = [] if alone else [w for w in weights(parts).values() if w.requires_grad]
    handles = [weight.register_hook(hook(weight)) for weight in learned]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check(parts: Mapping[str, Any], stage: str) -> None:
    """Raise RunFailed where a network is no longer the same on all ranks."""
    name = ranks.differing(dict(weights(parts)))
    if name:
        raise RunFailed(
            f"stage {stage}: {name} is not the same in all processes: its gradient came from"
            " something other than backward(), which is where the processes sum gradients"
        )
