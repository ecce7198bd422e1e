"""EDM's DDPM++ and NCSN++: networks of Song et al. (2021) as Karras et al. (2022) train them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.nets.layers import Conv2d, Fourier, Init, Style, linear, norm, positional
from flowbench.nets.settings import NCSNpp, Settings
from flowbench.nets.skeleton import Skeleton

XAVIER = Init("xavier")


class SongUNet(Skeleton):
    """net(x, t, label, augment) for x (B, C, H, W) with H = W; DDPM++, or NCSN++ by its settings.

    t is (B,), or (B, 2) with `times` 2; label None or one-hot (B, classes); augment None or
    (B, 9). NCSN++ filters where it resamples, feeds the image into its encoder at each level and
    draws the frequencies of its embedding. EDM, Table 8 and appendix F.
    """

    def __init__(self, settings: Settings, shape: Sequence[int], classes: int = 0, times: int = 1):
        super().__init__(settings, shape, _style(settings, times), settings.channels)
        self.settings = settings
        noise = settings.channels * (2 if self.style.residual else 1)
        self.map_noise = Fourier(noise) if self.style.residual else None
        self.map_label = linear(classes, noise, XAVIER) if classes else None
        augment = settings.augment
        self.map_augment = linear(augment, noise, XAVIER, bias=False) if augment else None
        self.map_layer0 = linear(noise, self.style.embedding, XAVIER)
        self.map_layer1 = linear(self.style.embedding, self.style.embedding, XAVIER)
        if times == 2:
            self.map_layer0_second = linear(noise, self.style.embedding, XAVIER)
            self.map_layer1_second = linear(self.style.embedding, self.style.embedding, XAVIER)
        self.top = f"{shape[-1]}x{shape[-1]}_aux"
        self.dec[f"{self.top}_norm"] = norm(self.width, self.style.eps)
        self.dec[f"{self.top}_conv"] = Conv2d(self.width, shape[0], 3, self.style.zero)

    @property
    def output(self) -> nn.Module:
        """The last convolution."""
        return self.dec[f"{self.top}_conv"]

    def forward(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # times need more digits than features
            times = (t * self.settings.time_scale).reshape(len(t), self.style.times).unbind(1)
            told = self._told(label, augment)
            embedding = self._map(times[0], told, self.map_layer0, self.map_layer1)
            second = None
            if len(times) == 2:
                layers = self.map_layer0_second, self.map_layer1_second
                second = self._map(times[1], told, *layers)
        x = self.trunk(x, embedding, second)
        return self.output(functional.silu(self.dec[f"{self.top}_norm"](x)))

    def _told(self, label: Tensor | None, augment: Tensor | None) -> Tensor | float:
        """What class and augmentation add to the waves of a time."""
        told: Tensor | float = 0.0
        if self.map_label is not None and label is not None:
            told = told + self.map_label(label * label.shape[1] ** 0.5)
        if self.map_augment is not None and augment is not None:
            told = told + self.map_augment(augment)
        return told

    def _map(self, t: Tensor, told: Tensor | float, *layers: nn.Module) -> Tensor:
        """The embedding (B, E) of times (B,); sines come first, unlike in other networks."""
        if self.map_noise is None:
            waves = positional(t, self.settings.channels, endpoint=True)
        else:
            waves = self.map_noise(t)
        h = waves.roll(waves.shape[1] // 2, 1) + told
        for layer in layers:
            h = functional.silu(layer(h))
        return h


def _style(settings: Settings, times: int) -> Style:
    filtered = isinstance(settings, NCSNpp)
    return Style(
        embedding=4 * settings.channels,
        dropout=settings.dropout,
        times=times,
        init=XAVIER,
        zero=Init("xavier", 1e-5),
        attention=Init("xavier", 0.2**0.5),
        eps=1e-6,
        skip_scale=0.5**0.5,
        adaptive=False,
        project=True,
        head=0,
        everywhere=False,
        residual=filtered,
        taps=(1.0, 3.0, 3.0, 1.0) if filtered else (1.0, 1.0),
    )
