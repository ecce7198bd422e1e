"""Preparing an image set from the files that people hold, so that a crash costs a chunk at most."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flowbench.data import manifest, recipes
from flowbench.data.base import Arrays, measure
from flowbench.data.packing import FORMS
from flowbench.data.pictures import Pictures
from flowbench.data.recipes import FILTERS, Recipe
from flowbench.data.rows import Clock, fill
from flowbench.data.sources import LOSSY, Source, open_source
from flowbench.records import FlowbenchError, RunFailed, digest
from flowbench.training import Progress, ignore


@dataclass(frozen=True)
class Order:
    """One split of a set to prepare from `source` into the folder `output`.

    `split` None takes the only one; `limit` prepares some images under a name of their own;
    `exact` demands the published counts and checksums.
    """

    recipe: Recipe
    source: Path
    output: Path
    split: str | None = None
    form: str = "zip"
    limit: int | None = None
    exact: bool = True
    jobs: int = 1


def prepare(
    order: Order, watch: Callable[[Progress], None] = ignore
) -> tuple[Path, dict[str, Any]]:
    """Make the archive or folder, and return its path and manifest.

    The same order again goes on after a crash, and does nothing when the set is there. Raises
    FlowbenchError that names what is wrong with the source, RunFailed where the disk is.
    """
    split = order.recipe.split(order.split)
    source = open_source(order.recipe, order.source, split, order.exact).thin(order.limit)
    ready = order.source.suffix == ".zip" and order.recipe.name in recipes.RECIPES
    transform = "none" if ready else order.recipe.transform
    target = _target(order, split)
    colours = 3 if order.recipe.name in recipes.RECIPES else 0
    pictures = Pictures(source, transform, order.recipe.side, colours)
    known = _known(order, split, source, pictures, transform)
    facts = _there(target, known)
    if facts is None:
        try:
            facts = _make(order, target, known, pictures, watch)
        except OSError as error:
            raise RunFailed(f"{target} cannot be written: {error}") from error
    shutil.rmtree(_part(target), ignore_errors=True)
    return target, facts


def _part(target: Path) -> Path:
    """The folder beside a target for what is not finished."""
    return target.with_name(f"{target.name}.part")


def _target(order: Order, split: str) -> Path:
    trial = f"-limit{order.limit}" if order.limit else ""
    name = recipes.stem(order.recipe, split) + trial
    return order.output / (f"{name}.zip" if order.form == "zip" else name)


def _known(
    order: Order, split: str, source: Source, pictures: Pictures, transform: str
) -> dict[str, Any]:
    """What the manifest says that is known before all pixels are read."""
    import PIL

    n, *shape = pictures.shape
    return {
        "name": order.recipe.name,
        "split": split,
        "n": n,
        "shape": shape,
        "classes": 0 if source.labels is None else int(source.labels.max()) + 1,
        "transform": transform,
        "filter": FILTERS[transform],
        "source": {"name": order.source.name, "listing_sha256": source.listing},
        "remark": _remark(source, transform, shape),
        "pillow": PIL.__version__,
        "flowbench": version("flowbench"),
    }


def _remark(source: Source, transform: str, shape: list[int]) -> str:
    """A warning where the source has the final size already, but lost something on the way."""
    named = (name for name in source.names if isinstance(name, str))
    first = next((name for name in named if PurePosixPath(name).suffix.lower() in LOSSY), None)
    if first is None:
        return ""
    untouched = Pictures(replace(source, names=[first], labels=None))
    final = transform == "none" or untouched.shape[2:] == tuple(shape[1:])
    return "source is lossy JPEG" if final else ""


def _there(target: Path, known: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of what was made before; raises FlowbenchError where that is something else."""
    if not target.exists():
        return None
    found = manifest.find(target)
    if found is None:
        raise FlowbenchError(f"{target} exists already, and was not made by this command: move it")
    if words := manifest.differences(found, known):
        raise FlowbenchError(f"{target} exists and was made otherwise ({words}): move it")
    return found


def _make(
    order: Order,
    target: Path,
    known: dict[str, Any],
    pictures: Pictures,
    watch: Callable[[Progress], None],
) -> dict[str, Any]:
    """Decode, measure, pack; what has to be kept until then lies beside the target."""
    source, name = pictures.source, target.name
    key = digest([source.key, list(map(str, source.names)), known, order.form])[:16]
    part = _part(target) / key
    with _alone(part):
        fill(part / "images.npy", pictures, order.jobs, Clock(f"decode {name}", watch))
        rows = np.load(part / "images.npy", mmap_mode="c", allow_pickle=False)
        facts = measure(Arrays(rows, None, source.labels), Clock(f"measure {name}", watch))
        complete = known | {"sha256": facts.sha256, "std": facts.std}
        clock = Clock(f"pack {name}", watch)
        FORMS[order.form](target, part / "images.npy", source.labels, complete, clock)
    return complete


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold the lock of a target; raises FlowbenchError where another process has it."""
    from filelock import FileLock, Timeout

    part.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(part.parent / "lock", timeout=0):
            yield
    except Timeout as error:
        raise FlowbenchError(f"another process prepares {part.parent.stem} now: wait") from error
