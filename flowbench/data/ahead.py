"""Batches of data that stay on the host, each copied to the GPU while the step before it runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowbench.data.base import Split
from flowbench.data.placement import scale
from flowbench.ranks import Part
from flowbench.rows import Rows

Batch = tuple[Tensor, Tensor | None]


def drawer(
    source: Any, part: Part, rows: Rows | None = None
) -> Callable[[torch.Generator, bool], tuple]:
    """What draws the rows `part` of a batch in a generator's order, told whether more will follow.

    Rows come augmented where the source can do that, by random numbers of these `rows`. A source
    that is not `by_row` is asked for the whole batch, of which the part is cut.
    """
    if not (part.whole or getattr(source, "by_row", False)):
        whole = drawer(source, Part(0, part.total, part.total))
        return lambda generator, more: _cut(whole(generator, more), part)
    some = _drawer(source, part)

    def draw(generator: torch.Generator, more: bool) -> tuple:
        with (rows or Rows()).of(part):
            return some(generator, more)

    return draw


def _drawer(source: Any, part: Part) -> Callable[[torch.Generator, bool], tuple]:
    """The same of rows that are drawn one by one; ahead, where they wait on the host."""

    def order(generator: torch.Generator) -> Tensor:
        return torch.randint(len(source), (part.total,), generator=generator)[part.rows]

    def orders(generator: torch.Generator, more: bool) -> tuple[Tensor, Tensor | None]:
        # A copy of the generator tells what comes next, so a checkpoint knows nothing of it.
        rows, copy = order(generator), torch.Generator()
        copy.set_state(generator.get_state())
        return rows, order(copy) if more else None

    if hasattr(source, "expect"):
        return lambda generator, more: draw_and_expect(source, *orders(generator, more))
    draw = getattr(source, "draw_for_training", source.draw)
    plain = isinstance(source, Split) and type(source).draw is Split.draw
    if not plain or source.here:
        return lambda generator, more: draw(order(generator))
    ahead = Ahead(source, len(part))
    return lambda generator, more: ahead.draw(*orders(generator, more))


def _cut(batch: tuple, part: Part) -> tuple:
    """The rows of a part of what was drawn for the whole; what has other rows goes with each."""
    return tuple(
        x[part.rows] if isinstance(x, Tensor) and x.ndim and len(x) == part.total else x
        for x in batch
    )


def draw_and_expect(source: Any, rows: Tensor, following: Tensor | None) -> tuple:
    """A batch of a source that can read what follows while the caller computes."""
    batch = source.draw(rows)
    if following is not None:
        source.expect(following)
    return batch


class Lane:
    """A stream of the GPU `device` beside the one that computes, on which batches are copied."""

    def __init__(self, device: str):
        self.device, self.stream = device, torch.cuda.Stream(device)

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the host that the GPU can copy from by itself."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def send(self, buffers: Batch) -> tuple[Batch, torch.cuda.Event]:
        """Start the copies: before the event, buffers must not change, nor copies be used."""
        x, y = buffers
        with torch.cuda.stream(self.stream):
            x = x.to(self.device, non_blocking=True)
            y = None if y is None else y.to(self.device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self.stream)
        return (x, y), event

    def receive(self, batch: Batch, event: torch.cuda.Event) -> Batch:
        """The copies, for use by what is computed from now on; the host does not wait.

        Without `record_stream` their memory, which belongs to the other stream, could be given to
        the next copy while the computation still reads it.
        """
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for part in batch:
            if part is not None:
                part.record_stream(current)
        return batch

    def wait(self, event: torch.cuda.Event) -> None:
        """Let the host wait until the copies before `event` are done."""
        event.synchronize()


class Ahead:
    """Draws batches of `size` rows as `split.draw_for_training` does, one batch ahead.

    Only the rows as they are held go ahead: scaling and augmentation happen when a batch is
    wanted, so random numbers are drawn in the usual order. Two buffers take turns.
    """

    def __init__(self, split: Split, size: int, lane: Lane | None = None):
        self.split, self.lane = split, lane or Lane(split.device)
        self.buffers = [self._buffer(size), self._buffer(size)]
        self.copied: list[torch.cuda.Event | None] = [None, None]  # behind it a buffer is free
        self.turn = 0
        self.coming: tuple[Tensor, Batch, torch.cuda.Event] | None = None

    def draw(self, rows: Tensor, following: Tensor | None) -> Batch:
        """(x, y) of `rows`; those `following` (None: no more) are on their way behind it."""
        if self.coming is None or not torch.equal(self.coming[0], rows):
            self.coming = self._send(rows)
        _, batch, event = self.coming
        self.coming = None if following is None else self._send(following)
        x, y = self.lane.receive(batch, event)
        return self.split.vary(scale(x), y)

    def _send(self, rows: Tensor) -> tuple[Tensor, Batch, torch.cuda.Event]:
        """Gather rows into the buffer whose turn it is, and send them."""
        self.turn = 1 - self.turn
        copied = self.copied[self.turn]
        if copied is not None:
            self.lane.wait(copied)
        x, y = self.buffers[self.turn]
        torch.index_select(self.split.values, 0, rows, out=x)
        if y is not None and self.split.labels is not None:
            torch.index_select(self.split.labels, 0, rows, out=y)
        batch, event = self.lane.send((x, y))
        self.copied[self.turn] = event
        return rows, batch, event

    def _buffer(self, size: int) -> Batch:
        values, labels = self.split.values, self.split.labels
        x = self.lane.buffer((size, *values.shape[1:]), values.dtype)
        return x, None if labels is None else self.lane.buffer((size,), labels.dtype)
