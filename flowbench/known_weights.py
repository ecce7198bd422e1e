"""Which pretrained networks are known, where their files come from, and how to supply them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowbench import cache
from flowbench.options import choose
from flowbench.records import Absent


@dataclass(frozen=True)
class Known:
    """A published file of weights; `sha256` is its digest or the first digits, "" if unknown.

    `use` says what stands on it, `option` how the command line takes the file.
    """

    name: str
    summary: str
    file: str
    url: str
    sha256: str
    licence: str
    use: str
    option: str

    @property
    def variable(self) -> str:
        """The environment variable that may name the file."""
        return f"FLOWBENCH_{self.name.upper()}"

    @property
    def place(self) -> Path:
        """Where a download lies, and where it is looked for."""
        return cache.place("weights", self.file)

    @property
    def instead(self) -> str:
        """How to give a file that is here already."""
        return f"give {self.option}, set {self.variable}, or put the file at {self.place}"


METRICS, LOSSES = "metrics of images", "losses of images"
KNOWN = {
    known.name: known
    for known in (
        Known(
            "inception",
            "Inception-v3 of 2015, for FID, IS, KID, precision and recall",
            "weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            "6726825d",
            "Apache-2.0",
            METRICS,
            "--inception-weights FILE",
        ),
        Known(
            "dinov2",
            "DINOv2 ViT-L/14, for the Fréchet distance of its features",
            "dinov2_vitl14_pretrain.pth",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            "",
            "Apache-2.0",
            METRICS,
            "--dinov2-weights FILE",
        ),
        Known(
            "vgg16",
            "VGG-16 of torchvision, for perceptual losses",
            "vgg16-397923af.pth",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "397923af",
            "BSD-3-Clause",
            LOSSES,
            "--feature-weights vgg16=FILE",
        ),
        Known(
            "deit",
            "DeiT-B/16, distilled, for projected discriminators",
            "deit_base_distilled_patch16_224-df68dfff.pth",
            "https://dl.fbaipublicfiles.com/deit/deit_base_distilled_patch16_224-df68dfff.pth",
            "df68dfff",
            "Apache-2.0",
            LOSSES,
            "--feature-weights deit=FILE",
        ),
        Known(
            "efficientnet",
            "EfficientNet-Lite0, for projected discriminators",
            "tf_efficientnet_lite0-0aa007d2.pth",
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
            "tf_efficientnet_lite0-0aa007d2.pth",
            "0aa007d2",
            "Apache-2.0",
            LOSSES,
            "--feature-weights efficientnet=FILE",
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
