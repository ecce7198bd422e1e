"""Which metrics come with flowbench. Listing them does not import torch."""

from flowbench.hookspecs import hookimpl
from flowbench.records import Metric


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
    from flowbench.metrics.classifier import inception_score

    return inception_score(e.logits)


def _memorised(e) -> float:
    from flowbench.metrics.neighbours import memorised

    return memorised(e.samples, e.reference)


def _reference(e) -> dict:
    return {"data": e.data.sha256, "reference": ["train", len(e.reference)]}


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

    return {**_reference(e), "ratio": neighbours.RATIO}


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
            lambda data: data.kind == "image" and len(data.train) <= 10_000,
            _memorised_protocol,
        ),
        Metric("fd", _fd, "min", "Fréchet distance of raw coordinates", _is_vector, _reference),
        Metric("sw2", _sliced, "min", "sliced Wasserstein-2", protocol=_sliced_protocol),
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
    ]
