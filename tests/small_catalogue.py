"""The catalogue of data sets with budgets that take no time, so that words of commands may stay."""

from dataclasses import replace

import flowbench.data
from flowbench import Budget, hookimpl

BUDGET, SAMPLES = Budget(3, 16), 48


def shrink(monkeypatch):
    """Give every data set of flowbench, and any folder of images, a tiny budget and few samples."""
    from flowbench.data import images

    real = flowbench.data.datasets

    @hookimpl
    def datasets():
        return [replace(d, budget=BUDGET, samples=min(d.samples, SAMPLES)) for d in real()]

    monkeypatch.setattr(flowbench.data, "datasets", datasets)
    monkeypatch.setattr(images, "BUDGET", BUDGET)
    monkeypatch.setattr(images, "SAMPLES", SAMPLES)
