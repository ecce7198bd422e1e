"""The networks and rows that training and sampling are measured on, small enough for two cores."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.speed.loops import Case
from flowbench.nets import MLP, Denoiser, UNet
from flowbench.nets.backbone import Backbone
from flowbench.nets.settings import parse

ROWS = 4096
SIGMA_DATA = 0.5  # EDM's, for images in [-1, 1]
IMAGES = "ddpmpp,channels=32,mult=1-2-2,blocks=1,augment=0"  # half a second a step on two cores
SMALL = "ddpmpp,channels=16,mult=1-2-2,blocks=1,augment=0"
TINY = "ddpmpp,channels=8,mult=1-1,blocks=1,augment=0"
LARGE = "ddpmpp,augment=0"  # EDM's for CIFAR-10, 55 million parameters
# torchcfm's own U-Net takes the same weights: its settings by both names.
OPENAI = {"channels": 64, "mult": (1, 2, 2), "blocks": 1}
OPENAI_TINY = {"channels": 64, "mult": (1, 1), "blocks": 1}
OPENAI_LARGE = {"channels": 128, "mult": (1, 2, 2, 2), "blocks": 2}


def vectors(quick: bool, device: str) -> Case:
    """Rows of two numbers and flowbench's MLP at its usual width."""
    torch.manual_seed(0)
    values, net = torch.randn(ROWS, 2, device=device), MLP((2,)).to(device)
    return Case("2-D vectors, MLP, batch 256", values, 256, net)


def digits(quick: bool, device: str) -> Case:
    """Images of 8x8 pixels and flowbench's small U-Net at its usual width."""
    torch.manual_seed(0)
    net = UNet((1, 8, 8)).to(device)
    return Case("8x8 digits, small U-Net, batch 64", _pixels((1, 8, 8), device), 64, net)


def images(quick: bool, device: str, precision: str = "float32") -> Case:
    """Images of 32x32 pixels and a DDPM++, as large as the device is made for."""
    torch.manual_seed(0)
    word = TINY if quick else LARGE if on_gpu(device) else IMAGES
    batch = 2 if quick else 128 if on_gpu(device) else 32
    chosen = replace(parse(word), precision=precision)
    net = Backbone(chosen, (3, 32, 32)).to(device)
    return Case(f"32x32 images, DDPM++, batch {batch}", _pixels((3, 32, 32), device), batch, net)


def denoiser(quick: bool, device: str, precision: str = "float32") -> Case:
    """The same as a denoiser D(x, sigma, y), with EDM's preconditioning and sigma_data."""
    case = images(quick, device, precision)
    name = case.name.replace("DDPM++", "DDPM++ as EDM's denoiser")
    return replace(case, name=name, network=Denoiser(case.network, SIGMA_DATA))


def small_images(quick: bool, batch: int) -> Case:
    """Images of 32x32 pixels and a DDPM++ of half the width, on the host."""
    torch.manual_seed(0)
    net = Backbone(parse(TINY if quick else SMALL), (3, 32, 32))
    return Case(
        f"32x32 images, small DDPM++, batch {batch}", _pixels((3, 32, 32), "cpu"), batch, net
    )


def openai(quick: bool, device: str, precision: str = "float32") -> Case:
    """Images of 32x32 pixels and OpenAI's U-Net, which torchcfm has too."""
    torch.manual_seed(0)
    settings, batch = _openai(quick, device), 2 if quick else 128 if on_gpu(device) else 16
    chosen = replace(parse("openai"), **settings, precision=precision)
    net = Backbone(chosen, (3, 32, 32)).to(device)
    values = _pixels((3, 32, 32), device)
    return Case(f"32x32 images, OpenAI's U-Net, batch {batch}", values, batch, net)


def torchcfm_twin(case: Case, quick: bool) -> nn.Module:
    """torchcfm's own U-Net, called as net(t, x), with the weights of `openai`'s network."""
    from torchcfm.models.unet.unet import UNetModelWrapper

    settings = _openai(quick, case.device)
    twin = UNetModelWrapper(
        (3, 32, 32),
        num_channels=settings["channels"],
        num_res_blocks=settings["blocks"],
        channel_mult=settings["mult"],
        num_heads=4,
        num_head_channels=64,
        attention_resolutions="16",
        dropout=0.1,
    )
    twin.load_state_dict(case.network.model.state_dict())
    return twin.to(case.device)


class Swapped(nn.Module):
    """Our network, called as torchcfm calls its own: net(t, x), t (B,) or a scalar."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, x: Tensor, args: object = None) -> Tensor:
        """The velocity at x (B, *shape)."""
        return self.net(x, t.expand(len(x)))


def on_gpu(device: str) -> bool:
    """Whether a device is a GPU: networks are as large as those of papers there."""
    return device.startswith("cuda")


def _openai(quick: bool, device: str) -> dict:
    return OPENAI_TINY if quick else OPENAI_LARGE if on_gpu(device) else OPENAI


def _pixels(shape: tuple[int, ...], device: str) -> Tensor:
    return torch.randint(256, (ROWS, *shape), dtype=torch.uint8).to(device)
