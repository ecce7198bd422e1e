"""What every backbone that a user may choose has in common; nothing here is a network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from flowbench import options
from flowbench.records import FlowbenchError

if TYPE_CHECKING:
    from torch import nn

Precision = Literal["float32", "bfloat16", "float16"]
SMALL = "small"  # the word for the networks of small data, which have no settings
CODE = "code"  # in the JSON of a third party's network: the hash over its source


@dataclass(frozen=True)
class Network:
    """A backbone by `name`, its fields what a user may set; raises FlowbenchError for wrong ones.

    A subclass is a frozen dataclass whose fields all have defaults; its docstring describes it.
    `channels` is the width, which methods set too (`-o width=`). Three further fields mean
    something wherever a subclass has them: `precision`, in which flowbench lets it compute
    (`--precision`), `dropout`, which is 0 for students, and `augment`, 9 for a network that is
    told how its images were augmented. Raises TypeError for a class that cannot be one.
    """

    name: ClassVar[str]
    vectors: ClassVar[bool] = False  # whether it takes rows of numbers, too
    channels: int = 128
    # Without annotations, so that they are fields only of those that can do otherwise.
    precision = "float32"
    augment = 0

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        name = vars(cls).get("name", "unnamed")
        if not isinstance(name, str) or name == SMALL or not re.fullmatch(r"[a-z][\w.-]*", name):
            raise TypeError(f"{name!r} cannot be the name of a network: take small letters")
        if CODE in vars(cls).get("__annotations__", {}):
            raise TypeError(f"network {name} takes another name for its setting {CODE!r}")

    def __post_init__(self) -> None:
        if not vars(type(self)).get("__dataclass_params__"):
            cls = type(self).__name__
            raise FlowbenchError(f"network {self.name}: write @dataclass(frozen=True) above {cls}")
        self._require(self.channels >= 1, "needs positive channels")
        if not self.fits(self.channels):
            problem = f"cannot split its channels evenly with channels={self.channels}"
            raise FlowbenchError(f"network {self.name} {problem}: {self._hint()}")

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise FlowbenchError(f"network {self.name} {problem}, not {options.to_word(self)}")

    def _hint(self) -> str:
        """The width nearest to `channels` that can be built, and what to type for it."""
        near = range(max(4, self.channels - 64), self.channels + 65)
        fitting = sorted(filter(self.fits, near), key=lambda width: abs(width - self.channels))
        return f"type channels={fitting[0]}" if fitting else "take another width"

    def fits(self, channels: int) -> bool:
        """Whether a network of this width can be built: any, unless a subclass knows better."""
        return True

    def check(self, shape: Sequence[int]) -> None:
        """Raise FlowbenchError for data of a `shape` that the network does not take."""

    def build(self, shape: Sequence[int], classes: int, times: int) -> "nn.Module":
        """The untrained network for data of `shape`, called as net(x, t, label), and like x.

        x is float32 (B, *shape), t (B,) or with `times` 2 (B, 2), label None or one-hot
        (B, classes). One with `augment` 9 is called as net(x, t, label, augment), the last None or
        (B, 9). Its submodule `output` is the last layer, whose weight balances losses. With two
        times it starts as the network of the first; what is new has `second` in its name.
        """
        raise FlowbenchError(f"network {self.name} has no method build: write one")
