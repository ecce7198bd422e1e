"""From uint8 images to Inception's features and to scores, against torch-fidelity and clean-fid.

All programs read one file of weights and the same pixels, and both sets go through the network.
The facts of each result say how far apart the numbers are.
"""

import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.speed import inception_file
from benchmarks.speed.harness import LeftOut, Result, alternate, missing, repeat
from flowbench.metrics import extractors
from flowbench.metrics.frechet import frechet_distance
from flowbench.metrics.kernel import kernel_distance, subset_kernel_distance
from flowbench.metrics.manifold import manifold
from flowbench.metrics.scores import split_inception_score

FIDELITY, CLEAN = "torch-fidelity 0.4.0", "clean-fid 0.1.35"
GOAL = "at least 2.5 times as fast"
SPLITS, SUBSETS = 10, 100  # torch-fidelity's defaults
NAMES = {
    "fid": "frechet_inception_distance",
    "is": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
    "precision": "precision",
    "recall": "recall",
}


def measure(quick: bool) -> Iterator[Result | LeftOut]:
    """Features alone, all scores, clean-fid's FID; then the scores of stored features."""
    reason = missing("torch_fidelity")
    if reason is not None:
        yield LeftOut("features and scores of images", reason)
    else:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = inception_file.write(Path(folder) / "inception.pth")
            yield features(path, quick)
            yield scores(path, quick)
            yield (
                LeftOut("FID of two folders", "no --quick: its root takes 10 s")
                if quick
                else clean(path)
            )
            extractors.load.cache_clear()
    yield from growing(quick)


def features(path: Path, quick: bool) -> Result:
    """The network with its resizing, each program at the batch that it takes by itself."""
    images = inception_file.pictures(2 if quick else 64, 1, 1.0)
    network, ours = _theirs(path), extractors.load("inception", path, "cpu")
    found, expected = extractors.extract(ours, images).pool, network(images)[0]
    error = ((found - expected).norm() / expected.norm()).item()
    times = alternate(
        lambda: extractors.extract(ours, images), lambda: network(images), 1 if quick else 5, 0
    )
    facts = {"count": len(images), "size": "32x32", "relative feature error": error}
    facts |= {"batch": extractors.CPU_BATCH, "their batch": 64, "dtype": "float32"}
    name = "Inception features, 32x32 images"
    return Result(name, FIDELITY, *times, "images/s", GOAL, facts=facts)


def scores(path: Path, quick: bool) -> Result:
    """FID, IS, KID, precision and recall of two sets of images, in one call of each program."""
    n = 6 if quick else 96
    fake, real = (inception_file.pictures(n, *each) for each in ((1, 0.7), (2, 1.0)))
    chosen = {"splits": 2 if quick else SPLITS, "subsets": SUBSETS, "size": n - 2}
    found: dict[str, Mapping[str, float]] = {}

    def ours() -> None:
        found["ours"] = _scores(path, fake, real, **chosen)

    def theirs() -> None:
        found["theirs"] = _their_scores(path, fake, real, **chosen)

    times = alternate(ours, theirs, 1 if quick else 3, 0)  # `features` has warmed both
    apart = {name: _apart(found, name) for name in found["theirs"]}
    facts = {"images": n, "reference": n, "differences": apart, **chosen}
    case = f"FID, IS, KID, precision, recall, {n} images and {n} of the reference"
    return Result(case, FIDELITY, *times, "s", GOAL, facts=facts)


def _apart(found: Mapping[str, Mapping[str, float]], name: str) -> float:
    """The relative difference of two programs' numbers, or the absolute one where both are 0."""
    mine, other = found["ours"][name], found["theirs"][name]
    return abs(mine - other) / (abs(other) or 1.0)


def _scores(
    path: Path, fake: Tensor, real: Tensor, splits: int, subsets: int, size: int
) -> dict[str, float]:
    extractor = extractors.load("inception", path, "cpu")
    mine, other = (extractors.extract(extractor, images) for images in (fake, real))
    assert mine.logits is not None
    balls = manifold(mine.pool, other.pool)
    return {
        "fid": frechet_distance(mine.pool, other.pool),
        "is": split_inception_score(mine.logits, splits)[0],
        "kid": subset_kernel_distance(mine.pool, other.pool, subsets, size)[0],
        "precision": balls.precision,
        "recall": balls.recall,
    }


