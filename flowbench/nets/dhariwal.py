"""EDM's ADM: the network of Dhariwal and Nichol (2021) as Karras et al. (2022) train it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.nets.layers import Conv2d, Init, Style, linear, norm, positional
from flowbench.nets.settings import HEAD, Settings
from flowbench.nets.skeleton import Skeleton

KAIMING = Init("kaiming", weight=3**-0.5, bias=3**-0.5)
ZERO = Init("kaiming", weight=0.0)


class DhariwalUNet(Skeleton):
    """net(x, t, label, augment) for x (B, C, H, W) with H = W.

    t is (B,), or (B, 2) with `times` 2; label None or one-hot (B, classes), which belongs to the
    first time; augment None or (B, 9). EDM, Table 8 and appendix F.
    """

    def __init__(self, settings: Settings, shape: Sequence[int], classes: int = 0, times: int = 1):
        channels, style = settings.channels, _style(settings, times)
        super().__init__(settings, shape, style, channels * settings.mult[0])
        self.settings = settings
        augment, width = settings.augment, style.embedding
        self.map_augment = linear(augment, channels, ZERO, bias=False) if augment else None
        self.map_layer0 = linear(channels, width, KAIMING)
        self.map_layer1 = linear(width, width, KAIMING)
        if times == 2:
            self.map_layer0_second = linear(channels, width, KAIMING)
            self.map_layer1_second = linear(width, width, KAIMING)
        self.map_label = nn.Linear(classes, width, bias=False) if classes else None
        if self.map_label is not None:
            nn.init.normal_(self.map_label.weight)
        self.out_norm = norm(self.width, style.eps)
        self.out_conv = Conv2d(self.width, shape[0], 3, ZERO)

    @property
    def output(self) -> nn.Module:
        """The last convolution."""
        return self.out_conv

    def forward(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # times need more digits than features
            times = (t * self.settings.time_scale).reshape(len(t), self.style.times).unbind(1)
            embedding = self._map(times[0], augment, self.map_layer0, self.map_layer1)
            if self.map_label is not None and label is not None:
                embedding = embedding + self.map_label(label)
            second = None
            if len(times) == 2:
                layers = self.map_layer0_second, self.map_layer1_second
                second = functional.silu(self._map(times[1], augment, *layers))
        x = self.trunk(x, functional.silu(embedding), second)
        return self.out_conv(functional.silu(self.out_norm(x)))

    def _map(self, t: Tensor, augment: Tensor | None, *layers: nn.Module) -> Tensor:
        """The embedding (B, E) of times (B,), without its last activation."""
        h = positional(t, self.settings.channels, endpoint=False)
        if self.map_augment is not None and augment is not None:
            h = h + self.map_augment(augment)
        return layers[1](functional.silu(layers[0](h)))


def _style(settings: Settings, times: int) -> Style:
    return Style(
        embedding=4 * settings.channels,
        dropout=settings.dropout,
        times=times,
        init=KAIMING,
        zero=ZERO,
        attention=KAIMING,
        eps=1e-5,
        skip_scale=1.0,
        adaptive=True,
        project=False,
        head=HEAD,
        everywhere=True,
    )
