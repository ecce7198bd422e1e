"""Augmentation of training images, for a whole batch at once on its device.

EDM's pipeline (Karras et al. 2022, appendix F.2) without its colours: flips, scale, rotation,
stretch and translation, each by chance for each image; the network is told what was done.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from flowbench.records import FlowbenchError

PAPER = 0.12  # EDM's chance of each change on CIFAR-10; 0.15 on FFHQ and AFHQ
OCTAVE, SHIFT = 0.2, 0.125  # log2 of a typical scale, and a typical shift as a share of the side
# Daubechies' least asymmetric low-pass filter with six vanishing moments (sym6); norm 1.
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
REACH = len(SYM6) // 4  # pixels beside an image that the filter reaches
# Where the filter puts a pixel; EDM's code takes tap 5, which moves turned images by 0.05 pixels.
CENTRE = sum(n * tap for n, tap in enumerate(SYM6)) / sum(SYM6)


@dataclass(frozen=True)
class Augment:
    """How training images are changed; called with x (B, C, H, W) in [-1, 1].

    `mode` "flip" mirrors every second image and tells the network nothing; "edm" is EDM's
    pipeline with chance `p` of each change. Random numbers come from the global generator of the
    device that x is on.
    """

    mode: Literal["flip", "edm"]
    p: float = PAPER

    @property
    def word(self) -> str:
        """What `parse` reads as this."""
        return self.mode if self.mode == "flip" else f"edm:{self.p:g}"

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(changed x, parameters (B, 9)); no parameters in mode "flip"."""
        if self.mode == "flip":
            return mirror(x, _coins(len(x), 0.5, x.device), 3), None
        change = Change.draw(len(x), self.p, x.device)
        return change.apply(x), change.parameters


def parse(word: str) -> Augment | None:
    """The augmentation that "none", "flip", "edm" or "edm:0.15" means.

    Raises FlowbenchError for any other word.
    """
    mode, colon, number = word.partition(":")
    if word in ("none", "flip"):
        return Augment("flip") if word == "flip" else None
    try:
        p = float(number) if colon else PAPER
    except ValueError:
        p = math.nan
    if mode != "edm" or not 0 <= p <= 1:
        raise FlowbenchError(
            f"augmentation {word!r} is unknown: take none, flip, edm, or edm:P with P from 0 to 1"
        )
    return Augment("edm", p)


@dataclass(frozen=True)
class Change:
    """One change of an image for each row of a batch; every field is (B,) float32, 0 for none.

    In this order the image is mirrored (`flipped`, 0 or 1), put upside down (`upset`, 0 or 1),
    magnified by 2^(0.2 `zoom`), turned by `angle`, stretched by 2^(0.2 `stretch`) along the
    direction `axis` and shrunk as much across it, and shifted by `right` and `down` eighths of its
    sides. Angles are radians, counter-clockwise as one sees the image.
    """

    flipped: Tensor
    upset: Tensor
    zoom: Tensor
    angle: Tensor
    stretch: Tensor
    axis: Tensor
    right: Tensor
    down: Tensor

    @classmethod
    def draw(cls, n: int, p: float, device: torch.device | str) -> "Change":
        """`n` changes, each part by chance `p` (flips left-right always have theirs of 1/2)."""

        def normal(chance: Tensor) -> Tensor:
            return torch.randn(n, device=device) * chance

        def turn(chance: Tensor) -> Tensor:
            return (2 * torch.rand(n, device=device) - 1) * math.pi * chance

        shifted = _coins(n, p, device)
        return cls(
            flipped=_coins(n, 0.5, device),
            upset=_coins(n, p / 2, device),
            zoom=normal(_coins(n, p, device)),
            angle=turn(_coins(n, p, device)),
            stretch=normal(_coins(n, p, device)),
            axis=turn(_coins(n, 0.5, device)),
            right=normal(shifted),
            down=normal(shifted),
        )

    @property
    def parameters(self) -> Tensor:
        """What the network is told, (B, 9) in EDM's order; all zeros: the image as it was."""
        turned = [self.angle.cos() - 1, self.angle.sin()]
        stretched = [self.stretch * self.axis.cos(), self.stretch * self.axis.sin()]
        shifted = [self.right, self.down]
        return torch.stack(
            [self.flipped, self.upset, self.zoom, *turned, *stretched, *shifted], dim=1
        )

    def apply(self, x: Tensor) -> Tensor:
        """The images x (B, C, H, W), changed; what moves in from outside is their reflection."""
        x = mirror(mirror(x, self.flipped, 3), self.upset, 2)
        height, width = x.shape[-2:]
        shift = torch.stack([self.right * width, self.down * height], 1) * SHIFT
        parts = torch.stack([self.zoom, self.angle, self.stretch, self.right, self.down])
        moved = (parts != 0).any(0).reshape(-1, 1, 1, 1)
        return torch.where(moved, _resample(x, self._backward, shift), x)

    @property
    def _backward(self) -> Tensor:
        """From where a pixel comes, seen from the centre before the shift: (B, 2, 2)."""
        grown = torch.exp2(-OCTAVE * self.zoom)
        wide = torch.exp2(-OCTAVE * self.stretch)
        stretched = _product(_rotation(-self.axis), _diagonal(wide, 1 / wide))
        stretched = _product(stretched, _rotation(self.axis))
        return _product(_product(_diagonal(grown, grown), _rotation(self.angle)), stretched)


