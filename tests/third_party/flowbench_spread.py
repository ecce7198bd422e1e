"""An extension: one data set and one metric."""

from flowbench import Budget, Dataset, Metric, hookimpl


def ring(root):
    """A circle with a little noise."""
    import numpy as np

    from flowbench.data.base import Arrays

    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.standard_normal((2000, 2))
    return Arrays(train=points[:1500].astype(np.float32), test=points[1500:].astype(np.float32))


@hookimpl
def datasets():
    return [Dataset("ring", "a circle", ring, Budget(20, 32), samples=200)]


@hookimpl
def metrics():
    return [Metric("spread", lambda e: float(e.samples.std()), goal="", summary="for the test")]
