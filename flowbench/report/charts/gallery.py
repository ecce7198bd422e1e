"""All charts of a section."""

from collections.abc import Sequence

from flowbench.comparison.view import Section
from flowbench.report.charts import words
from flowbench.report.charts.dots import straightness
from flowbench.report.charts.pareto import pareto
from flowbench.report.charts.quality import quality
from flowbench.report.charts.training import Logs, training
from flowbench.report.document import Chart


def charts(
    section: Section, metrics: Sequence[str], labels: Sequence[str] = (), logs: Logs | None = None
) -> tuple[Chart, ...]:
    """Those for which there are numbers: quality of each metric, costs of the first, S, training.

    `labels` are all that occur in the document, so that each looks the same everywhere.
    """
    found = [quality(section, metric, labels) for metric in metrics]
    found += [
        pareto(section, metric, cost, labels) for metric in metrics[:1] for cost in words.COSTS
    ]
    found += [straightness(section, labels), training(section, logs or {}, labels)]
    return tuple(chart for chart in found if chart is not None)
