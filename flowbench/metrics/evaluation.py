"""What a metric is given: samples, the real data, and features that are computed once."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowbench.data.base import Data, spread
from flowbench.metrics import classifier

REFERENCE_ROWS = 50_000


@dataclass(frozen=True)
class Evaluation:
    """Samples (n, *shape) scaled as the data are, with the data that they are held against.

    Real held-out rows in the place of the samples give a metric's floor.
    """

    samples: Tensor
    data: Data

    @cached_property
    def reference(self) -> Tensor:
        """The training split, or 50 000 of its rows at equal distances."""
        return self.data.train.spread(REFERENCE_ROWS)[0]

    def matched(self, most: int) -> tuple[Tensor, Tensor]:
        """As many samples as reference rows, at most `most`, at equal distances in each."""
        n = min(most, len(self.samples), len(self.reference))
        return self.samples[spread(len(self.samples), n)], self.reference[
            spread(len(self.reference), n)
        ]

    @property
    def network(self) -> classifier.Classifier:
        """The shipped classifier of these data."""
        assert self.data.classifier is not None
        return classifier.load(self.data.classifier, self.data.device)

    @cached_property
    def features(self) -> Tensor:
        """Classifier features of the samples (n, 64)."""
        return self._features(self.samples)

    @cached_property
    def reference_features(self) -> Tensor:
        """Classifier features of the reference (m, 64)."""
        return self._features(self.reference)

    @cached_property
    def logits(self) -> Tensor:
        """Class logits of the samples (n, classes)."""
        return self.network.output(self.features)

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        return torch.cat([self.network.features(part) for part in x.split(512)])
