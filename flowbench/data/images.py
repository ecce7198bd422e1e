"""Data sets that a user names by the path of an archive or a folder of images."""

from pathlib import Path

from flowbench.records import Budget, Dataset, FlowbenchError

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
    beside = [root / f"{name}.zip", root / name] if root is not None else []
    return next((place for place in beside if place.exists()), None)


def stem(path: Path) -> str:
    """What the data set is called."""
    return path.resolve().stem if path.suffix == ".zip" else path.resolve().name


def entry(path: Path) -> Dataset:
    """A catalogue's entry for the images at `path`."""

    def load(root: Path | None):
        from flowbench.data import archive

        return archive.by_path(path)

    return Dataset(stem(path), f"the images of {path.name}", load, BUDGET, SAMPLES)
