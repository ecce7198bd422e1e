"""The catalogue of metrics. Computing one imports torch; listing them does not."""

from flowbench.metrics.catalogue import metrics

__all__ = ["metrics"]
