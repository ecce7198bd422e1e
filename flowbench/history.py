"""How long runs have taken, from what is stored: the ground of every estimate."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from flowbench.records import RUN_LEVEL, Measured, Spec, Tried


class History:
    """How long runs have taken, by method, data set and options."""

    def __init__(self, measured: Iterable[Measured], tried: Iterable[Tried]):
        self.costs: dict[str, dict[str, float]] = defaultdict(dict)
        self.runs: dict[tuple, set[Spec]] = defaultdict(set)
        self.attempts: dict[str, float] = defaultdict(float)
        specs: dict[str, Spec] = {}
        for row in measured:
            if row.score.nfe == RUN_LEVEL and row.score.name.startswith("train-seconds"):
                self.costs[row.spec.key][row.score.name] = row.score.value
                specs[row.spec.key] = row.spec
        self.specs: dict[tuple, list[Spec]] = defaultdict(list)
        for spec in specs.values():
            self.specs[_kind(spec)].append(spec)
        for attempt in tried:
            if attempt.ended and attempt.outcome != "lost":
                begun, ended = map(datetime.fromisoformat, (attempt.started, attempt.ended))
                self.attempts[attempt.spec.key] += (ended - begun).total_seconds()

    def training(self, spec: Spec) -> float | None:
        """Seconds that training such a run takes by itself, scaled to its steps."""
        known = [
            self._own(other) * spec.budget.images / other.budget.images
            for other in self.specs.get(_kind(spec), [])
        ]
        known = [seconds for seconds in known if math.isfinite(seconds)]
        return statistics.fmean(known) if known else None

    def examining(self, spec: Spec) -> float:
        """Seconds that all else takes: what attempts lasted beyond the training that is billed."""
        known = [
            max(0.0, self.attempts[other.key] - self.costs[other.key]["train-seconds"])
            for other in self.specs.get(_kind(spec), [])
            if other.key in self.attempts
        ]
        return statistics.fmean(known) if known else 0.0

    def _own(self, spec: Spec) -> float:
        costs = self.costs[spec.key]
        return costs.get("train-seconds", math.nan) - costs.get("train-seconds:teacher", 0.0)


def _kind(spec: Spec) -> tuple:
    """What runs share that take about equally long for each training example."""
    return spec.method, spec.dataset, repr([*sorted(spec.options.items()), spec.setting])
