"""The metrics of images that are made of a large network's features. Listing needs no torch."""

from collections.abc import Callable
from typing import Any

from flowbench.entries import Metric

LEAST = 32  # pixels of a side


def _fid(name: str) -> Callable[[Any], float]:
    def score(e) -> float:
        from flowbench.metrics.frechet import frechet_distance

        return frechet_distance(e.extracted(name).pool, e.exact(name))

    return score


def _sfid(e) -> float:
    from flowbench.metrics.frechet import frechet_distance

    return frechet_distance(e.extracted("inception").spatial, tuple(e.real("inception").spatial))


def _is(e) -> float:
    from flowbench.metrics.scores import split_inception_score

    return split_inception_score(e.extracted("inception").logits)[0]


def _kid(e) -> float:
    from flowbench.metrics.kernel import kernel_distance

    return kernel_distance(e.extracted("inception").pool, e.kept("inception"))


def _kid_subsets(e) -> float:
    from flowbench.metrics.kernel import subset_kernel_distance

    return subset_kernel_distance(e.extracted("inception").pool, e.kept("inception"))[0]


def _share(name: str) -> Callable[[Any], float]:
    return lambda e: getattr(e.manifold, name)


def _protocol(extractor: str, **more: Any) -> Callable[[Any], dict[str, Any]]:
    """What a number depends on beside weights and reference; `more` are the metric's settings."""
    return lambda e: {**more, "extractor": e.extractor(extractor).protocol}


def _logits_protocol(e) -> dict[str, Any]:
    from flowbench.metrics import scores

    settings = {"splits": scores.SPLITS, "shuffle": scores.SEED, "logits": "unbiased"}
    return _protocol("inception", **settings)(e)


def _is_large(data) -> bool:
    """Whether images are such that a network of ImageNet's photographs sees something in them."""
    return data.kind == "image" and min(data.shape[1:]) >= LEAST


def _metric(
    name: str, score, goal: str, summary: str, extractor: str = "inception", **more: Any
) -> Metric:
    least, needs = more.pop("least", 2), more.pop("needs", "")
    protocol = more.pop("protocol", None) or _protocol(extractor, **more)
    return Metric(name, score, goal, summary, _is_large, protocol, extractor, needs, least)


METRICS = [
    _metric("fid", _fid("inception"), "min", "Fréchet distance of Inception's features"),
    _metric(
        "is",
        _is,
        "max",
        "inception score, mean over 10 splits",
        needs="logits",
        least=10,
        protocol=_logits_protocol,
    ),
    _metric(
        "kid",
        _kid,
        "min",
        "kernel distance of Inception's features, from all rows",
        needs="features",
        estimator="unbiased, all rows",
    ),
    _metric(
        "kid-subsets",
        _kid_subsets,
        "min",
        "the same as most papers take it: the mean over 100 subsets of 1000",
        needs="features",
        least=1000,
        estimator="100 subsets of 1000, seed 2020",
    ),
    *[
        _metric(
            name,
            _share(name),
            "max",
            f"{name} of Inception's features, k = {k}",
            needs="features",
            least=6,
            k=k,
        )
        for name, k in (("precision", 3), ("recall", 3), ("density", 5), ("coverage", 5))
    ],
    _metric(
        "sfid",
        _sfid,
        "min",
        "Fréchet distance of Inception's spatial features (mixed_6)",
        needs="spatial",
        layer="mixed_6/conv, first 7 channels",
    ),
    _metric(
        "fid-clean",
        _fid("clean"),
        "min",
        "fid by the protocol of clean-fid: PIL's bicubic resize",
        "clean",
    ),
    _metric(
        "fd-dinov2",
        _fid("dinov2"),
        "min",
        "Fréchet distance of DINOv2's features",
        "dinov2",
    ),
]
