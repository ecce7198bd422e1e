"""What is measured of a plan: which metrics, held against what, and which scores that makes."""

import math
from collections.abc import Mapping
from typing import Any

from flowbench import plugins
from flowbench.entries import Metric
from flowbench.metrics.evaluation import Against
from flowbench.metrics.reference_building import KEPT
from flowbench.metrics.taken_out import takes
from flowbench.plans import Plan, Setup
from flowbench.records import RUN_LEVEL

Key = tuple[str, str, int, int]  # subject, name, nfe, n

COSTS = ("ms-per-sample", "peak-mib", "mflop-per-sample", "parameters-per-evaluation")
WHOLE = (0.0, 1.0)
ROWS, COSTLY_ROWS = 1000, 64  # behind a likelihood, the first in few dimensions,
FEW = 16  # which are so many


def metrics_for(plan: Plan, setup: Setup) -> list[Metric]:
    """The metrics that are defined for the plan's data, and whose extractor's weights are here."""
    against = against_for(plan, setup)
    real = len(plan.data.train)
    rows = min(against.rows or real, real, plan.protocol.samples)
    return [
        metric
        for metric in plugins.metrics()
        if metric.applies(plan.data) and against.serves(metric, plan.data) and metric.least <= rows
    ]


def against_for(plan: Plan, setup: Setup) -> Against:
    """What the features of the plan's images are held against."""
    rows, file = plan.protocol.reference_rows, setup.reference
    return Against(setup.weights, rows, file, setup.watch, setup.note)


def missing(
    expected: set[Key], plan: Plan, setup: Setup, done: Mapping[Key, Mapping[str, Any]]
) -> set[Key]:
    """What of `expected` is not there.

    `done` maps the scores that are stored to their protocol: one of another extractor or reference
    than would be used today is missing.
    """
    against = against_for(plan, setup)
    today = {m.name: facts(m, against, plan) for m in metrics_for(plan, setup)}
    current = {
        key
        for key, stored in done.items()
        if all(stored.get(name) == value for name, value in today.get(key[1], {}).items())
    }
    return expected - current


def facts(metric: Metric, against: Against, plan: Plan) -> dict[str, Any]:
    """What decides a metric's value beside what it says itself: extractor, reference, code."""
    known = against.facts(metric, plan.data) if metric.extractor else {}
    return known | ({"metric_code": metric.code} if metric.code else {})


def floor_rows(plan: Plan) -> int:
    """How many rows the floor takes: as many as there are samples, if there are.

    Held-out ones, or up to half of the reference where nothing is held out.
    """
    data, n = plan.data, plan.protocol.samples
    if data.test is not None:
        return min(n, len(data.test))
    rows = min(plan.protocol.reference_rows or len(data.train), len(data.train), KEPT)
    return min(n, rows // 2) if data.kind == "image" else 0


def has_floor(metric: Metric, plan: Plan, setup: Setup) -> bool:
    """Whether the metric has a floor: with nothing held out, only those of kept features have."""
    if metric.least > floor_rows(plan):
        return False
    return plan.data.test is not None or (setup.reference is None and takes(metric))


def field_interval(plan: Plan, hook: Any) -> tuple[float, float] | None:
    """The canonical times between which the method's field is defined; None: it has none."""
    if not hook.velocity.get_hookimpls():
        return None
    return getattr(plan.method, "interval", WHOLE)


def expected_scores(plan: Plan, setup: Setup, interval: tuple[float, float] | None) -> set[Key]:
    """Every score that the plan leads to, for a field that is defined on `interval`."""
    metrics, n = metrics_for(plan, setup), plan.protocol.samples
    names = [metric.name for metric in metrics]
    run_level = ["parameters", "train-seconds", "train-images"]
    run_level += ["S", "S2"] if interval else []
    run_level += ["nll"] if interval == WHOLE and likelihood_rows(plan) else []
    facts = ["nfe"] + ["clipped"] * (plan.data.kind == "image")
    keys = {("model", name, RUN_LEVEL, 0) for name in run_level}
    keys |= {("model", name, nfe, 0) for name in COSTS for nfe in plan.nfe}
    keys |= {("model", name, nfe, n) for name in names + facts for nfe in plan.nfe}
    if floor_rows(plan):
        enough = [metric.name for metric in metrics if has_floor(metric, plan, setup)]
        keys |= {("floor", name, RUN_LEVEL, floor_rows(plan)) for name in enough}
    return keys


def likelihood_rows(plan: Plan) -> int:
    """How many held-out rows the likelihood takes: none for images, few in many dimensions."""
    if plan.data.kind != "vector" or plan.data.test is None:
        return 0
    most = ROWS if math.prod(plan.data.shape) <= FEW else COSTLY_ROWS
    return min(len(plan.data.test), most)
