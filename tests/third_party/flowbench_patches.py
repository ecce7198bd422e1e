"""A network for images: an MLP-Mixer over patches (Tolstikhin et al. 2021, arXiv:2105.01601)."""

from dataclasses import dataclass

from torch import nn

from flowbench import FlowbenchError, hookimpl, nets


@dataclass(frozen=True)
class Patches(nets.Network):
    """An MLP-Mixer: layers across patches and across features, in turns."""

    name = "patches"
    channels: int = 64  # features of a patch
    side: int = 2  # pixels of a patch
    blocks: int = 2

    def check(self, shape):
        if shape[1] % self.side or shape[2] % self.side:
            raise FlowbenchError(f"patches of side={self.side} do not fill images of {shape[1:]}")

    def build(self, shape, classes, times):
        return Mixer(self, shape, classes, times)


class Mixer(nn.Module):
    def __init__(self, settings, shape, classes, times):
        super().__init__()
        width, side = settings.channels, settings.side
        inputs = [shape[1] * shape[2] // side**2, width] * settings.blocks
        self.time = nets.Embedding(width, classes=0, times=times)
        self.label = nn.Linear(classes, width) if classes else None
        self.cut = nn.Conv2d(shape[0], width, side, side)
        self.mix = nn.ModuleList(nn.Sequential(nn.Linear(n, n), nn.SiLU()) for n in inputs)
        self.output = nn.ConvTranspose2d(width, shape[0], side, side)

    def forward(self, x, t, label=None):
        told = self.time(t, None) + (0 if self.label is None else self.label(label))
        patches = self.cut(x)
        h = patches.flatten(2) + told[:, :, None]
        for mix in self.mix:
            h = (h + mix(h)).transpose(1, 2)
        return self.output(h.reshape(patches.shape))


@hookimpl
def networks():
    return [Patches]
