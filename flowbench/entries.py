"""What plugins add to the catalogues: data sets, metrics, formats of reports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flowbench.records import Budget

USUAL = Budget(2000, 256)


@dataclass(frozen=True)
class Metric:
    """A number made from samples.

    `score(evaluation)` gets a `metrics.evaluation.Evaluation` and returns a float;
    `protocol(evaluation)` the facts that must agree before two such numbers may be compared;
    `applies(data)` says for which data it is defined. `goal` is "min", "max", "floor" (nearest to
    the value of real held-out data) or "". `extractor` names the network whose features it is made
    of, whose weights a user supplies; `needs` is what it takes beside their mean and covariance:
    "features" or "spatial" of the reference, or "logits" and no reference; `least` the fewest rows
    for which it is defined.
    """

    name: str
    score: Callable[[Any], float]
    goal: str = "min"
    summary: str = ""
    applies: Callable[[Any], bool] = lambda data: True
    protocol: Callable[[Any], Mapping[str, Any]] = lambda evaluation: {}
    extractor: str = ""
    needs: str = ""
    least: int = 2
    code: str = ""  # the hash of a third party's code, filled in by flowbench


@dataclass(frozen=True)
class Dataset:
    """A data set by name: how to load it, and what a run on it costs by default.

    `load(root)` returns `data.base.Arrays` (decoded, on the host, perhaps memory-mapped);
    `root` is the folder of `--data-root` or None. One with an argument `watch` is told who hears
    of its progress. `needs` says in words which files it takes.
    """

    name: str
    summary: str
    load: Callable[[Any], Any]
    budget: Budget = USUAL
    samples: int = 1000
    needs: str = ""
    remark: str = ""  # what a reader of any table made with these data must know
    network: str = ""  # the backbone of methods, as `--network` takes it; none: by size


@dataclass(frozen=True)
class ReportFormat:
    """A format of `flowbench report`, by name: what writes it, and the endings of its files.

    `render(report)` gets a `report.request.Report` and returns the content, text or bytes.
    """

    name: str
    summary: str
    endings: tuple[str, ...]
    render: Callable[[Any], str | bytes]
