"""Which metrics come with flowbench. Listing them does not import torch."""

import math

from flowbench.entries import Metric
from flowbench.hookspecs import hookimpl
from flowbench.metrics import images

# Copies are looked for among all training images of a small set; in larger ones, which share of
# the samples is held against how many rows is a matter of time.
WHOLE, SAMPLES, ROWS = 10_000, 1000, 100_000
SLICED = 1024  # entries of an example up to which random directions tell something


def _is_small(data) -> bool:
    return math.prod(data.shape) <= SLICED


def _is_vector(data) -> bool:
    return data.kind == "vector"


def _has_modes(data) -> bool:
    return data.modes is not None


def _has_classifier(data) -> bool:
    return data.classifier is not None


def _fd(e) -> float:
    from flowbench.metrics.frechet import frechet_distance

    return frechet_distance(e.samples, e.reference)


def _sliced(e) -> float:
    from flowbench.metrics import wasserstein

    return wasserstein.sliced(*e.matched(len(e.samples)))


def _exact(e) -> float:
    from flowbench.metrics import wasserstein

    return wasserstein.exact(*e.matched(wasserstein.EXACT_ROWS))


def _share(e) -> float:
    from flowbench.metrics.modes import share_within

    return share_within(e.samples, e.data.modes)


def _per_mode(e) -> float:
    from flowbench.metrics.modes import per_mode_w2

    return per_mode_w2(e.samples, e.reference, e.data.modes)


def _fd_classifier(e) -> float:
    from flowbench.metrics.frechet import frechet_distance

    return frechet_distance(e.features, e.reference_features)


def _is_classifier(e) -> float:
    from flowbench.metrics.scores import inception_score

    return inception_score(e.logits)


def _memorised(e) -> float:
    from flowbench.metrics.neighbours import memorised

    if len(e.data.train) <= WHOLE:
        return memorised(e.samples, e.reference)
    samples, rows = _compared(e)
    return memorised(e.pixels[samples.to(e.pixels.device)], e.data.train.values[rows])


def _compared(e):
    """Which samples of many are held against which rows of a large training set."""
    from flowbench.data.base import scattered

    return scattered(len(e.samples), SAMPLES), scattered(len(e.data.train), ROWS)


def _reference(e) -> dict:
    from flowbench.metrics.evaluation import REFERENCE_ROWS

    rows = min(len(e.data.train), REFERENCE_ROWS)
    return {"data": e.data.sha256, "reference": ["train", rows]}


def _sliced_protocol(e) -> dict:
    from flowbench.metrics import wasserstein

    rows = min(len(e.samples), len(e.reference))
    return {**_reference(e), "rows": rows, "directions": wasserstein.DIRECTIONS}


def _exact_protocol(e) -> dict:
    from flowbench.metrics import wasserstein

    return {**_reference(e), "rows": len(e.matched(wasserstein.EXACT_ROWS)[0])}


def _per_mode_protocol(e) -> dict:
    from flowbench.metrics import modes

    return {**_reference(e), "rows_per_mode": modes.ROWS}


def _share_protocol(e) -> dict:
    return {"data": e.data.sha256, "radius": 3.0}


def _classifier_protocol(e) -> dict:
    from flowbench.metrics import classifier

    return {**_reference(e), "extractor": classifier.SHIPPED[e.data.classifier]}


def _memorised_protocol(e) -> dict:
    from flowbench.metrics import neighbours

    facts = {**_reference(e), "ratio": neighbours.RATIO}
    if len(e.data.train) <= WHOLE:
        return facts
    samples, rows = _compared(e)
    return {**facts, "reference": ["train", len(rows)], "samples": len(samples)}


@hookimpl
def metrics():
    return [
        Metric(
            "fd-clf",
            _fd_classifier,
            "min",
            "Fréchet distance of a small classifier's features; not FID",
            _has_classifier,
            _classifier_protocol,
        ),
        Metric(
            "is-clf",
            _is_classifier,
            "floor",  # blurred means of the classes score above real data
            "inception-score formula on a small classifier; not IS",
            _has_classifier,
            _classifier_protocol,
        ),
        Metric(
            "memorised",
            _memorised,
            "",
            "share of samples three times nearer to one training image than to any other",
            lambda data: data.kind == "image",
            _memorised_protocol,
        ),
        Metric("fd", _fd, "min", "Fréchet distance of raw coordinates", _is_vector, _reference),
        Metric("sw2", _sliced, "min", "sliced Wasserstein-2", _is_small, _sliced_protocol),
        # Few points in many dimensions: samples that shrank to the centre come nearer to all of
        # them than real data do, so the best value is that of real data and not the smallest.
        Metric("w2", _exact, "floor", "exact Wasserstein-2 by POT", _is_vector, _exact_protocol),
        Metric(
            "w2-mode",
            _per_mode,
            "min",
            "mean over the known modes of the exact Wasserstein-2 within each",
            _has_modes,
            _per_mode_protocol,
        ),
        Metric(
            "in-mode",
            _share,
            "max",
            "share of samples within 3 standard deviations of a known mode",
            _has_modes,
            _share_protocol,
        ),
        *images.METRICS,
    ]
