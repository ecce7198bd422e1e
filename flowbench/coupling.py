"""Minibatch optimal transport: which noise goes with which data, solved beside the training.

Pooladian et al. 2023 (arXiv:2304.14772) and Tong et al. 2024 (arXiv:2302.00482) couple n noises
with n data so that the squared distances are small. Here only the noise is reordered: data and
labels stay together by construction.
"""

import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from flowbench.data.base import Data
from flowbench.records import Diverged, FlowbenchError, digest
from flowbench.training import Run

Solve = Callable[[Tensor, torch.Generator], Tensor]  # (cost, generator) -> noise row of each datum
Pool = tuple[Tensor, Tensor, Tensor | None]  # (noise, x, labels), row by row coupled
CACHED = 2**17  # entries whose squares are added up at once: 1 MiB
ITERATIONS = 1000  # of Sinkhorn
ACCURATE, ACCEPTED = 0.01, 0.1  # relative error of Sinkhorn's marginals: wanted, and tolerated


def squared_distances(noise: Tensor, x: Tensor) -> Tensor:
    """|noise_i - x_j|^2 of `noise` (n, *shape) and centred `x` (n, *shape), (n, n) float64.

    Centring the data changes no optimal plan and keeps the float32 products small.
    """
    a, b = noise.flatten(1), x.flatten(1)
    b = b - b.mean(0)
    cost = (a @ b.T).double().mul_(-2)
    cost += _squares(a)[:, None] + _squares(b)
    return cost.clamp_min_(0)


