"""FID of two folders of images by clean-fid's protocol, from the files on: ours, and its own."""

import inspect
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed import inception_file
from benchmarks.speed.harness import LeftOut, Result, alternate, missing
from flowbench.metrics import extractors
from flowbench.metrics.frechet import frechet_distance

CLEAN = "clean-fid 0.1.35"


def clean(path: Path, device: str, n: int = 16) -> Result | LeftOut:
    """Both, of `n` PNG files each.

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
            lambda: found.update(ours=_ours(path, device, folders)),
            lambda: found.update(theirs=_theirs(path, device, folders)),
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


def _ours(path: Path, device: str, folders: list[Path]) -> float:
    from PIL import Image

    extractor = extractors.load("clean", path, device)
    sets = []
    for folder in folders:
        rows = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]
        images = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
        sets.append(extractors.extract(extractor, images).pool)
    return frechet_distance(*sets)


def _theirs(path: Path, device: str, folders: list[Path]) -> float:
    import warnings

    from cleanfid import fid

    layers = list(inception_file.theirs(path, device).children())[:-1]  # all but the classes

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
            device=torch.device(device),
            verbose=False,
        )
