"""Oxford Flowers in the layout that torchvision downloads: jpg/, imagelabels.mat, setid.mat."""

from pathlib import Path

import numpy as np

from flowbench.data.sources import Source
from flowbench.records import FlowbenchError

SETS = {"train": ["trnid"], "val": ["valid"], "test": ["tstid"]}
SETS["all"] = ["trnid", "valid", "tstid"]


def flowers(path: Path, split: str) -> Source:
    """The images of a split in the order of their numbers, with labels from 0.

    `path` holds `jpg/image_00001.jpg` and so on, or the folder flowers-102 that does. Raises
    FlowbenchError that names a missing or damaged file.
    """
    home = path if (path / "jpg").is_dir() else path / "flowers-102"
    table = _column(home / "imagelabels.mat", "labels")
    numbers = np.sort(np.concatenate([_column(home / "setid.mat", key) for key in SETS[split]]))
    if not len(numbers) or numbers[0] < 1 or numbers[-1] > len(table):
        raise FlowbenchError(f"{home / 'setid.mat'} names images that imagelabels.mat lacks")
    files = [home / "jpg" / f"image_{number:05d}.jpg" for number in numbers]
    labels = table[numbers - 1] - 1
    if labels.min() < 0:
        raise FlowbenchError(f"{home / 'imagelabels.mat'} holds labels below 1")
    tables = [home / "imagelabels.mat", home / "setid.mat"]
    state = [(file.name, *_facts(file)) for file in [*tables, *files]]
    names = [f"jpg/{file.name}" for file in files]
    return Source(home, names, lambda name: (home / name).read_bytes(), labels, state)


def _facts(file: Path) -> tuple[int, int]:
    try:
        fact = file.stat()
    except OSError as error:
        raise FlowbenchError(f"{file} is missing: extract 102flowers.tgz anew") from error
    return fact.st_size, fact.st_mtime_ns


def _column(file: Path, key: str) -> np.ndarray:
    """One row of whole numbers from a MATLAB file."""
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(file)[key]).astype(np.int64).reshape(-1)
    except Exception as error:  # SciPy's reader raises whatever a damaged file leads it to
        raise FlowbenchError(f"{file} cannot be read as a table of {key}: {error}") from error
