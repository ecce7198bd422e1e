"""The floor of data that hold nothing back: images of the reference, held against the others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowbench.data.base import scattered
from flowbench.entries import Metric
from flowbench.metrics.evaluation import Evaluation
from flowbench.metrics.extractors import Features
from flowbench.metrics.statistics import Statistics


def takes(metric: Metric) -> bool:
    """Whether the metric is made of pool features alone, which are all that is kept."""
    return bool(metric.extractor) and metric.needs in ("", "features")


@dataclass(frozen=True)
class TakenOut(Evaluation):
    """`n` images of the training split's reference in the samples' place.

    They are taken out of the statistics and features that they are held against, so no image is
    compared with itself; no image goes through the network again.
    """

    n: int = 0

    def extracted(self, name: str) -> Features:
        """The features of the images that were taken out."""
        features = super().kept(name)
        return Features(features[self._mask(features)])

    def exact(self, name: str) -> Tensor | tuple[Tensor, Tensor]:
        """The reference without them."""
        real = self.real(name)
        assert real.n is not None and real.features is not None
        if real.n - self.n <= len(real.pool.mean):
            return self.kept(name)
        whole = Statistics(real.n, real.pool.mean, real.pool.covariance * (real.n - 1))
        out = Statistics.empty(len(real.pool.mean))
        out.add(real.features[self._mask(real.features)])
        return whole.without(out).moments

    def kept(self, name: str) -> Tensor:
        """The reference's features without theirs."""
        features = super().kept(name)
        return features[~self._mask(features)]

    def _mask(self, features: Tensor) -> Tensor:
        mask = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        mask[scattered(len(features), self.n)] = True
        return mask
