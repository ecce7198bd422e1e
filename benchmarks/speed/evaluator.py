"""From uint8 images to Inception's features and to scores, against torch-fidelity and clean-fid.

All programs read one file of weights and the same pixels, and both sets go through the network.
The facts of each result say how far apart the numbers are; on a GPU nobody uses TF32.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.speed import folders, inception_file
from benchmarks.speed.harness import LeftOut, Result, alternate, missing, repeat
from benchmarks.speed.networks import on_gpu
from flowbench import meters
from flowbench.determinism import without_tf32
from flowbench.metrics import extractors
from flowbench.metrics.frechet import frechet_distance
from flowbench.metrics.kernel import kernel_distance, subset_kernel_distance
from flowbench.metrics.manifold import manifold
from flowbench.metrics.scores import split_inception_score

FIDELITY = "torch-fidelity 0.4.0"
GOAL, GPU_GOAL = "at least 2.5 times as fast", "at least 2 times as fast"
GPU_IMAGES = 5000  # instead of some dozens, which a GPU has no work with
SPLITS, SUBSETS, THEIR_BATCH = 10, 100, 64  # torch-fidelity's defaults
NAMES = {
    "fid": "frechet_inception_distance",
    "is": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
    "precision": "precision",
    "recall": "recall",
}


def measure(quick: bool, device: str = "cpu") -> Iterator[Result | LeftOut]:
    """Features alone, all scores, clean-fid's FID; then the scores of stored features."""
    reason = missing("torch_fidelity")
    if reason is not None:
        yield LeftOut("features and scores of images", reason)
    else:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), without_tf32():
            path = inception_file.write(Path(folder) / "inception.pth")
            yield features(path, quick, device)
            yield scores(path, quick, device)
            yield (
                LeftOut("FID of two folders", "no --quick: its root takes 10 s")
                if quick
                else folders.clean(path, device)
            )
            extractors.load.cache_clear()
    yield from growing(quick, device)


def features(path: Path, quick: bool, device: str) -> Result:
    """The network with its resizing, each program at the batch that it takes by itself."""
    images = inception_file.pictures(2 if quick else 1000 if on_gpu(device) else 64, 1, 1.0)
    network = inception_file.theirs(path, device)
    extractor, images = extractors.load("inception", path, device), images.to(device)

    def ours() -> Tensor:
        found = extractors.extract(extractor, images).pool
        meters.synchronise(device)
        return found

    def theirs() -> Tensor:
        found = torch.cat([network(some)[0] for some in images.split(THEIR_BATCH)])
        meters.synchronise(device)
        return found

    expected = theirs()
    error = ((ours() - expected).norm() / expected.norm()).item()
    times = alternate(ours, theirs, 1 if quick else 5, 0)
    facts = {"count": len(images), "size": "32x32", "relative feature error": error}
    own = extractors.GPU_BATCH if on_gpu(device) else extractors.CPU_BATCH
    facts |= {"batch": own, "their batch": THEIR_BATCH, "dtype": "float32"}
    name = "Inception features, 32x32 images"
    return Result(name, FIDELITY, *times, "images/s", _goal(device), facts=facts)


def scores(path: Path, quick: bool, device: str) -> Result:
    """FID, IS, KID, precision and recall of two sets of images, in one call of each program."""
    n = 6 if quick else GPU_IMAGES if on_gpu(device) else 96
    fake, real = (inception_file.pictures(n, *each) for each in ((1, 0.7), (2, 1.0)))
    size = min(n - 2, 1000)  # torch-fidelity's own of a subset is 1000
    chosen = {"splits": 2 if quick else SPLITS, "subsets": SUBSETS, "size": size}
    found: dict[str, Mapping[str, float]] = {}

    def ours() -> None:
        found["ours"] = _scores(path, device, fake, real, **chosen)

    def theirs() -> None:
        found["theirs"] = _their_scores(path, device, fake, real, **chosen)

    times = alternate(ours, theirs, 1 if quick else 3, 0)  # `features` has warmed both
    apart = {name: _apart(found, name) for name in found["theirs"]}
    facts = {"images": n, "reference": n, "differences": apart, **chosen}
    case = f"FID, IS, KID, precision, recall, {n} images and {n} of the reference"
    return Result(case, FIDELITY, *times, "s", _goal(device), facts=facts)


def _goal(device: str) -> str:
    return GPU_GOAL if on_gpu(device) else GOAL


def _apart(found: Mapping[str, Mapping[str, float]], name: str) -> float:
    """The relative difference of two programs' numbers, or the absolute one where both are 0."""
    mine, other = found["ours"][name], found["theirs"][name]
    return abs(mine - other) / (abs(other) or 1.0)


def _scores(
    path: Path, device: str, fake: Tensor, real: Tensor, splits: int, subsets: int, size: int
) -> dict[str, float]:
    extractor = extractors.load("inception", path, device)
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
    path: Path, device: str, fake: Tensor, real: Tensor, splits: int, subsets: int, size: int
) -> dict[str, float]:
    from torch_fidelity import calculate_metrics

    metrics = dict.fromkeys(("isc", "kid", "prc"), True)
    found = calculate_metrics(
        input1=_Pictures(fake),
        input2=_Pictures(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(path),
        save_cpu_ram=True,  # else its worker processes cost more than they bring here
        batch_size=THEIR_BATCH,
        cuda=on_gpu(device),
        fid=len(fake) > 6,  # its root takes seconds, too long for --quick
        **metrics,
        **{"isc_splits": splits, "kid_subsets": subsets, "kid_subset_size": size},
        **dict.fromkeys(("cache", "verbose"), False),
    )
    return {name: found[theirs] for name, theirs in NAMES.items() if theirs in found}


def growing(quick: bool, device: str) -> Iterator[Result]:
    """KID, precision and recall of stored features: n^2 by their definition."""
    dims = 64 if quick else 2048
    work: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "KID, all rows": kernel_distance,
        "precision, recall, density, coverage": manifold,
    }
    for n in (50, 100) if quick else (1000, 2000, 4000):
        rows = torch.rand(2, n, dims, generator=torch.Generator().manual_seed(n)).to(device)
        for name, call in work.items():
            times = repeat(lambda call=call, rows=rows: call(*rows), 1 if quick else 3, 0)
            facts = {"rows": n, "dims": dims, "dtype": "float64"}
            yield Result(f"{name}, {n} and {n} rows of {dims}", "", times, facts=facts)
