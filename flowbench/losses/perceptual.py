"""Distances of images as VGG-16 sees them: LPIPS, and the feature loss of Johnson et al."""

from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench import weights
from flowbench.losses.inputs import IMAGENET, Normalise, resize, three_channels
from flowbench.options import choose
from flowbench.records import FlowbenchError

ENDS = (4, 9, 16, 23, 30)  # of torchvision's layers after relu1_2, 2_2, 3_3, 4_3 and 5_3
KINDS = {"lpips": 5, "johnson": 3}  # and how many of these are looked at
POOLS = ("avg", "max")


class Perceptual(nn.Module):
    """Called with x and target, both (B, C, H, W), it gives a loss for each row, (B,) float32.

    Images are in [-1, 1] but not clamped, in float32; one channel is repeated to three. They are
    resized to `size` pixels first. The gradient goes to `x` alone. Raises FlowbenchError for
    images of other channels, or too small for the network.
    """

    def __init__(
        self,
        trunk: nn.ModuleList,
        linear: list[Tensor],
        size: int | None,
        dtype: torch.dtype | None,
    ):
        super().__init__()
        self.trunk, self.size, self.dtype = trunk, size, dtype
        self.linear = nn.ParameterList(linear)  # (C,) of each part of the trunk, or none
        self.normalise = Normalise(*IMAGENET)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._features(target)
        found = self._features(x)
        if not self.linear:
            return (found[-1] - wanted[-1]).square().mean((1, 2, 3))
        layers = zip(found, wanted, self.linear, strict=True)
        return torch.stack([lpips_layer(*layer) for layer in layers]).sum(0)

    def _features(self, x: Tensor) -> list[Tensor]:
        """What each part of the trunk makes of images, in their own precision."""
        h, least = three_channels(resize(x, self.size)), 2 ** (len(self.trunk) - 1)
        if min(h.shape[-2:]) < least:
            raise FlowbenchError(
                f"images of {h.shape[-2]}x{h.shape[-1]} pixels are too small for VGG-16: resize"
                f" them to {least} or more"
            )
        features = []
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not None):
            h = self.normalise(h)
            for part in self.trunk:
                h = part(h)
                features.append(h.to(x.dtype))
        return features


def lpips_layer(found: Tensor, wanted: Tensor, linear: Tensor) -> Tensor:
    """One layer's share of LPIPS: features (B, C, H, W), weights of channels (C,); gives (B,).

    Zhang et al. 2018, eq. 1: squared distances of unit feature vectors, weighted by channel, added
    up, and averaged over the pixels.
    """
    found, wanted = (functional.normalize(part, dim=1, eps=1e-10) for part in (found, wanted))
    pixels = found.shape[2] * found.shape[3]
    return torch.einsum("bchw,c->b", (found - wanted).square(), linear) / pixels


def perceptual(
    kind: str,
    path: Path,
    size: int | None = None,
    pool: str = "avg",
    dtype: torch.dtype | None = None,
) -> Perceptual:
    """The perceptual loss `kind` with the VGG-16 of torchvision that a file holds, frozen.

    "lpips": Zhang et al. 2018, version 0.1, with the lpips package's learned weights of channels.
    "johnson": the mean squared difference of relu3_3 (Johnson et al. 2016, eq. 2, who take relu3_3
    in super-resolution and relu2_2 in style transfer); inputs are normalised as torchvision's
    networks are trained. `pool` "avg" puts average pooling in the place of max pooling, as the code
    of CM and CTM does. `dtype` is the precision of the network under autocast (None: as it is).
    Raises FlowbenchError for other words, and for files of something else.
    """
    choose("perceptual loss", kind, KINDS)
    choose("pooling", pool, POOLS)
    layers = [_pooled(layer, pool) for layer in _vgg16(path)]
    starts = (0, *ENDS)
    trunk = nn.ModuleList(
        nn.Sequential(*layers[starts[i] : starts[i + 1]]) for i in range(KINDS[kind])
    )
    return Perceptual(trunk, _linear() if kind == "lpips" else [], size, dtype)


def _pooled(layer: nn.Module, pool: str) -> nn.Module:
    return nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) and pool == "avg" else layer


def _vgg16(path: Path) -> nn.Sequential:
    """The convolutional layers of a file; raises FlowbenchError where they are not VGG-16's."""
    from torchvision.models import vgg16

    state = weights.read(path, "vgg16")
    layers = {
        name.removeprefix("features."): tensor.float()
        for name, tensor in state.items()
        if name.startswith("features.")
    }
    with torch.device("meta"):  # so that no weights are drawn
        network = vgg16(weights=None).features
    try:
        network.load_state_dict(layers, assign=True)
    except RuntimeError as error:  # keys or shapes
        raise weights.wrong(path, "vgg16") from error
    return network


def _linear() -> list[Tensor]:
    """The learned weights of channels, (C,) each, that come with the lpips package."""
    with as_file(files("lpips") / "weights" / "v0.1" / "vgg.pth") as path:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{i}.model.1.weight"].flatten() for i in range(KINDS["lpips"])]
