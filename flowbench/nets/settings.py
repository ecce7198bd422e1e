"""The settings of the U-Nets, and settings of any network as words and JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from flowbench import options
from flowbench.nets.network import CODE, Network, Precision
from flowbench.records import FlowbenchError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CODE", "NETWORKS", "Network", "Precision", "Settings", "from_json", "parse", "to_json"]
__all__ += ["ADM", "DDPMpp", "NCSNpp", "OpenAI", "groups", "heads", "word"]

HEAD = 64  # channels of one head of ADM's attention
AUGMENT_PARAMETERS = 9  # how EDM's pipeline describes what it did to an image (appendix F.2)


def groups(width: int) -> int:
    """The groups that EDM's networks normalise `width` channels in: 32, or 4 channels each."""
    return min(32, width // 4)


def heads(width: int) -> int:
    """The heads of ADM's attention: one for `HEAD` channels, one at least."""
    return max(1, width // HEAD)


@dataclasses.dataclass(frozen=True)
class Settings(Network):
    """What the U-Nets share.

    `mult` has one factor of `channels` for each resolution, from the top, and `attention` names
    the resolutions (sides in pixels) whose blocks attend. `augment` is 9 for a network that is
    told how its images were augmented, else 0. `time_scale` multiplies t before the embedding.
    """

    mult: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    dropout: float = 0.13
    augment: int = AUGMENT_PARAMETERS
    time_scale: float = 1.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        numbers = (self.channels, self.blocks, len(self.mult), *self.mult, *self.attention)
        self._require(min(numbers) >= 1, "needs positive channels, mult, blocks and attention")
        self._require(0 <= self.dropout < 1, f"needs a dropout in [0, 1), not {self.dropout}")
        self._require(self.augment in (0, AUGMENT_PARAMETERS), "takes augment=0 or augment=9")
        scale = self.time_scale
        self._require(math.isfinite(scale) and scale > 0, "needs a finite time_scale above 0")
        super().__post_init__()

    def fits(self, channels: int) -> bool:
        """Whether each normalisation of a network of this width has groups of equal size."""
        return channels % 4 == 0 and all(w % groups(w) == 0 for w in self._widths(channels))

    def _widths(self, channels: int) -> set[int]:
        """The numbers of channels that are normalised, those of joined skips among them."""
        levels = [channels, *(channels * factor for factor in self.mult)]
        joined = [a + b for a, b in pairwise(levels)]
        return {*levels, *joined, *(2 * level for level in levels[1:])}

    def check(self, shape: Sequence[int]) -> None:
        """Raise FlowbenchError for images that the network cannot halve."""
        side, unit = shape[-1], 2 ** (len(self.mult) - 1)
        if len(shape) != 3 or shape[1] != side or side % unit:
            size = "x".join(map(str, shape))
            raise FlowbenchError(
                f"network {self.name} needs square images whose side is a multiple of {unit}, "
                f"not {size}: shorten mult or take another network"
            )

    def build(self, shape: Sequence[int], classes: int, times: int) -> "nn.Module":
        """EDM's encoder and decoder of Song et al., DDPM++ or NCSN++."""
        from flowbench.nets.song import SongUNet

        return SongUNet(self, shape, classes, times)


@dataclasses.dataclass(frozen=True)
class DDPMpp(Settings):
    """EDM's DDPM++ ("VP" in file names); the defaults are its network for CIFAR-10 (Table 7)."""

    name: ClassVar[str] = "ddpmpp"


@dataclasses.dataclass(frozen=True)
class NCSNpp(Settings):
    """EDM's NCSN++ ("VE" in file names); the defaults are its network for CIFAR-10 (Table 7)."""

    name: ClassVar[str] = "ncsnpp"


@dataclasses.dataclass(frozen=True)
class ADM(Settings):
    """EDM's ADM; the defaults are its network for ImageNet-64 (Table 7)."""

    name: ClassVar[str] = "adm"
    channels: int = 192
    mult: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (32, 16, 8)
    dropout: float = 0.1
    augment: int = 0

    def fits(self, channels: int) -> bool:
        """Whether normalisations and the heads of attention have equal parts."""
        whole = all(channels * factor % heads(channels * factor) == 0 for factor in self.mult)
        return whole and super().fits(channels)

    def build(self, shape: Sequence[int], classes: int, times: int) -> "nn.Module":
        """EDM's network of Dhariwal and Nichol."""
        from flowbench.nets.dhariwal import DhariwalUNet

        return DhariwalUNet(self, shape, classes, times)


@dataclasses.dataclass(frozen=True)
class OpenAI(Settings):
    """OpenAI's U-Net; the defaults are torchcfm's network for CIFAR-10 (Tong et al. 2024)."""

    name: ClassVar[str] = "openai"
    mult: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    dropout: float = 0.1
    augment: int = 0
    heads: int = 4  # of attention, where head_channels is 0
    head_channels: int = 64
    scale_shift: bool = False
    resblock_updown: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.heads >= 1 and self.head_channels >= 0, "needs heads of attention")
        lowest = self.channels * self.mult[-1]
        count = lowest // self.head_channels if self.head_channels else self.heads
        even = count >= 1 and lowest % count == 0
        self._require(even, f"cannot give {lowest} channels to equal heads of attention")

    def fits(self, channels: int) -> bool:
        """Whether the 32 groups that every normalisation has are of equal size."""
        return channels % 32 == 0

    def build(self, shape: Sequence[int], classes: int, times: int) -> "nn.Module":
        """The U-Net of guided-diffusion."""
        from flowbench.nets.guided import GuidedUNet

        return GuidedUNet(self, shape, classes, times)


Known = Mapping[str, type[Network]]
# Those of published checkpoints; a run takes every plugin's.
NETWORKS: Known = {cls.name: cls for cls in (DDPMpp, NCSNpp, ADM, OpenAI)}


def parse(word: str, known: Known = NETWORKS) -> Network:
    """Settings from a word: "ddpmpp", or "adm,channels=64,mult=1-2" with what differs.

    Raises FlowbenchError for a name that is not among the `known`, or a value that does not exist.
    """
    return options.parse_word("network", word, known)


def word(settings: Network) -> str:
    """The shortest word that `parse` reads as these settings."""
    return options.to_word(settings)


def to_json(settings: Network) -> dict[str, Any]:
    """All settings as JSON knows them, with the network's name under "name"."""
    return {"name": settings.name, **options.values(settings)}


def from_json(values: Mapping[str, Any], known: Known = NETWORKS) -> Network:
    """Settings from what `to_json` wrote; raises FlowbenchError for anything else.

    A third party's network may have its `CODE` there: it is in the key of the run, and of no use
    here.
    """
    fields = dict(values)
    name = str(fields.pop("name", None))
    fields.pop(CODE, None)
    cls = known[options.choose("network", name, known)]
    return cls(**options.parse(f"network {name}", cls, fields))
