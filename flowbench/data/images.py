"""Data sets that a user names by the path of an archive or a folder of images."""

from pathlib import Path

from flowbench.data import recipes
from flowbench.entries import Dataset
from flowbench.records import Budget, FlowbenchError

BUDGET = Budget(steps=100_000, batch=512)  # what data sets of images cost by default
SAMPLES = 50_000


def find(name: str, root: Path | None) -> Path | None:
    """The archive or folder that `name` means: a path, or a stem of one under `root`.

    None for a word that is no path; raises FlowbenchError for a path where nothing is.
    """
    path = Path(name).expanduser()
    if path.suffix == ".zip" or len(path.parts) > 1 or path.is_dir():
        if not path.exists():
            raise FlowbenchError(f"{path} is no archive and no folder of images")
        return path
    places = recipes.places(root, name) if root is not None else []
    return next((place for place in places if place.exists()), None)


def stem(path: Path) -> str:
    """What the data set is called: `birds` for birds.zip, birds-train.zip and the folder birds."""
    name = path.resolve().stem if path.suffix == ".zip" else path.resolve().name
    return name.removesuffix("-train")


def entry(path: Path) -> Dataset:
    """A catalogue's entry for the images at `path`; `-test` beside a `-train` is held out."""

    def load(root: Path | None, watch=None):
        from flowbench.data import archive

        place = path.resolve()
        if place.stem.endswith("-train"):
            held_out = place.with_name(f"{stem(place)}-test{place.suffix}")
            if held_out.exists():
                return archive.read(place, held_out, watch)
        return archive.by_path(place, watch)

    return Dataset(stem(path), f"the images of {path.name}", load, BUDGET, SAMPLES)
