"""The training set as flows that are already trained have pushed it, one after the other."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowbench import ranks, solvers
from flowbench.checkpoints import find_tensors, save_tensors, weights_hash
from flowbench.data.base import Data, Split
from flowbench.noise import unit_noise
from flowbench.training import Progress, Run

CHUNK = 500  # rows that are pushed together
ROWS = 2000  # behind a drift that is stored
LOOK = 10_000  # behind one that decides whether to warn
DRIFT = 0.06  # on mog128, blocks stuck at the linear map of a Gaussian have 0.13, good ones 0.025

Law = tuple[float, float]


class Pushed:
    """A source of (x, y) batches: rows of the training set that `flows` have carried away.

    Rows are pushed when training first draws from them, once by each flow (net(x, tau, y) with
    tau from 0 to 1), by `steps` midpoint steps. The last result is kept in a file, so that a run
    which goes on need not push again. `laws` names what becomes of the data x behind each number
    of flows: the law of alpha x + beta noise.
    """

    def __init__(self, data: Data, run: Run, steps: int, laws: Sequence[Law]):
        self.data, self.run, self.steps, self.laws = data, run, steps, laws
        self.split, self.done, self.flows = data.train, 0, nn.ModuleList()
        self.path = run.folder and run.folder / "pushed.safetensors"

    def __len__(self) -> int:
        return len(self.split)

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """(x, y) of the given rows, on the device."""
        return self.split.draw(rows)

    def others(self, n: int, y: Tensor | None) -> Tensor:
        """Further rows (n, *shape), of the classes `y` (n,) where there are any."""
        if y is None or self.split.labels is None:
            return self.draw(torch.randint(len(self), (n,)))[0]
        labels, y = self.split.labels.cpu(), y.cpu()
        counts = labels.bincount()
        places = (torch.rand(n) * counts[y]).long() + (counts.cumsum(0) - counts)[y]
        return self.draw(labels.argsort()[places])[0]

    def prepare(self) -> None:
        """Read what all flows have made of the data, or let those push that have not yet."""
        if self.done == len(self.flows) or self._read():
            return
        while self.done < len(self.flows):
            begun = time.monotonic()
            values = self._push(self.flows[self.done])
            self._take(values, time.monotonic() - begun)
            self._look()
        self._write()

    def close(self) -> None:
        """Remove the file, which nothing needs when all training is done."""
        if self.path and ranks.first():
            self.path.unlink(missing_ok=True)

    def _push(self, flow: nn.Module) -> Tensor:
        values = torch.empty(self.split.values.shape, device=self.split.values.device)
        name = f"push-{self.done + 1}"
        for start in range(0, len(self), CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(self)))
            x, y = self.draw(rows)
            values[start : start + CHUNK] = solvers.midpoint(flow, x, y, 2 * self.steps)
            self.run.watch(Progress(name, start + len(rows), len(self)))
        return values

    def _take(self, values: Tensor, seconds: float) -> None:
        values = values.to(self.split.values.device)
        self.split = Split(values, self.split.labels, self.split.device)
        self.done += 1
        self.run.stage(f"push-{self.done}").charge(seconds=seconds, images=0)

    def _look(self) -> None:
        """Say so if a flow has not learned its law: neither loss, S nor moments show it.

        Images are left out: a flow cannot widen a pixel that is the same in all of them.
        """
        if self.data.kind == "image":
            return
        found = drift(self.data, self.split.spread(LOOK)[0], self.laws[self.done])
        if found > DRIFT:
            self.run.note(
                f"block {self.done} has not learned its law: what it made of the data is"
                f" {found:.2f} away (Kolmogorov-Smirnov, in one direction); train it longer"
            )

    @property
    def _facts(self) -> dict[str, Any]:
        return {"weights": weights_hash(self.flows), "steps": self.steps}

    def _write(self) -> None:
        if self.path and ranks.first():
            seconds = self.run.bill[f"push-{self.done}"]["seconds"]
            save_tensors(self.path, {"x": self.split.values}, {**self._facts, "seconds": seconds})

    def _read(self) -> bool:
        """Whether the file holds what all flows have made; if so, it is taken from there."""
        found = find_tensors(self.path, self.run.note) if self.path else None
        if found is None:
            return False
        tensors, facts = found
        seconds = facts.pop("seconds", 0.0)
        if facts != self._facts:
            return False
        self.done = len(self.flows) - 1
        self._take(tensors["x"], seconds)
        return True


def drift(data: Data, x: Tensor, law: Law) -> float:
    """How far rows of the data, pushed to `x`, are from the law that `law` makes of the data.

    `x` holds rows at equal distances. The largest Kolmogorov-Smirnov distance along a coordinate
    or a principal axis of the data, in [0, 1]: modes that were moved but not widened show along
    the axis that they lie on. Of two samples of one law it is about 2 / sqrt(n).
    """
    noise = unit_noise(0, range(len(x)), data.shape, draw=1, device=data.device)
    clean = data.train.spread(len(x))[0]
    axes = torch.linalg.svd((clean - clean.mean(0)).flatten(1), full_matrices=False)[2].T
    rows = torch.cat([x, law[0] * clean + law[1] * noise]).flatten(1)
    order = torch.cat([rows, rows @ axes], 1).argsort(0)
    steps = torch.where(order < len(x), 1.0, -1.0).double()
    return steps.cumsum(0).abs().max().item() / len(x)
