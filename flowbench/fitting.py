"""The loop that most methods train by."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from flowbench.average import Average
from flowbench.random_states import random_state, set_random_state
from flowbench.step import Step

if TYPE_CHECKING:
    from flowbench.training import Run

# The last two for plugins that are older than `random_states`.
__all__ = ["Opponent", "Step", "fit", "random_state", "set_random_state"]


class Opponent(Protocol):
    """A second network that is trained in turns with the first, such as a discriminator."""

    def turn(self) -> bool: ...

    def step(self, batch: tuple) -> Tensor: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def fit(
    net: nn.Module,
    loss: Callable[..., Tensor],
    source: Any,
    run: "Run",
    *,
    lr: float = 2e-3,
    ema: float = 0.999,
    average: Average | None = None,
    rival: Opponent | None = None,
) -> nn.Module:
    """Minimise `loss(*batch)` over batches of `source`; return the averaged network.

    `run.optimizer` says how, with the step size `lr`. A caller's own `average` lets the loss use it
    as a target network. At every `rival.turn()` the rival steps instead.
    """
    average = Average(net, ema) if average is None else average
    recipe, moves = run.optimizer, run.budget.steps
    if rival is not None:  # every other step is the rival's
        moves = (moves + 1) // 2
    average.ramp, average.warmup = recipe.ramp, recipe.warmup
    optimizer = recipe.build(net.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: recipe.factor(k, moves))
    step = Step(net, loss, optimizer, schedule, run, recipe.largest)
    parts = {"net": net, "average": average, "optimizer": optimizer, "schedule": schedule}
    beside = {"source": source if hasattr(source, "state_dict") else None}
    beside |= {"scaler": step.scaler, "rival": rival}
    parts |= {name: part for name, part in beside.items() if part is not None}
    for batch in run.batches(source, **parts):
        if rival is not None and rival.turn():
            run.log(rival.step(batch), rival=True)
        else:
            run.log(step(batch))
            average.update(net)
    return average.net
