"""One step of training, whatever memory, precision and the number of ranks allow: in parts, scaled,
retried, summed.

Losses are means over rows, so the gradients of parts add up to those of the batch, whichever rank
has computed them. Each row draws the random numbers that it would draw in the whole (see `rows`),
so runs of different part sizes differ by rounding; where a loss looks across rows, they agree in
law only.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flowbench import meters, ranks, sharing
from flowbench.pairwise import Pairwise
from flowbench.random_states import random_state, set_random_state
from flowbench.ranks import Part
from flowbench.records import Diverged, RunFailed
from flowbench.sharing import STRATA

if TYPE_CHECKING:
    from flowbench.training import Run

LARGE = 1_000_000  # parameters, from which on memory is planned before the start
USABLE = 0.9  # of the memory: the rest is for what a step uses for a moment
SEEN = ".running_"  # what a batch norm calls its mean and variance
LOSS = -1  # its number among gradients
LEAST_SCALE = 2.0**-16  # of a float16 loss; overflow at this scale is no matter of scale


class Step:
    """Called with a batch, it moves the weights of `net` down the gradient of `loss(*batch)`.

    `run.micro_batch` rows go through the network at once (None: all). When memory runs out, they
    are halved, and the same step starts anew from the same random state. A float16 network gets a
    loss scale (`scaler`), and steps whose gradients are not finite are left out. With
    `run.compile` large backbones inside `net` are compiled, in place. The batch may be a rank's
    part of a larger one: gradients are then those of the whole.
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
        self.scale: float | None = None  # of the last step: to ask for it waits for the device
        self.weights = list(net.parameters())
        self.learned = [p for group in optimizer.param_groups for p in group["params"]]
        self.seen = [b for name, b in net.named_buffers() if SEEN in name]
        run.stepped.update(map(id, self.learned))
        if run.compile:
            from flowbench.nets.backbone import compile_blocks

            compile_blocks(net)

    def __call__(self, batch: Sequence[Any]) -> Tensor:
        """Take the step; returns the loss, a scalar on the device.

        Raises RunFailed where not even one row fits, Diverged where float16 always overflows.
        """
        if not self.optimizer.state:  # before the first step of all attempts
            self._plan(batch[0])
        value = self._shared(self._gradients(batch))
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.weights, self.clip)
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
        n, random, here = len(batch[0]), random_state(self.run.device), self.run.rows.part
        if here is None or len(here) != n:
            here = Part(n * ranks.own(), n * (ranks.own() + 1), n * ranks.count())
        while True:
            size = min(self.run.micro_batch or n, n)
            try:
                return self._accumulate(batch, here, size)
            except torch.OutOfMemoryError:
                pass  # the rest is outside: the error keeps activations alive
            self._shrink(size)
            set_random_state(random, self.run.device)

    def _accumulate(self, batch: Sequence[Any], here: Part, size: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        if here.whole and size == len(here):
            return self._backward(self.loss(*batch))
        random, total = random_state(self.run.device), Pairwise()
        rows = range(0, len(here), size)
        for start, part in zip(rows, parts(batch, len(here), size), strict=True):
            some = here.cut(start, start + len(part[0]))
            set_random_state(random, self.run.device)  # every part draws what the whole draws
            with self.run.rows.of(some):
                value = self._backward(self.loss(*part) * some.share)
            total.add({LOSS: value, **self._taken()})
        return self._given(total.sum)

    def _taken(self) -> dict[int, Tensor]:
        """The gradients by the number of the weight, which are cleared."""
        found = {n: p.grad for n, p in enumerate(self.learned) if p.grad is not None}
        self.optimizer.zero_grad(set_to_none=True)
        return found

    def _given(self, sums: dict[int, Tensor]) -> Tensor:
        """Make these the gradients; returns the loss among them."""
        for number, parameter in enumerate(self.learned):
            parameter.grad = sums.get(number)
        return sums[LOSS]

    def _shared(self, value: Tensor) -> Tensor:
        """Sum loss and gradients over the ranks, and average what batch norms have seen."""
        if ranks.count() == 1:
            return value
        terms = {LOSS: value, **self._taken()}
        sums = ranks.summed(list(terms.values()), sharing.exact(self.run.device))
        for buffer, mean in zip(self.seen, ranks.averaged(self.seen), strict=True):
            buffer.copy_(mean)
        return self._given(dict(zip(terms, sums, strict=True)))

    def _backward(self, value: Tensor) -> Tensor:
        (value if self.scaler is None else self.scaler.scale(value)).backward()
        return value.detach()

    def _move(self) -> bool:
        """Let the optimiser step, unless float16 overflowed; returns whether it did."""
        if self.scaler is None:
            self.optimizer.step()
            return True
        before = self.scaler.get_scale() if self.scale is None else self.scale
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scale = self.scaler.get_scale()
        if self.scale < LEAST_SCALE:
            raise Diverged(f"float16 gradients overflow in stage {self.run.name}: take bfloat16")
        return self.scale >= before

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
