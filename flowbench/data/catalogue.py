"""Which data sets come with flowbench, and where their loaders are."""

from importlib import import_module

from flowbench.hookspecs import hookimpl
from flowbench.records import Budget, Dataset

TOY = Budget(steps=4000, batch=256)


def _loader(place: str):
    """A loader whose module is imported only when it is called."""
    module, function = place.split(":")
    return lambda root: getattr(import_module(f"flowbench.data.{module}"), function)(root)


def _normal(dim: int) -> Dataset:
    return Dataset(
        f"gaussian{dim}",
        f"N(0, I) in {dim} dimensions, noise as data",
        lambda root: import_module("flowbench.data.vectors").normal(dim),
        TOY,
        4000,
    )


def _archive(name: str, summary: str, stem: str, remark: str = "") -> Dataset:
    return Dataset(
        name,
        summary,
        lambda root: import_module("flowbench.data.archive").archive(root, name, stem),
        budget=Budget(steps=100_000, batch=512),
        samples=50_000,
        needs=f"--data-root DIR with {stem}.zip or {stem}-train.zip in it (EDM's zip layout)",
        remark=remark,
    )


@hookimpl
def datasets():
    return [
        Dataset(
            "digits",
            "1797 handwritten digits, 8x8 grey, 10 classes",
            _loader("digits:digits"),
            budget=Budget(steps=1000, batch=64),
            samples=600,
        ),
        Dataset(
            "mog128",
            "two Gaussians in 128 dimensions (LMM paper, Table 1)",
            _loader("vectors:mog128"),
            budget=TOY,
            samples=4000,
        ),
        Dataset("moons", "two half circles, 2-D", _loader("vectors:moons"), TOY, 4000),
        Dataset("checkerboard", "a 4x4 board, 2-D", _loader("vectors:checkerboard"), TOY, 4000),
        Dataset("8gaussians", "8 modes on a circle", _loader("vectors:eight_gaussians"), TOY, 4000),
        Dataset("rose", "five petals, 2-D", _loader("vectors:rose"), TOY, 4000),
        *[_normal(dim) for dim in (2, 16, 128)],
        _archive("cifar10", "CIFAR-10, 32x32, 10 classes", "cifar10-32x32"),
        _archive(
            "cifar10-jpeg",
            "CIFAR-10 re-encoded as JPEG, 32x32",
            "cifar10-jpeg-32x32",
            remark="re-encoded as JPEG: not comparable with published CIFAR-10 numbers",
        ),
        _archive("imagenet64", "ImageNet, EDM's 64x64, 1000 classes", "imagenet-64x64"),
    ]
