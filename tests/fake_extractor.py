"""A feature extractor of a few numbers, which counts what goes through it."""

import weakref

import torch

from flowbench.metrics.extractors import Features

DIMS = 6


class Fake:
    """Random projections of pixels, as an `Extractor`; `fail_after` images it raises."""

    name, device, batch = "fake", "cpu", 0

    def __init__(self, fail_after=None, spatial=True, seed=0, failure=KeyboardInterrupt):
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.randn(3 * 8 * 8, DIMS, generator=generator)
        self.protocol = {"name": "fake", "weights": f"{seed:064d}"}
        self.fail_after, self.spatial, self.failure = fail_after, spatial, failure
        self.images = self.alive = self.most_alive = 0

    def __call__(self, images):
        if self.fail_after is not None and self.images + len(images) > self.fail_after:
            raise self.failure
        self.images += len(images)
        pool = images.expand(-1, 3, -1, -1).flatten(1).float() / 255 @ self.matrix
        self.count(len(pool))
        weakref.finalize(pool, self.count, -len(pool))
        return Features(pool, None, pool[:, :4].square() if self.spatial else None)

    def count(self, rows):
        """How many rows of features are held by anyone."""
        self.alive += rows
        self.most_alive = max(self.most_alive, self.alive)


def features_of(images):
    """The same features in float64, by hand."""
    x = images.expand(-1, 3, -1, -1).flatten(1).double() / 255
    return x @ Fake().matrix.double()
