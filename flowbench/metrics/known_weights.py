"""Which weights of feature extractors are known, where they come from, and how to supply them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowbench import cache
from flowbench.metrics.weights import FILES, VARIABLES
from flowbench.options import choose
from flowbench.records import Absent


@dataclass(frozen=True)
class Known:
    """A published file of weights; `sha256` is its digest or the first digits, "" if unknown."""

    name: str
    summary: str
    url: str
    sha256: str
    licence: str

    @property
    def place(self) -> Path:
        """Where a download lies, and where the metrics look for it."""
        return cache.place("weights", FILES[self.name])

    @property
    def instead(self) -> str:
        """How to give a file that is here already."""
        option = f"--{self.name}-weights FILE"
        return f"give {option}, set {VARIABLES[self.name]}, or put the file at {self.place}"


KNOWN = {
    known.name: known
    for known in (
        Known(
            "inception",
            "Inception-v3 of 2015, for FID, IS, KID, precision and recall",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            "6726825d",
            "Apache-2.0",
        ),
        Known(
            "dinov2",
            "DINOv2 ViT-L/14, for the Fréchet distance of its features",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            "",
            "Apache-2.0",
        ),
    )
}


def download(name: str, watch: Callable[[Any], None] | None = None) -> Path:
    """The file of weights, downloaded where it is missing.

    Raises FlowbenchError for an unknown name, Absent where no checksum is published or the server
    cannot be reached.
    """
    from flowbench.download import fetch

    known = KNOWN[choose("weights", name, KNOWN)]
    if not known.sha256:
        raise Absent(
            f"no checksum of {known.url} is published, so it is not downloaded: fetch it"
            f" yourself and {known.instead}"
        )
    return fetch(known.url, known.place, known.sha256, watch, known.instead)
