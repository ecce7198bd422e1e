"""Whether a prepared image set is what its manifest says: every image is decoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowbench.data import manifest
from flowbench.data.archive import mapped
from flowbench.data.base import Arrays, measure
from flowbench.data.decoding import undecoded
from flowbench.data.pictures import Pictures
from flowbench.data.recipes import Recipe
from flowbench.data.rows import Clock
from flowbench.records import FlowbenchError
from flowbench.training import Progress, ignore


def check(
    path: Path, recipe: Recipe | None = None, watch: Callable[[Progress], None] = ignore
) -> dict[str, Any]:
    """Read all of an archive or folder anew, and return n, shape, classes, sha256, std.

    They must equal the manifest's; without a manifest, n must be one of the recipe's counts.
    Raises FlowbenchError that says what differs or which file is damaged.
    """
    said = manifest.find(path)
    images: Any
    if (path / "images.npy").exists():
        images, labels = mapped(path)
    else:
        source = undecoded(path)
        images, labels = Pictures(source), source.labels
    facts = measure(Arrays(images, None, labels), Clock(f"check {path.name}", watch))
    n, *shape = images.shape
    found = {"n": n, "shape": shape, "classes": 0 if labels is None else int(labels.max()) + 1}
    found |= {"sha256": facts.sha256}
    if said and (words := manifest.differences(said, found)):
        raise FlowbenchError(f"{path} is not what its manifest says: {words}; prepare it anew")
    if not said and recipe and recipe.counts and n not in recipe.counts.values():
        counts = ", ".join(f"{number} ({name})" for name, number in recipe.counts.items())
        raise FlowbenchError(f"{path} holds {n} images, but {recipe.name} has {counts}")
    return found | {"std": facts.std, "manifest": said is not None}
