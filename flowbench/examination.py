"""What is measured of a trained network: its bill, its straightness, its samples at each NFE."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowbench import meters, ranks, timing
from flowbench.checkpoints import file_hash
from flowbench.data.base import scattered
from flowbench.environment import device_name
from flowbench.metrics import likelihood
from flowbench.metrics.evaluation import Evaluation
from flowbench.metrics.straightness import STEPS, straightness
from flowbench.metrics.taken_out import TakenOut
from flowbench.noise import unit_noise
from flowbench.planning import Plan, Setup
from flowbench.protocol import (
    WHOLE,
    Key,
    against_for,
    field_interval,
    floor_rows,
    likelihood_rows,
    metrics_for,
)
from flowbench.protocol import facts as metric_facts
from flowbench.records import RUN_LEVEL, Artifact, Diverged, RunFailed, Score
from flowbench.sampling import Sampler
from flowbench.training import Bill, total

TIMED = 100  # samples of one timed call
ROWS = {"vector": 1000, "image": 250}  # trajectories behind a straightness, and
LARGE_ROWS = 50  # those of large backbones


@dataclass
class Examination:
    """Examines one trained network; every part yields only what is in `todo`."""

    plan: Plan
    setup: Setup
    folder: Path
    hook: Any
    network: nn.Module
    todo: set[Key]

    def __post_init__(self) -> None:
        self.network.eval()
        self.metrics = metrics_for(self.plan, self.setup)  # once: it asks every extension
        self.sampler = Sampler(self.plan, self.setup, self.folder, self.hook, self.network)
        self.interval = field_interval(self.plan, self.hook)
        self.knots = getattr(self.plan.method, "knots", ())

    def velocity(self, z: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The method's canonical field."""
        return self.hook.velocity(network=self.network, z=z, t=t, labels=labels)

    def costs(self, bill: Bill, measure: Callable[[], Mapping[str, float]]) -> Iterator[Score]:
        """Size of the network; seconds of all stages; images of those that train.

        And what only the method knows of itself.
        """
        if ("model", "train-seconds", RUN_LEVEL, 0) not in self.todo:
            return
        for name, value in measure().items():
            if not isinstance(value, int | float):
                raise RunFailed(f"measure of {self.plan.spec.method}: {name} is no number: {value}")
            yield Score(name, float(value))
        yield Score("parameters", meters.parameters(self.network))
        for stage, spent in bill.items():
            yield Score(f"train-seconds:{stage}", spent["seconds"])
            yield Score(f"train-images:{stage}", spent["images"])
        whole = total(bill)
        yield Score("train-images", whole["images"])
        yield Score("train-seconds", whole["seconds"])

    def floors(self) -> Iterator[Score]:
        """Every metric of real data in the samples' place: what a perfect model would score."""
        n, data = floor_rows(self.plan), self.plan.data
        if not any(key[0] == "floor" for key in self.todo):
            return
        if data.test is not None:
            real = self._evaluation(data.test.draw(scattered(len(data.test), n))[0])
        else:
            against = against_for(self.plan, self.setup)
            real = TakenOut(torch.empty(0), data, against, n=n)
        yield from self._metrics(real, "floor", RUN_LEVEL, n)

    def _evaluation(self, samples: Tensor) -> Evaluation:
        return Evaluation(samples, self.plan.data, against_for(self.plan, self.setup))

    def straightness(self) -> Iterator[Score]:
        """S and S2 of the method's canonical field, if it has one."""
        if ("model", "S2", RUN_LEVEL, 0) not in self.todo:
            return
        most = LARGE_ROWS if self.plan.data.network else ROWS[self.plan.data.kind]
        rows = min(most, self.plan.protocol.samples)
        begin, end = self.interval or WHOLE
        noise = unit_noise(0, range(rows), self.plan.data.shape, device=self.setup.device)
        labels = self.sampler.labels(range(rows))
        first, second = straightness(self.velocity, noise, labels, (begin, end), self.knots)
        # A field that is defined (almost) everywhere is compared; one on less would win by that.
        covered = "all" if end - begin > 0.98 else [begin, end]
        facts = {"rows": rows, "steps": STEPS, "data": self.plan.data.sha256, "interval": covered}
        for name, value in (("S", first), ("S2", second)):
            yield Score(name, value, goal="min", protocol=facts)

    def likelihood(self) -> Iterator[Score]:
        """The negative log-likelihood of held-out vectors in nats, by change of variables."""
        if ("model", "nll", RUN_LEVEL, 0) not in self.todo or self.plan.data.test is None:
            return
        rows, labels = self.plan.data.test.spread(likelihood_rows(self.plan))
        value = likelihood.nll(self.velocity, rows, self.knots, labels)
        facts = {"rows": len(rows), "steps": likelihood.STEPS, "data": self.plan.data.sha256}
        yield Score("nll", value, goal="min", protocol=facts)

    def every_nfe(self) -> Iterator[Score | Artifact]:
        """Samples at each NFE, what they cost, and every metric of them.

        Samples that are not finite score NaN; when all is done, that raises Diverged.
        """
        broken = []
        for nfe in self.plan.nfe:
            if not any(key[2] == nfe for key in self.todo):
                continue
            samples, facts = self.sampler.samples(nfe)
            yield describe(f"samples-nfe{nfe or 'auto'}", self.sampler.path(nfe), self.setup)
            yield from self._facts(nfe, facts)
            yield from self._metrics(self._evaluation(samples), "model", nfe, len(samples))
            yield from self._speed(nfe)
            if facts["not_finite"]:
                broken.append(f"{facts['not_finite']} of {len(samples)} at NFE {nfe or 'auto'}")
        if broken:
            raise Diverged(f"samples are not finite: {'; '.join(broken)}")

    def _metrics(self, evaluation: Evaluation, subject: str, nfe: int, n: int) -> Iterator[Score]:
        finite = bool(evaluation.samples.isfinite().all())
        for metric in self.metrics:
            if (subject, metric.name, nfe, n) in self.todo:
                known = metric_facts(metric, evaluation.against, self.plan)
                yield Score(
                    name=metric.name,
                    value=float(metric.score(evaluation)) if finite else math.nan,
                    nfe=nfe,
                    subject=subject,
                    n=n,
                    seed=self.plan.protocol.seed,
                    goal=metric.goal,
                    protocol={"ema": True, **known, **metric.protocol(evaluation)},
                )

    def _facts(self, nfe: int, facts: dict[str, Any]) -> Iterator[Score]:
        for name in ("nfe", "clipped"):
            n, seed = self.plan.protocol.samples, self.plan.protocol.seed
            if ("model", name, nfe, n) in self.todo:
                yield Score(name, facts[name], nfe, n=n, seed=seed)

    def _speed(self, nfe: int) -> Iterator[Score]:
        if ("model", "peak-mib", nfe, 0) not in self.todo:
            return
        device, most = self.setup.device, min(TIMED, self.plan.protocol.samples)
        if not ranks.first():  # one measures; the others wait for it, and do not disturb
            return
        indices = range(self.sampler.fitting(most, nfe))
        noise = self.sampler.noise(indices)  # made on the CPU: no part of what a sampler costs
        meters.reset_peak(device)
        held = meters.held_mib(device, self.network)
        with timing.alone(device, self.setup.note):
            seconds = meters.median_seconds(lambda: self.sampler.call(noise, indices, nfe), device)
        facts = {
            "batch": len(indices),
            "device": device_name(device),
            "threads": torch.get_num_threads(),
        }
        milliseconds = 1000 * seconds / len(indices)
        yield Score("ms-per-sample", milliseconds, nfe, goal="min", protocol=facts)
        with meters.arithmetic(self.network) as counted:
            self.sampler.call(noise[:1], indices[:1], nfe)
        yield Score("mflop-per-sample", counted.mflop, nfe, goal="min")
        yield Score("parameters-per-evaluation", counted.parameters, nfe)
        yield Score("peak-mib", meters.peak_mib(device) - held, nfe, goal="min", protocol=facts)


def describe(role: str, path: Path, setup: Setup) -> Artifact:
    """A file of a run as the database records it."""
    place = path.relative_to(setup.folder).as_posix()
    return Artifact(role, place, file_hash(path), path.stat().st_size)