def _squares(rows: Tensor) -> Tensor:
    """The sum of squares of each row (n, d), (n,) float64.

    A few rows at a time: fresh memory for all of them takes longer than the arithmetic.
    """
    some = rows.split(max(1, CACHED // max(1, rows.shape[1])))
    return torch.cat([part.to(torch.float64, copy=True).square_().sum(1) for part in some])


def exact(cost: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The permutation of least total cost: for each column of `cost` (n, n) its row, (n,) int64.

    POT's network simplex; between equal uniform weights an optimal vertex is a permutation.
    """
    import ot

    ones = torch.ones(len(cost), dtype=torch.float64).numpy()  # whole numbers: no rounding
    plan = torch.from_numpy(ot.emd(ones, ones, cost.cpu().numpy(), numItermax=10**8))
    index = plan.argmax(0)
    if len(index.unique()) < len(index):
        raise FlowbenchError("the exact coupling is no permutation: are all data finite?")
    return index


def sinkhorn(cost: Tensor, generator: torch.Generator, reg: float = 0.05) -> Tensor:
    """A row of `cost` (n, n) for each column, drawn from the entropic plan, (n,) int64.

    `reg` counts in standard deviations of the cost. Rows may repeat. They are drawn because the
    best rounding of an entropic plan to a permutation is the exact coupling whatever `reg` is:
    the log of the plan is -cost / reg plus a number for each row and for each column.
    Raises FlowbenchError where Sinkhorn's iterations, in the log domain, do not converge.
    """
    import ot

    n = len(cost)
    plan, log = ot.sinkhorn(
        *[cost.new_full((n,), 1 / n)] * 2,
        cost,
        reg * cost.std().item(),
        method="sinkhorn_log",
        numItermax=ITERATIONS,
        stopThr=ACCURATE / math.sqrt(n),
        warn=False,
        log=True,
    )
    if not float(log["err"][-1]) * math.sqrt(n) < ACCEPTED:
        raise FlowbenchError(f"reg={reg} is too small for Sinkhorn: raise it or use coupling=exact")
    return torch.multinomial(plan.T.cpu(), 1, generator=generator)[:, 0]


def couple(
    solve: Solve, noise: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator
) -> Tensor:
    """The row of `noise` that goes with each row of `x`, (n,) int64.

    With `labels`, couplings are solved within each class, so that the noise of every class stays
    unit Gaussian, as it is when samples of one class are drawn.
    """
    if len(x) and not all(bound.isfinite() for bound in x.aminmax()):  # which hold any NaN
        raise Diverged("data that are not finite cannot be coupled")
    index = torch.arange(len(x))
    for group in _groups(labels, len(x)):
        if len(group) > 1:
            there = group.to(x.device)
            index[group] = group[solve(squared_distances(noise[there], x[there]), generator)]
    return index.to(x.device)


def _groups(labels: Tensor | None, n: int) -> list[Tensor]:
    """Row numbers of each class, on the host; all rows where there are no labels."""
    if labels is None:
        return [torch.arange(n)]
    labels = labels.cpu()
    return [(labels == label).nonzero()[:, 0] for label in labels.unique()]


def correlation(noise: Tensor, x: Tensor) -> float:
    """The correlation of noise with its data, in [-1, 1]: E<x0, x1 - m> / (d |std|).

    Pooled over all d entries of rows (B, *shape), m being the mean of each entry; for unit data
    it is E<x0, x1>/d.
    """
    a, b = noise.flatten(1).double(), x.flatten(1).double()
    a, b = a - a.mean(0), b - b.mean(0)
    return ((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()).item()


def bound(n: int, d: int) -> float:
    """sqrt(2 ln n / d): what `correlation` stays below (Matityahu and Fattal 2024, eq. 20).

    It holds for the best of n noises without regard to the others; above 1 it says nothing.
    """
    return math.sqrt(2 * math.log(n) / d)


class Coupled:
    """A source of (noise, x, labels) batches, cut from pools of `n` coupled rows.

    Pool p is a function of the run's seed and p alone: rows of the training split and fresh noise
    from a generator of its own, coupled by `solve` (within each class if `per_class`). The rows
    that the iterator draws are not used, and the global random state is not touched, so batches
    are the same with and without `prefetch`, and after an interruption.

    With `prefetch` one thread makes the pools of the next batch during a training step. It lives
    until the end of the `with` block; what goes wrong in it is raised by `draw`. The time that
    making pools takes is the stage "coupling" of the bill.
    """

    def __init__(
        self,
        data: Data,
        run: Run,
        n: int,
        solve: Solve = exact,
        per_class: bool = True,
        prefetch: bool = True,
    ):
        self.data, self.n, self.solve, self.per_class = data, n, solve, per_class
        self.seed, self.run = run.seed, run.stage("coupling")
        self.worker = ThreadPoolExecutor(1, "coupling") if prefetch else None
        self.position, self.seconds, self.counted = 0, 0.0, 0
        self.held: dict[int, Pool] = {}
        self.coming: dict[int, Future[tuple[Pool, float]]] = {}

    def __enter__(self) -> "Coupled":
        return self

    def __exit__(self, *error: Any) -> None:
        if self.worker is not None:
            self.worker.shutdown(cancel_futures=True)  # waits for the pool in the making

    def __len__(self) -> int:
        return len(self.data.train)

    def prepare(self) -> None:
        """Nothing to do: pools are made when they are drawn from."""

    def pool(self, number: int) -> Pool:
        """Noise (n, *shape), data and labels of one pool, coupled row by row."""
        seed = int(digest(["coupling", self.seed, number])[:12], 16)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(self), (self.n,), generator=generator)
        noise = torch.randn(self.n, *self.data.shape, generator=generator).to(self.data.device)
        x, labels = self.data.train.draw(rows)
        by = labels if self.per_class else None
        return noise[couple(self.solve, noise, x, by, generator)], x, labels

    def draw(self, rows: Tensor) -> Pool:
        """The next len(rows) coupled rows."""
        start, stop = self.position, self.position + len(rows)
        first, end = start // self.n, -(-stop // self.n)
        self._order(range(first, 2 * end - first))
        parts = []
        for number in range(first, end):
            begin = number * self.n
            part = slice(max(start - begin, 0), min(stop - begin, self.n))
            parts.append([some if some is None else some[part] for some in self._take(number)])
        self.position = stop
        self.held = {p: pool for p, pool in self.held.items() if p >= stop // self.n}
        noise, x, labels = zip(*parts, strict=True)
        return torch.cat(noise), torch.cat(x), None if labels[0] is None else torch.cat(labels)

    def _order(self, numbers: Iterable[int]) -> None:
        """Let the worker make these pools, in this order."""
        for number in numbers:
            if self.worker and number not in self.held and number not in self.coming:
                self.coming[number] = self.worker.submit(self._make, number)

    def _take(self, number: int) -> Pool:
        """A pool, waiting for it if need be; its making is charged once."""
        if number not in self.held:
            future = self.coming.pop(number, None)
            self.held[number], seconds = future.result() if future else self._make(number)
            if number >= self.counted:
                self.counted, self.seconds = number + 1, self.seconds + seconds
                self.run.charge(seconds=self.seconds, images=self.counted * self.n)
        return self.held[number]

    def _make(self, number: int) -> tuple[Pool, float]:
        begun = time.monotonic()
        return self.pool(number), time.monotonic() - begun

    def state_dict(self) -> dict[str, Any]:
        """How many rows are drawn, and what making them took."""
        return {"position": self.position, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the rows of an earlier process, whose pools are paid for."""
        self.position, self.seconds = state["position"], state["seconds"]
        self.counted = -(-self.position // self.n)
        self.held, self.coming = {}, {}
