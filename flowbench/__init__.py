"""flowbench: fair benchmarks for few-step generative models."""

from typing import Any

from flowbench.entries import Dataset, Metric, ReportFormat
from flowbench.hookspecs import hookimpl
from flowbench.records import Budget, Diverged, FlowbenchError, Protocol, Score, Spec

__all__ = [
    "Budget",
    "Dataset",
    "Diverged",
    "FlowbenchError",
    "Metric",
    "Protocol",
    "ReportFormat",
    "Score",
    "Spec",
    "hookimpl",
    "leaderboard",
    "results",
]


def __getattr__(name: str) -> Any:
    """`results` and `leaderboard` of `flowbench.notebook`, imported when they are asked for."""
    if name not in ("leaderboard", "results"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flowbench import notebook

    return getattr(notebook, name)
