"""The losses of images as a method takes them: for its data, its run and the precision of both."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from flowbench.data.base import Data
from flowbench.losses.adversarial import Kind, Rival, discriminator_loss
from flowbench.losses.discriminator import Discriminator
from flowbench.losses.features import NETWORKS
from flowbench.losses.perceptual import perceptual
from flowbench.options import choose
from flowbench.records import FlowbenchError, digest
from flowbench.training import Run

LEAST, FULL = 128, 224  # pixels: what leaves a logit, and the published size
Seen = tuple[Tensor, Tensor | None]  # images in [-1, 1] and their labels


def check(features: Collection[str], size: int) -> None:
    """Raise FlowbenchError unless a discriminator can look through these networks at `size`."""
    for name in features:
        choose("feature network", name, NETWORKS)
    if not features or len(set(features)) < len(features):
        raise FlowbenchError(f"features are some of {','.join(NETWORKS)}, each once")
    if size < LEAST or size % 32:
        raise FlowbenchError(f"a discriminator needs a multiple of 32 pixels from {LEAST} on")
    if "deit" in features and size != FULL:
        raise FlowbenchError(f"deit looks at {FULL} pixels: leave it out of features, or take them")


def distance(kind: str, data: Data, run: Run, size: int) -> nn.Module:
    """The perceptual loss `kind` (x, target) -> (B,) at `size` pixels, by the file of `run`.

    In float32 whatever the backbone's precision: in bfloat16, distances below 1e-5 are rounding.
    """
    return perceptual(kind, run.weights["vgg16"], size).to(data.device)


def discriminator(data: Data, run: Run, features: Collection[str], size: int) -> Discriminator:
    """An untrained discriminator for images of `data`, conditional where they have classes.

    It looks through the frozen networks `features`, whose files are `run.weights`, at `size`
    pixels.
    """
    files = {name: run.weights[name] for name in features}
    seed = int(digest([run.seed, "discriminator"])[:12], 16)
    judge = Discriminator(files, data.classes, seed, size, _precision(data))
    return judge.to(data.device)


def rival(
    judge: Discriminator, both: Callable[..., tuple[Seen, Seen]], run: Run, lr: float, kind: Kind
) -> Rival:
    """What trains `judge` in turns with a generator.

    `both(*batch)` gives real images and generated ones, without gradients.
    """
    learned = [branch.heads for branch in judge.branches.values()]
    for part in (*learned, judge.embedding):  # a rival of an earlier stage has frozen them
        if part is not None:
            part.requires_grad_(True)

    def loss(*batch: Tensor) -> Tensor:
        real, fake = both(*batch)
        return discriminator_loss(judge(*real), judge(*fake), kind)

    return Rival(judge, loss, run, lr)


def _precision(data: Data) -> torch.dtype | None:
    """Half of it where the run's backbone has half: networks that only look need no more.

    Never float16: gradients of one loss alone are taken before anything scales them.
    """
    whole = getattr(data.network, "precision", "float32") == "float32"
    return None if whole else torch.bfloat16
