"""Which data sets come with flowbench, and where their loaders are."""

from importlib import import_module

from flowbench.data import images, recipes
from flowbench.entries import Dataset
from flowbench.hookspecs import hookimpl
from flowbench.records import Budget

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


NETWORKS = {  # EDM, Table 7, with its dropout; other sets get one by their size
    "imagenet64": "adm",
    "imagenet64-adm": "adm",
    "imagenet64-box": "adm",
    "afhq64": "ddpmpp,mult=1-2-2-2,dropout=0.25",
    "ffhq64": "ddpmpp,mult=1-2-2-2,dropout=0.05",
    "flowers128": "ddpmpp,mult=1-1-2-2-2",
}


def _archive(recipe: recipes.Recipe) -> Dataset:
    name, stem = recipe.name, recipe.stem

    def load(root, watch=None):
        return import_module("flowbench.data.archive").archive(root, name, stem, watch)

    return Dataset(
        name,
        recipe.summary,
        load,
        budget=images.BUDGET,
        samples=images.SAMPLES,
        needs=f"--data-root DIR with {stem}.zip or {stem}-train.zip: see `flowbench data list`",
        remark=recipe.remark,
        network=NETWORKS.get(name, ""),
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
        *[_archive(recipe) for recipe in recipes.RECIPES.values()],
    ]
