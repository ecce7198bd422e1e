"""DiffAugment: random changes of images that gradients pass through, for discriminators.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training" (arXiv:2006.10738).
"""

from typing import NamedTuple

import torch
from torch import Tensor

SHIFT = 1 / 8  # largest translation, of the side
HOLE = 1 / 5  # side of the square that is cut out, of the side


class Draws(NamedTuple):
    """The random numbers for n images.

    Of colour, (n,): `brightness` in [-0.5, 0.5) is added, `saturation` in [0, 2) and `contrast` in
    [0.5, 1.5) multiply. In pixels, (n, 2) int64, of rows and columns: `shift`, and `centre` of the
    square that is cut out.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift: Tensor
    centre: Tensor


def draw(n: int, height: int, width: int, device: torch.device | str = "cpu") -> Draws:
    """Draw for n images of this size, from the global generator of the device."""
    colours = torch.rand(3, n, device=device)
    shifts, centres = [], []
    for side in (height, width):
        reach = pixels(side, SHIFT)
        shifts.append(torch.randint(-reach, reach + 1, (n,), device=device))
        even = 1 - pixels(side, HOLE) % 2  # such a square may be centred on the far edge too
        centres.append(torch.randint(0, side + even, (n,), device=device))
    return Draws(
        colours[0] - 0.5,
        2 * colours[1],
        colours[2] + 0.5,
        torch.stack(shifts, 1),
        torch.stack(centres, 1),
    )


def diffaugment(x: Tensor, draws: Draws | None = None) -> Tensor:
    """Images (B, C, H, W), each with a colour, a shift and a hole of its own; differentiable.

    Brightness, saturation around the mean over channels, contrast around the mean of the image,
    translation with zeros moving in, and a square of zeros, in this order. Without `draws` they
    are drawn here.
    """
    n, _, height, width = x.shape
    draws = draw(n, height, width, x.device) if draws is None else draws
    brightness, saturation, contrast = (part.to(x.dtype).view(n, 1, 1, 1) for part in draws[:3])
    x = x + brightness
    mean = x.mean(1, keepdim=True)
    x = (x - mean) * saturation + mean
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean
    return cut_out(translate(x, draws.shift), draws.centre)


def translate(x: Tensor, shift: Tensor) -> Tensor:
    """Images (B, C, H, W) whose pixel (i, j) is that at (i, j) + shift, (B, 2), zero outside."""
    for dim, side in ((2, x.shape[2]), (3, x.shape[3])):
        index = torch.arange(side, device=x.device) + shift[:, dim - 2, None]
        inside = ((index >= 0) & (index < side)).to(x.dtype)
        form = [len(x), 1, 1, 1]
        form[dim] = side
        x = x.gather(dim, index.clamp(0, side - 1).view(form).expand_as(x)) * inside.view(form)
    return x


def cut_out(x: Tensor, centre: Tensor) -> Tensor:
    """Images (B, C, H, W) with a rectangle of zeros at `centre`, (B, 2)."""
    rows, columns = (
        _covered(side, centre[:, i, None]) for i, side in enumerate((x.shape[2], x.shape[3]))
    )
    return x * ~(rows[:, None, :, None] & columns[:, None, None, :])


def pixels(side: int, share: float) -> int:
    """A share of a side in whole pixels, halves up."""
    return int(side * share + 0.5)


def _covered(side: int, centre: Tensor) -> Tensor:
    """Which of the pixels of a side the hole covers, (B, side); `centre` is (B, 1)."""
    hole = pixels(side, HOLE)
    offset = torch.arange(side, device=centre.device) - (centre - hole // 2)
    return (offset >= 0) & (offset < hole)
