"""flowbench: fair benchmarks for few-step generative models."""

from flowbench.hookspecs import hookimpl
from flowbench.records import (
    Budget,
    Dataset,
    Diverged,
    FlowbenchError,
    Metric,
    Protocol,
    Score,
    Spec,
)

__all__ = [
    "Budget",
    "Dataset",
    "Diverged",
    "FlowbenchError",
    "Metric",
    "Protocol",
    "Score",
    "Spec",
    "hookimpl",
]
