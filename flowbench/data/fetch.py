"""Downloading the sources of image sets that are free to fetch, with torchvision's checksums."""

from pathlib import Path

from flowbench import cache
from flowbench.data.recipes import Recipe
from flowbench.records import Absent, RunFailed


def fetch(recipe: Recipe) -> Path:
    """The downloaded source of `recipe` in the cache; nothing is fetched twice.

    Raises Absent for sets that have to be asked for by a person, RunFailed where the download
    fails or its checksum is wrong.
    """
    if recipe.reader not in ("cifar", "flowers"):
        raise Absent(
            f"{recipe.name} cannot be downloaded by a program: get {recipe.get}, then"
            f" `flowbench data prepare {recipe.name} --source PATH`"
        )
    folder = cache.folder("downloads")
    try:
        return _cifar(folder) if recipe.reader == "cifar" else _flowers(folder)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise RunFailed(f"the download of {recipe.name} failed: {error}; try it again") from error


def _cifar(folder: Path) -> Path:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_url

    download_url(CIFAR10.url, str(folder), CIFAR10.filename, CIFAR10.tgz_md5)
    return folder / CIFAR10.filename


def _flowers(folder: Path) -> Path:
    from torchvision.datasets import Flowers102

    Flowers102(str(folder), download=True)
    return folder / "flowers-102"
