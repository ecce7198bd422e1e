"""Feature extractors of images: loaded once from files of weights, fed in small batches."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowbench import ranks
from flowbench.checkpoints import file_hash
from flowbench.determinism import without_tf32
from flowbench.metrics import dinov2, inception
from flowbench.records import FlowbenchError
from flowbench.training import Progress, ignore
from flowbench.weights import find

__all__ = ["Extractor", "Features", "extract", "find", "load", "shared", "stream"]

CPU_BATCH, GPU_BATCH = 16, 250  # small batches stay in a processor's cache


# How the network is read, how images are prepared for it, which layer is used, and its resizing.
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Tensor], Tensor], str, str]] = {
    "inception": (inception.load, inception.like_tensorflow, "2048", "tf1-bilinear-299"),
    "clean": (inception.load, inception.like_clean_fid, "2048", "clean-fid-bicubic-299"),
    "dinov2": (dinov2.load, dinov2.like_edm2, "cls", "torch-bicubic-antialias-224"),
}


class Features(NamedTuple):
    """What a network makes of n images, in float32 on its device."""

    pool: Tensor  # (n, d)
    logits: Tensor | None = None  # (n, 1008), of Inception
    spatial: Tensor | None = None  # (n, 2023), of Inception


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network with the way in which images are prepared for it.

    `sha256` is that of the file of weights. `protocol` is all that decides its features: store it
    with each number.
    """

    name: str
    sha256: str
    protocol: dict[str, Any]
    device: str
    prepare: Callable[[Tensor], Tensor]
    network: nn.Module
    batch: int = 0  # images at a time; 0: few on a CPU, many on a GPU

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Features of uint8 images (B, C, H, W); one channel is repeated to three.

        Raises FlowbenchError for other images.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            kind = f"{images.dtype} of shape {tuple(images.shape)}"
            raise FlowbenchError(f"{self.name} takes uint8 images (B, 1 or 3, H, W), not {kind}")
        with without_tf32(deterministic=True):
            x = self.prepare(images.to(self.device, non_blocking=True).expand(-1, 3, -1, -1))
            return Features(*self.network(x.contiguous(memory_format=torch.channels_last)))


@cache
def load(name: str, path: Path, device: str) -> Extractor:
    """The extractor "inception", "clean" or "dinov2" with the weights of a file, read once.

    Raises FlowbenchError, in one line, for a file that is missing or holds something else.
    """
    read, prepare, layer, resize = KINDS[name]
    network = read(path).to(device=device).to(memory_format=torch.channels_last)
    protocol = {"name": name, "network": network.title, "layer": layer, "resize": resize}
    sha256 = file_hash(path)
    facts = {"weights": sha256, "dtype": "float32", "tf32": False}
    return Extractor(name, sha256, protocol | facts, device, prepare, network)


def extract(
    extractor: Extractor,
    images: Tensor | Iterable[Tensor],
    batch: int | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Features:
    """Features of uint8 images (n, C, H, W), or of blocks of them; see `stream`."""
    parts = list(stream(extractor, images, batch, watch))
    if not parts:
        raise FlowbenchError(f"{extractor.name} was given no images")
    return joined(parts)


def shared(
    extractor: Extractor, images: Tensor, watch: Callable[[Progress], None] | None = None
) -> Features:
    """Features of uint8 images (n, C, H, W), of which each rank makes those of some batches."""
    if ranks.count() == 1:
        return extract(extractor, images, watch=watch)
    own = ranks.part(len(images), _size(extractor))
    some = stream(extractor, images[own.rows], watch=watch) if len(own) else ()
    made = ranks.agreed(lambda: [_moved(part, "cpu") for part in some])
    return _moved(joined([part for parts in made for part in parts]), extractor.device)


def _size(extractor: Extractor) -> int:
    """Images at a time."""
    return extractor.batch or (GPU_BATCH if extractor.device.startswith("cuda") else CPU_BATCH)


def _moved(features: Features, device: str) -> Features:
    pool, *others = (None if part is None else part.to(device) for part in features)
    assert pool is not None
    return Features(pool, *others)


def joined(parts: Sequence[Features]) -> Features:
    """Features of all batches as those of one."""
    pool, logits, spatial = (_join(column) for column in zip(*parts, strict=True))
    assert pool is not None
    return Features(pool, logits, spatial)


def _join(column: Sequence[Tensor | None]) -> Tensor | None:
    parts = [part for part in column if part is not None]
    return torch.cat(parts) if parts else None


def stream(
    extractor: Extractor,
    images: Tensor | Iterable[Tensor],
    batch: int | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Iterator[Features]:
    """Features batch by batch, for sets that are larger than memory.

    `batch` is the extractor's if not given, or 16 on a CPU and 250 on a GPU. `watch` hears of every
    batch; of blocks it is not told how many there are.
    """
    size = batch or _size(extractor)
    blocks, total = ([images], len(images)) if isinstance(images, Tensor) else (images, 0)
    done, start = 0, time.monotonic()
    for part in (part for block in blocks for part in block.split(size)):
        yield extractor(part)
        done += len(part)
        rate = done / max(time.monotonic() - start, 1e-9)
        left = max(total - done, 0) / rate
        stage = f"{extractor.name} features"
        (watch or ignore)(Progress(stage, done, total, rate=rate, seconds_left=left))
