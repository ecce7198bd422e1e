"""Checkpoints of torchcfm (Tong et al. 2024), https://github.com/atong01/conditional-flow-matching."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from flowbench.imports.imported import Imported, chosen
from flowbench.imports.openai import layout
from flowbench.nets.settings import OpenAI


def read_torchcfm(path: Path, tensors: Mapping[str, Tensor]) -> Imported:
    """A velocity network of torchcfm in OpenAI's layout, whose largest attending side is 16.

    Raises FlowbenchError for another layout.
    """
    found = layout(path, tensors)
    side = found.side(path, attending=16)
    network = chosen(
        path,
        OpenAI,
        **found.sizes(side),
        scale_shift=found.scale_shift,
        resblock_updown=found.resblock_updown,
    )
    return Imported(
        form="torchcfm",
        method="cfm",
        network=network,
        shape=(found.images, side, side),
        classes=found.classes,
        tensors={f"model.{name}": tensor.float() for name, tensor in tensors.items()},
    )