class _Pictures(Dataset):
    """What torch-fidelity takes for uint8 images in memory."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def _their_scores(
    path: Path, fake: Tensor, real: Tensor, splits: int, subsets: int, size: int
) -> dict[str, float]:
    from torch_fidelity import calculate_metrics

    metrics = dict.fromkeys(("isc", "kid", "prc"), True)
    found = calculate_metrics(
        input1=_Pictures(fake),
        input2=_Pictures(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(path),
        save_cpu_ram=True,  # else its worker processes cost more than they bring here
        fid=len(fake) > 6,  # its root takes seconds, too long for --quick
        **metrics,
        **{"isc_splits": splits, "kid_subsets": subsets, "kid_subset_size": size},
        **dict.fromkeys(("cuda", "cache", "verbose"), False),
    )
    return {name: found[theirs] for name, theirs in NAMES.items() if theirs in found}


def _theirs(path: Path) -> Any:
    from torch_fidelity import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(path))


def clean(path: Path, n: int = 16) -> Result | LeftOut:
    """FID of two folders of PNG files by clean-fid's protocol, from the files on.

    Its TorchScript file cannot be had here: it is given torch-fidelity's layers instead, which are
    the same graph.
    """
    from scipy.linalg import sqrtm

    case = "FID of two folders, clean-fid's protocol"
    reason = missing("cleanfid")
    if reason is None and "disp" not in inspect.signature(sqrtm).parameters:
        reason = "clean-fid 0.1.35 calls sqrtm as SciPy 1.18 no longer allows: take scipy<1.18"
    if reason is not None:
        return LeftOut(case, reason)
    with tempfile.TemporaryDirectory() as name:
        folders = [_folder(Path(name) / each, n, i) for i, each in enumerate(("fake", "real"))]
        found: dict[str, float] = {}
        times = alternate(
            lambda: found.update(ours=_clean(path, folders)),
            lambda: found.update(theirs=_their_clean(path, folders)),
            *(3, 0),
        )
    facts = {"images": n, "reference": n, "difference": abs(found["ours"] / found["theirs"] - 1)}
    return Result(f"{case}, {n} images each", CLEAN, *times, "s", facts=facts)


def _folder(path: Path, n: int, seed: int) -> Path:
    from PIL import Image

    path.mkdir()
    for i, image in enumerate(inception_file.pictures(n, seed, 0.7 + seed / 4)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path / f"{i:03d}.png")
    return path


def _clean(path: Path, folders: list[Path]) -> float:
    from PIL import Image

    extractor = extractors.load("clean", path, "cpu")
    sets = []
    for folder in folders:
        rows = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]
        images = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
        sets.append(extractors.extract(extractor, images).pool)
    return frechet_distance(*sets)


def _their_clean(path: Path, folders: list[Path]) -> float:
    import warnings

    from cleanfid import fid

    layers = list(_theirs(path).children())[:-1]  # all but the classes

    def network(x: Tensor) -> Tensor:
        x = (x - 128) / 128
        for layer in layers:
            x = layer(x)
        return x.flatten(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of sqrtm(disp=...)
        return fid.compute_fid(
            *map(str, folders),
            mode="clean",
            custom_feat_extractor=network,
            num_workers=0,
            device=torch.device("cpu"),
            verbose=False,
        )


def growing(quick: bool) -> Iterator[Result]:
    """KID, precision and recall of stored features: n^2 by their definition."""
    dims = 64 if quick else 2048
    work: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "KID, all rows": kernel_distance,
        "precision, recall, density, coverage": manifold,
    }
    for n in (50, 100) if quick else (1000, 2000, 4000):
        rows = torch.rand(2, n, dims, generator=torch.Generator().manual_seed(n))
        for name, call in work.items():
            times = repeat(lambda call=call, rows=rows: call(*rows), 1 if quick else 3, 0)
            facts = {"rows": n, "dims": dims, "dtype": "float64"}
            yield Result(f"{name}, {n} and {n} rows of {dims}", "", times, facts=facts)
