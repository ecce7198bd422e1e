"""What a user may choose about a large backbone, as frozen values; nothing here is a network."""

import dataclasses
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

from flowbench import options
from flowbench.records import FlowbenchError

Precision = Literal["float32", "bfloat16", "float16"]
HEAD = 64  # channels of one head of ADM's attention
AUGMENT_PARAMETERS = 9  # how EDM's pipeline describes what it did to an image (appendix F.2)


def groups(width: int) -> int:
    """The groups that EDM's networks normalise `width` channels in: 32, or 4 channels each."""
    return min(32, width // 4)


def heads(width: int) -> int:
    """The heads of ADM's attention: one for `HEAD` channels, one at least."""
    return max(1, width // HEAD)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all large backbones share; raises FlowbenchError for what cannot be built.

    `mult` has one factor of `channels` for each resolution, from the top, and `attention` names
    the resolutions (sides in pixels) whose blocks attend. `augment` is 9 for a network that is
    told how its images were augmented, else 0. `time_scale` multiplies t before the embedding.
    """

    name: ClassVar[str]
    channels: int = 128
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
        if not self.fits(self.channels):
            problem = f"cannot split its channels evenly with channels={self.channels}"
            raise FlowbenchError(f"network {self.name} {problem}: type channels={self._nearest()}")

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise FlowbenchError(f"network {self.name} {problem}, not {word(self)}")

    def fits(self, channels: int) -> bool:
        """Whether each normalisation of a network of this width has groups of equal size."""
        return channels % 4 == 0 and all(w % groups(w) == 0 for w in self._widths(channels))

    def _widths(self, channels: int) -> set[int]:
        """The numbers of channels that are normalised, those of joined skips among them."""
        levels = [channels, *(channels * factor for factor in self.mult)]
        joined = [a + b for a, b in pairwise(levels)]
        return {*levels, *joined, *(2 * level for level in levels[1:])}

    def _nearest(self) -> int:
        """The width nearest to `channels` that can be built; multiples of 64 always can."""
        near = range(max(4, self.channels - 64), self.channels + 65)
        return min(filter(self.fits, near), key=lambda width: abs(width - self.channels))


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


NETWORKS: dict[str, type[Settings]] = {cls.name: cls for cls in (DDPMpp, NCSNpp, ADM, OpenAI)}


def parse(word: str) -> Settings:
    """Settings from a word: "ddpmpp", or "adm,channels=64,mult=1-2" with what differs.

    Raises FlowbenchError for a name or value that does not exist.
    """
    return options.parse_word("network", word, NETWORKS)


def word(settings: Settings) -> str:
    """The shortest word that `parse` reads as these settings."""
    return options.to_word(settings)


def to_json(settings: Settings) -> dict[str, Any]:
    """All settings as JSON knows them, with the network's name under "name"."""
    return {"name": settings.name, **options.values(settings)}


def from_json(values: Mapping[str, Any]) -> Settings:
    """Settings from what `to_json` wrote; raises FlowbenchError for anything else."""
    fields = dict(values)
    name = str(fields.pop("name", None))
    cls = NETWORKS[options.choose("network", name, NETWORKS)]
    return cls(**options.parse(f"network {name}", cls, fields))