def mirror(x: Tensor, flipped: Tensor, dim: int) -> Tensor:
    """`x` (B, C, H, W) with `dim` reversed in the rows where `flipped` (B,) is not 0."""
    return torch.where(flipped.reshape(-1, 1, 1, 1) != 0, x.flip(dim), x)


def _coins(n: int, p: float, device: torch.device | str) -> Tensor:
    """(n,) ones with chance p, else zeros."""
    return (torch.rand(n, device=device) < p).float()


def _rotation(angle: Tensor) -> Tensor:
    """Matrices (B, 2, 2) that turn (right, down) coordinates clockwise as one sees them."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)


def _diagonal(first: Tensor, second: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([first, second], -1))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b of (B, 2, 2), in full precision on every GPU: faster products keep ten bits."""
    return (a[..., None] * b[:, None]).sum(2)


def _resample(x: Tensor, backward: Tensor, shift: Tensor) -> Tensor:
    """The pixel at u, from the centre of x (B, C, H, W), comes from backward (u - shift).

    `backward` is (B, 2, 2) and `shift` (B, 2), in pixels, (right, down). Sampled between the
    pixels of an image of twice the size, so that little is blurred; where nothing moves, the two
    filters cancel exactly.
    """
    height, width = x.shape[-2:]
    left, top, right, bottom = _margins(backward, shift, width, height)
    large = _up(functional.pad(x, (left, right, top, bottom), mode="reflect"))
    across = (_positions(width, x.device) - shift[:, :1])[:, None]
    along = (_positions(height, x.device) - shift[:, 1:])[..., None]
    matrix = backward[..., None, None]
    u = matrix[:, 0, 0] * across + matrix[:, 0, 1] * along
    v = matrix[:, 1, 0] * across + matrix[:, 1, 1] * along
    u, v = _place(u, width, left, large.shape[-1]), _place(v, height, top, large.shape[-2])
    return _down(functional.grid_sample(large, torch.stack([u, v], -1), align_corners=False))


def _margins(backward: Tensor, shift: Tensor, width: int, height: int) -> list[int]:
    """How far any image of the batch is left to the left, top, right and bottom, in pixels.

    At most a side less one, which is all that reflection can give.
    """
    half = backward.new_tensor([(width - 1) / 2, (height - 1) / 2])
    signs = backward.new_tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    corners = signs * (half + REACH) - shift[:, None]  # (B, 4, 2)
    found = (backward[:, None] * corners[:, :, None]).sum(-1).flatten(0, 1)
    beyond = torch.cat([-found.amin(0), found.amax(0)]) - half.repeat(2) + REACH
    most = (width - 1, height - 1) * 2
    return [min(max(math.ceil(m), 0), most[i]) for i, m in enumerate(beyond.tolist())]


def _positions(side: int, device: torch.device) -> Tensor:
    """Where the samples of a side twice as large lie, from its centre in pixels, (2 side + 10,)."""
    samples = torch.arange(2 * side + len(SYM6) - 2, device=device, dtype=torch.float32)
    return (samples - CENTRE) / 2 - (side - 1) / 2


def _place(position: Tensor, side: int, margin: int, samples: int) -> Tensor:
    """The same in the coordinates of `grid_sample`, for a side that got a margin before it."""
    sample = 2 * (position + (side - 1) / 2 + margin) + CENTRE
    return (2 * sample + 1) / samples - 1


@cache
def _taps(gain: float, device: torch.device) -> Tensor:
    return gain * torch.tensor(SYM6, device=device)


def _up(x: Tensor) -> Tensor:
    """Twice as many samples per side, and 10 that the filter adds: (B, C, 2H + 10, 2W + 10)."""
    flat = x.flatten(0, 1)[:, None]
    taps = _taps(math.sqrt(2), x.device)
    flat = functional.conv_transpose2d(flat, taps.reshape(1, 1, 1, -1), stride=(1, 2))
    flat = functional.conv_transpose2d(flat, taps.reshape(1, 1, -1, 1), stride=(2, 1))
    return flat.reshape(*x.shape[:2], *flat.shape[-2:])


def _down(x: Tensor) -> Tensor:
    """What `_up` was given: the same filter backwards, since its even shifts are orthonormal."""
    flat = x.flatten(0, 1)[:, None]
    taps = _taps(math.sqrt(0.5), x.device)
    flat = functional.conv2d(flat, taps.reshape(1, 1, 1, -1), stride=(1, 2))
    flat = functional.conv2d(flat, taps.reshape(1, 1, -1, 1), stride=(2, 1))
    return flat.reshape(*x.shape[:2], *flat.shape[-2:])
