"""The loop that most methods train by, and its step, whatever memory and precision allow: in parts,
scaled, retried.

Losses are means over rows, so the gradients of parts add up to those of the batch. But the random
numbers that a loss draws differ, so runs of different part sizes agree in law only, not number by
number; and that only for parts of a multiple of 8 rows, because some losses divide their rows.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from flowbench import meters
from flowbench.average import Average
from flowbench.records import Diverged, RunFailed

if TYPE_CHECKING:
    from flowbench.training import Run

STRATA = 8  # some losses give eighths of their rows noise levels of their own
LARGE = 1_000_000  # parameters, from which on memory is planned before the start
USABLE = 0.9  # of the memory: the rest is for what a step uses for a moment
LEAST_SCALE = 2.0**-16  # of a float16 loss; overflow at this scale is no matter of scale


class Step:
    """Called with a batch, it moves the weights of `net` down the gradient of `loss(*batch)`.

    `run.micro_batch` rows go through the network at once (None: all). When memory runs out, they
    are halved, and the same step starts anew from the same random state. A float16 network gets a
    loss scale (`scaler`), and steps whose gradients are not finite are left out. With
    `run.compile` large backbones inside `net` are compiled, in place.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        run: "Run",
        clip: float,
    ):
        self.net, self.loss, self.run, self.clip = net, loss, run, clip
        self.optimizer, self.schedule = optimizer, schedule
        kind = run.device.partition(":")[0]
        self.scaler = torch.amp.GradScaler(kind) if _half(net) else None
        if run.compile:
            from flowbench.nets.backbone import compile_blocks

            compile_blocks(net)

    def __call__(self, batch: Sequence[Any]) -> Tensor:
        """Take the step; returns the loss, a scalar on the device.

        Raises RunFailed where not even one row fits, Diverged where float16 always overflows.
        """
        if not self.optimizer.state:  # before the first step of all attempts
            self._plan(batch[0])
        value = self._gradients(batch)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        try:
            moved = self._move()
        except torch.OutOfMemoryError:
            moved = None  # outside: the error keeps tensors alive
        if moved is None:
            raise RunFailed(
                f"out of memory: {self._place} has no room for the optimiser:"
                " take a smaller --network"
            )
        if moved:
            self.schedule.step()
        return value

    def _gradients(self, batch: Sequence[Any]) -> Tensor:
        """Set the gradients, in parts as large as fit; returns the loss."""
        n, random = len(batch[0]), random_state(self.run.device)
        while True:
            size = min(self.run.micro_batch or n, n)
            try:
                return self._accumulate(batch, n, size)
            except torch.OutOfMemoryError:
                pass  # the rest is outside: the error keeps activations alive
            self._shrink(size)
            set_random_state(random, self.run.device)

    def _accumulate(self, batch: Sequence[Any], n: int, size: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        if size == n:
            return self._backward(self.loss(*batch))
        losses = [
            self._backward(self.loss(*part) * (len(part[0]) / n)) for part in parts(batch, n, size)
        ]
        return torch.stack(losses).sum()

    def _backward(self, value: Tensor) -> Tensor:
        (value if self.scaler is None else self.scaler.scale(value)).backward()
        return value.detach()

    def _move(self) -> bool:
        """Let the optimiser step, unless float16 overflowed; returns whether it did."""
        if self.scaler is None:
            self.optimizer.step()
            return True
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < LEAST_SCALE:
            raise Diverged(f"float16 gradients overflow in stage {self.run.name}: take bfloat16")
        return self.scaler.get_scale() >= before

    def _shrink(self, size: int) -> None:
        """Halve what goes through the network at once, and free what the last try has used."""
        self.optimizer.zero_grad(set_to_none=True)
        if size == 1:
            raise RunFailed(
                f"out of memory: {self._place} has no room for a single row:"
                " take a smaller --network"
            )
        gc.collect()  # frames of a teacher's hook hold each other, and what the try has used
        self.run.micro_batch = smaller(size)
        self.run.note(
            f"memory ran out with {size} rows at once: stage {self.run.name} goes on with"
            f" {self.run.micro_batch}"
        )
        self._warn()
        if self.run.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _warn(self) -> None:
        """Say so where parts of the batch are too small for losses that divide it."""
        size = self.run.micro_batch or STRATA
        if size < STRATA:
            self.run.note(
                f"{size} rows at once are fewer than {STRATA}: losses that spread noise levels over"
                " the rows, such as those of lmm and ctm, are not the same any more"
            )

    @property
    def _place(self) -> str:
        return "the GPU" if self.run.device.startswith("cuda") else "the machine"

    def _plan(self, x: Tensor) -> None:
        """Say what memory a large network needs, and halve the parts until they fit."""
        if meters.parameters(self.net) <= LARGE:
            return
        n = len(x)
        try:
            need = meters.training_bytes(self.net, tuple(x.shape[1:]), n)
            room = meters.room(self.run.device)
        except Exception:  # a network called in another way, or another system: no plan
            return
        if self.run.device.startswith("cuda"):
            room += need.weights + need.average  # they are there already
        size = min(self.run.micro_batch or n, n)
        while size > 1 and need.total(size) > USABLE * room:
            size = smaller(size)
        if size < n:
            self.run.micro_batch = size
        self.run.note(f"training needs about {need.sentence(size)}; {meters.gib(room)} are there")


def smaller(size: int) -> int:
    """About half; a multiple of `STRATA` while it can be."""
    half = -(-size // 2)
    return half - half % STRATA if half > STRATA else half


def parts(batch: Sequence[Any], n: int, size: int) -> Iterator[list[Any]]:
    """A batch of `n` rows, `size` rows at a time; what has no rows goes with each."""
    for start in range(0, n, size):
        rows = slice(start, start + size)
        yield [part[rows] if isinstance(part, Tensor) and part.ndim else part for part in batch]


def _half(net: nn.Module) -> bool:
    """Whether some of the network computes in float16, whose range is small."""
    settings = [getattr(module, "settings", None) for module in net.modules()]
    return any(getattr(found, "precision", None) == "float16" for found in settings)


def random_state(device: str) -> dict[str, Tensor]:
    """The state of the global random generators of the host and of `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: str) -> None:
    """Go back to a `random_state`; one without a GPU leaves the GPU alone."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.startswith("cuda"):
        torch.cuda.set_rng_state(state["cuda"], device)


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
