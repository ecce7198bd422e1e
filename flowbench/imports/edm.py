"""EDM's layout: its pickles, and the settings that names and shapes of tensors tell."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowbench.imports.imported import Imported, chosen
from flowbench.imports.unpickle import Module, read_pickle
from flowbench.nets.settings import ADM, DDPMpp, NCSNpp, Settings
from flowbench.records import FlowbenchError

STAGE = re.compile(r"enc\.(\d+)x\1_block(\d+)\.conv1\.bias")


def read_edm(path: Path) -> Imported:
    """The averaged network of a pickle of EDM (Karras et al. 2022), https://github.com/NVlabs/edm.

    Raises FlowbenchError for pickles of other content and other preconditionings.
    """
    content = read_pickle(path)
    ema = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(ema, Module):
        raise FlowbenchError(f"{path} has no network under `ema`: import a pickle of EDM")
    if ema.name != "EDMPrecond":
        raise FlowbenchError(
            f"{path} is preconditioned by {ema.name!r}, and only EDMPrecond is imported:"
            " take EDM's own networks, not its baselines"
        )
    tensors = {name: tensor.float() for name, tensor in ema.state().items()}
    dropout = next((d for m in ema.modules() if (d := m.number("dropout")) is not None), None)
    network, shape, classes = described(path, tensors, dropout)
    std = ema.number("sigma_data")
    return Imported(
        form="edm-pickle",
        method="edm",
        network=network,
        shape=shape,
        classes=classes,
        tensors={f"net.{name}": tensor for name, tensor in tensors.items()},
        std=0.5 if std is None else std,
    )


def described(
    path: Path, tensors: Mapping[str, Tensor], dropout: float | None = None
) -> tuple[Settings, tuple[int, int, int], int]:
    """(settings, shape of images, classes) of a state dict in EDM's layout, `model.enc...`.

    Raises FlowbenchError where it is another layout.
    """
    try:
        plain = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        return _described(path, plain, dropout)
    except (KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise FlowbenchError(
            f"{path} is no DDPM++, NCSN++ or ADM of EDM: import one of its published files"
        ) from error


def _described(
    path: Path, tensors: Mapping[str, Tensor], dropout: float | None
) -> tuple[Settings, tuple[int, int, int], int]:
    stages = [(int(m[1]), int(m[2])) for name in tensors if (m := STAGE.fullmatch(name))]
    sides = sorted({side for side, _ in stages}, reverse=True)
    top, channels = sides[0], len(tensors["map_layer0.bias"]) // 4
    widths = [len(tensors[f"enc.{side}x{side}_block0.conv1.bias"]) for side in sides]
    given: dict[str, Any] = {} if dropout is None else {"dropout": dropout}
    network = chosen(
        path,
        _kind(tensors),
        channels=channels,
        mult=tuple(width // channels for width in widths),
        blocks=sum(side == top for side, _ in stages),
        attention=tuple(s for s in sides if f"enc.{s}x{s}_block0.qkv.weight" in tensors),
        augment=_inputs(tensors, "map_augment.weight"),
        **given,
    )
    images = tensors[f"enc.{top}x{top}_conv.weight"].shape[1]
    return network, (images, top, top), _inputs(tensors, "map_label.weight")


def _kind(tensors: Mapping[str, Tensor]) -> type[Settings]:
    if "out_conv.weight" in tensors:
        return ADM
    return NCSNpp if "map_noise.freqs" in tensors else DDPMpp


def _inputs(tensors: Mapping[str, Tensor], name: str) -> int:
    """How many inputs a linear layer has; 0 where it is not there."""
    return tensors[name].shape[1] if name in tensors else 0
