"""Mean and covariance of features that arrive in blocks, in float64 and constant memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flowbench.records import FlowbenchError


class Moments(NamedTuple):
    """Mean (d,) and unbiased covariance (d, d), float64."""

    mean: Tensor
    covariance: Tensor


@dataclass
class Statistics:
    """`n` rows seen, their mean (d,), and `m2` (d, d), the sum of (x - mean)(x - mean)^T.

    Blocks are joined by the update of Chan, Golub and LeVeque 1979, so the result depends on their
    sizes and order by rounding only, also where the mean is large beside the spread.
    """

    n: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def empty(cls, dims: int, device: str | torch.device = "cpu") -> "Statistics":
        """No rows yet."""
        mean = torch.zeros(dims, dtype=torch.float64, device=device)
        return cls(0, mean, torch.outer(mean, mean))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> "Statistics":
        """The inverse of `tensors`."""
        parts = [tensors[f"{prefix}.{name}"] for name in ("n", "mean", "m2")]
        return cls(int(parts[0]), parts[1], parts[2])

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """All that there is to store, named `prefix.n`, `prefix.mean` and `prefix.m2`."""
        parts = {"n": torch.tensor(self.n), "mean": self.mean, "m2": self.m2}
        return {f"{prefix}.{name}": tensor for name, tensor in parts.items()}

    def add(self, features: Tensor) -> None:
        """See rows (b, d) of any float type; none are kept."""
        if len(features) == 0:
            return
        x = features.to(self.mean)
        mean = x.mean(0)
        centred = x - mean
        self.m2.addmm_(centred.T, centred)
        self._shift(len(x), mean)

    def merge(self, other: "Statistics") -> None:
        """See all rows that `other` has seen."""
        self.m2 += other.m2.to(self.m2)
        self._shift(other.n, other.mean.to(self.mean))

    def without(self, other: "Statistics") -> "Statistics":
        """The statistics of the rows that `other` has not seen, where it has seen some of these."""
        left = self.n - other.n
        mean = (self.n * self.mean - other.n * other.mean.to(self.mean)) / left
        delta = other.mean.to(self.mean) - mean
        m2 = self.m2 - other.m2.to(self.m2)
        return Statistics(left, mean, m2.addr(delta, delta, alpha=-other.n * left / self.n))

    def _shift(self, n: int, mean: Tensor) -> None:
        """Account for the distance between the two means, and count the `n` new rows."""
        if n == 0:
            return
        total, delta = self.n + n, mean - self.mean
        self.m2.addr_(delta, delta, alpha=self.n * n / total)
        self.mean += delta * (n / total)
        self.n = total

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (d, d); raises FlowbenchError below two rows."""
        if self.n < 2:
            raise FlowbenchError(f"a covariance takes at least 2 rows, not {self.n}")
        return (self.m2 + self.m2.T) / (2 * (self.n - 1))

    @property
    def moments(self) -> Moments:
        """Mean and covariance, as a Fréchet distance takes them."""
        return Moments(self.mean, self.covariance)
