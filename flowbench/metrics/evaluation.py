"""What a metric is given: samples, the real data, and features that are computed once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowbench.checkpoints import file_hash
from flowbench.data.base import Data, quantise, spread
from flowbench.entries import Metric
from flowbench.metrics import classifier
from flowbench.metrics.extractors import Extractor, Features, load, shared
from flowbench.metrics.manifold import Manifold, manifold
from flowbench.metrics.reference_files import DIMS, read
from flowbench.metrics.references import Reference, build
from flowbench.records import FlowbenchError
from flowbench.training import Progress, ignore

REFERENCE_ROWS = 50_000


@dataclass(frozen=True)
class Against:
    """What features of images are held against: the training split, or statistics of a file.

    `weights` are files by extractor; `rows` of the training split are drawn
    with a fixed seed, None: all. Statistics of a `file` take the place of the split for the metrics
    that need no more than mean and covariance.
    """

    weights: Mapping[str, Path] = field(default_factory=dict)
    rows: int | None = None
    file: Path | None = None
    watch: Callable[[Progress], None] = ignore
    note: Callable[[str], None] = lambda text: None

    def serves(self, metric: Metric, data: Data) -> bool:
        """Whether the metric can be computed with what is here."""
        if not metric.extractor:
            return True
        if metric.extractor not in self.weights or data.kind != "image":
            return False
        if self.file is None or metric.needs == "logits":
            return True
        found = statistics_of(self.file, metric.extractor)
        return found is not None and (
            not metric.needs or (metric.needs == "spatial" and found.spatial is not None)
        )

    def facts(self, metric: Metric, data: Data) -> dict[str, Any]:
        """What decides whether two numbers of the metric may be compared, known beforehand."""
        weights = {"weights": _hash(self.weights[metric.extractor])}
        if metric.needs == "logits":
            return weights
        if self.file is not None:
            reference: dict[str, Any] = {"file": _hash(self.file)}
        else:
            rows = min(self.rows or len(data.train), len(data.train))
            reference = {"data": data.sha256, "split": "train", "rows": rows}
        return {**weights, "reference": reference}


@cache
def _hash(path: Path) -> str:
    return file_hash(path)


@cache
def statistics_of(path: Path, extractor: str) -> Reference | None:
    """The statistics in a file, read once, or None where they are of another extractor.

    Files of 2048 features do not say how images were resized; clean-fid names its own so.
    Raises FlowbenchError for a file that holds no statistics.
    """
    if extractor == ("inception" if "_clean_" in path.name else "clean"):
        return None
    try:
        return read(path, extractor)
    except FlowbenchError:
        if any(_holds(path, other) for other in DIMS if other != extractor):
            return None
        raise


def _holds(path: Path, extractor: str) -> bool:
    """Whether a file has statistics of this extractor's features."""
    try:
        return bool(read(path, extractor))
    except FlowbenchError:
        return False


@dataclass(frozen=True)
class Evaluation:
    """Samples (n, *shape) scaled as the data are, with the data that they are held against.

    Real held-out rows in the place of the samples give a metric's floor.
    """

    samples: Tensor
    data: Data
    against: Against = field(default_factory=Against)
    _extracted: dict[str, Features] = field(default_factory=dict)
    _real: dict[str, Reference] = field(default_factory=dict)

    def extractor(self, name: str) -> Extractor:
        """The network of that name on the data's device."""
        return load(name, self.against.weights[name], self.data.device)

    def extracted(self, name: str) -> Features:
        """Features of the samples, in one pass for all metrics."""
        if name not in self._extracted:
            self._extracted[name] = shared(self.extractor(name), self.pixels, self.against.watch)
        return self._extracted[name]

    @cached_property
    def pixels(self) -> Tensor:
        """The samples as uint8 images."""
        return torch.cat([quantise(part) for part in self.samples.split(1000)])

    def real(self, name: str) -> Reference:
        """What the features are held against; built once for all runs, and kept."""
        if self.against.file is not None:
            found = statistics_of(self.against.file, name)
            assert found is not None
            return found
        if name not in self._real:
            split, rows = self.data.train, self.against.rows
            self._real[name] = build(
                *(split, self.data.sha256, "train", self.extractor(name), rows),
                watch=self.against.watch,
                note=self.against.note,
                label=self.data.name,
            )
        return self._real[name]

    def exact(self, name: str) -> Tensor | tuple[Tensor, Tensor]:
        """The reference as `frechet_distance` takes it: where rows are fewer than dimensions, the
        features themselves, because nothing is lost to a covariance then."""
        real = self.real(name)
        few = real.n is not None and real.n <= len(real.pool.mean)
        return real.features if few and real.features is not None else real.pool

    def kept(self, name: str) -> Tensor:
        """Features of the reference's images, at most 50 000, on the data's device."""
        features = self.real(name).features
        assert features is not None
        return features.to(self.data.device)

    @cached_property
    def manifold(self) -> Manifold:
        """Precision, recall, density and coverage of Inception's features."""
        return manifold(self.extracted("inception").pool, self.kept("inception"))

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

    @property
    def _small(self) -> Extractor:
        """The same as an extractor."""
        assert self.data.classifier is not None
        return classifier.extractor(self.data.classifier, self.data.device)

    @cached_property
    def _classified(self) -> Features:
        return shared(self._small, self.pixels, self.against.watch)

    @property
    def features(self) -> Tensor:
        """Classifier features of the samples (n, d)."""
        return self._classified.pool

    @property
    def logits(self) -> Tensor:
        """Class logits of the samples (n, classes)."""
        assert self._classified.logits is not None
        return self._classified.logits

    @cached_property
    def reference_features(self) -> Tensor:
        """Classifier features of the reference (m, d); made once for all runs, and kept."""
        made = build(
            *(self.data.train, self.data.sha256, "train", self._small),
            watch=self.against.watch,
            note=self.against.note,
            label=self.data.name,
        )
        assert made.features is not None
        return made.features.to(self.data.device)
