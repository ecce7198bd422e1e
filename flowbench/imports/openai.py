"""OpenAI's layout: what names and shapes tell, and its networks in the layout of EDM's ADM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowbench.imports.imported import Imported, chosen
from flowbench.nets.settings import ADM, Settings, heads
from flowbench.records import FlowbenchError

Tensors = Mapping[str, Tensor]

LABELS = "label_emb.weight"
TIME_SCALE = 1000.0  # OpenAI's time is 250 ln(sigma), EDM's ln(sigma) / 4
OUTER = {
    "time_embed.0": "map_layer0",
    "time_embed.2": "map_layer1",
    "time_embed_s.0": "map_layer0_second",
    "time_embed_s.2": "map_layer1_second",
    "out.0": "out_norm",
    "out.2": "out_conv",
}
BLOCK = {
    "": "",
    "in_layers.0": "norm0",
    "in_layers.2": "conv0",
    "emb_layers.1": "affine",
    "emb_layers_s.1": "affine_second",
    "out_layers.0": "norm1",
    "out_layers.3": "conv1",
    "skip_connection": "skip",
    "norm": "norm2",
    "qkv": "qkv",
    "proj_out": "proj",
}
RISING = ("conv.weight", "in_layers.0.weight")  # of the layers that double the side


@dataclass(frozen=True)
class Layout:
    """What a state dict in OpenAI's layout says about its network.

    `attended` are the levels that attend, 0 the top; a level has half the side of the one above.
    """

    channels: int
    mult: tuple[int, ...]
    blocks: int
    attended: tuple[int, ...]
    images: int
    classes: int
    scale_shift: bool
    resblock_updown: bool

    def side(self, path: Path, attending: int) -> int:
        """The side of its images, where the largest side that attends is known."""
        if not self.attended:
            raise FlowbenchError(f"{path} does not tell the size of its images: nothing attends")
        return attending << self.attended[0]

    def sizes(self, side: int) -> dict[str, Any]:
        """The settings that every backbone shares, for images of `side` pixels."""
        attention = tuple(side >> level for level in self.attended)
        names = ("channels", "mult", "blocks")
        return {**{name: getattr(self, name) for name in names}, "attention": attention}


def layout(path: Path, tensors: Tensors) -> Layout:
    """Read the layout from names and shapes; raises FlowbenchError where it is another one."""
    try:
        return _layout(tensors)
    except (KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise FlowbenchError(
            f"{path} is no U-Net of OpenAI's code: import one of the published files"
        ) from error


def _layout(tensors: Tensors) -> Layout:
    channels = tensors["time_embed.0.weight"].shape[1]
    count = len({n.split(".")[1] for n in tensors if n.startswith("output_blocks.")})
    rising = [j for j in range(count) if _rises(tensors, j)]
    levels = len(rising) + 1
    firsts = [(levels - 1 - level) * (count // levels) for level in range(levels)]
    widths = [len(tensors[f"output_blocks.{j}.0.out_layers.3.bias"]) for j in firsts]
    told = len(tensors["output_blocks.0.0.emb_layers.1.bias"])
    attended = (f"output_blocks.{j}.1.qkv.weight" in tensors for j in firsts)
    return Layout(
        channels=channels,
        mult=tuple(width // channels for width in widths),
        blocks=count // levels - 1,
        attended=tuple(level for level, attends in enumerate(attended) if attends),
        images=tensors["input_blocks.0.0.weight"].shape[1],
        classes=len(tensors.get(LABELS, ())),
        scale_shift=told == 2 * widths[-1],
        resblock_updown=not any(name.endswith(".0.op.weight") for name in tensors),
    )


def _rises(tensors: Tensors, j: int) -> bool:
    """Whether an output block ends with a layer that doubles the side."""
    last = [f"output_blocks.{j}.{k}.{part}" for k in (1, 2) for part in RISING]
    return any(name in tensors for name in last)


def read_openai(path: Path, tensors: Tensors, name: str) -> Imported:
    """A 64x64 network of the consistency models (Song et al. 2023) or of CTM (Kim et al. 2024).

    `name` is the published file's: edm_imagenet64_ema.pt, cd_* and ct_* hold the same tensors.
    Raises FlowbenchError for their other networks, which have 256x256 pixels.
    """
    found = layout(path, tensors)
    side = found.side(path, attending=32)
    if side != 64 or not (found.scale_shift and found.resblock_updown):
        raise FlowbenchError(
            f"{path} is a network for {side}x{side} pixels with OpenAI's other settings:"
            " only the 64x64 ones of ImageNet are imported"
        )
    jumps = "time_embed_s.0.weight" in tensors
    method, options = ("ctm", {}) if jumps else _method(path, name)
    network = _adm(path, found, side, dropout=0.1 if method == "edm" else 0.0)
    return Imported(
        form="ctm" if jumps else "consistency-models",
        method=method,
        options=options,
        network=network,
        shape=(found.images, side, side),
        classes=found.classes,
        tensors={f"net.model.{n}": tensor for n, tensor in converted(tensors, network, side)},
    )


def _adm(path: Path, found: Layout, side: int, dropout: float) -> Settings:
    """The settings of EDM's ADM that is the same network."""
    return chosen(
        path,
        ADM,
        **found.sizes(side),
        dropout=dropout,
        time_scale=TIME_SCALE,
    )


def _method(path: Path, name: str) -> tuple[str, dict[str, str]]:
    """(method, options) that the name of a file of the consistency models says."""
    kind = name.partition("_")[0]
    if kind == "edm":
        return "edm", {}
    if kind in ("cd", "ct"):
        return "ctm", {"variant": "cd"}
    raise FlowbenchError(
        f"{path} does not say how it was trained: add --name with the published name, such as"
        " edm_imagenet64_ema.pt, cd_imagenet64_lpips.pt or ct_imagenet64.pt"
    )


def converted(tensors: Tensors, network: Settings, side: int) -> Iterator[tuple[str, Tensor]]:
    """The same network with EDM's names, and attention's rows ordered (head, channel, qkv).

    OpenAI's have the order (qkv, head, channel). Resampling filters, which OpenAI's network has
    as code, come as tensors. A name that is not known stays as it is.
    """
    table = stages(network, side)
    for name, tensor in tensors.items():
        new = renamed(name, table)
        if new.endswith((".qkv.weight", ".qkv.bias", ".proj.weight")):
            tensor = attention(tensor, new)
        yield new, tensor.float().T if name == LABELS else tensor.float()
    for stage in set(table.values()):
        if stage.endswith(("_down", "_up")):
            for part in ("conv0", "skip"):
                yield f"{stage}.{part}.resample_filter", torch.full((1, 1, 2, 2), 0.25)


def stages(network: Settings, side: int) -> dict[str, str]:
    """EDM's block for each layer of OpenAI's: attention belongs to the block before it."""
    sides = [side >> level for level in range(len(network.mult))]
    encoder: list[str] = []
    decoder: list[str] = []
    for size in sides:
        encoder.append(f"enc.{size}x{size}_" + ("down" if encoder else "conv"))
        encoder += [f"enc.{size}x{size}_block{i}" for i in range(network.blocks)]
        decoder[:0] = [f"dec.{size}x{size}_block{i}" for i in range(network.blocks + 1)]
    middle = zip((0, 1, 2), ("in0", "in0", "in1"), strict=True)
    table = {f"middle_block.{k}": f"dec.{sides[-1]}x{sides[-1]}_{name}" for k, name in middle}
    for k in (0, 1):
        table |= {f"input_blocks.{i}.{k}": name for i, name in enumerate(encoder)}
        table |= {f"output_blocks.{j}.{k}": name for j, name in enumerate(decoder)}
    for n, size in enumerate(reversed(sides[1:]), 1):  # what doubles a side ends the level below
        last = 2 if size in network.attention else 1
        up = f"output_blocks.{n * (network.blocks + 1) - 1}.{last}"
        table[up] = f"dec.{2 * size}x{2 * size}_up"
    return table


def renamed(name: str, table: Mapping[str, str]) -> str:
    """EDM's name of a tensor of OpenAI's, as far as it is known."""
    stem, _, kind = name.rpartition(".")
    if name == LABELS:
        return "map_label.weight"
    if stem in OUTER:
        return f"{OUTER[stem]}.{kind}"
    words = stem.split(".")
    depth = 2 if words[0] == "middle_block" else 3
    layer, inner = ".".join(words[:depth]), ".".join(words[depth:])
    if layer not in table or inner not in BLOCK:
        return name
    return ".".join(filter(None, (table[layer], BLOCK[inner], kind)))


def attention(tensor: Tensor, name: str) -> Tensor:
    """Weight or bias of attention's 1x1 convolutions as EDM has them, (rows, columns, 1, 1)."""
    width = len(tensor) // 3
    if "qkv" in name and len(tensor) % (3 * heads(width)) == 0:
        parts = tensor.reshape(3, heads(width), width // heads(width), -1)
        tensor = parts.permute(1, 2, 0, 3).reshape(tensor.shape)
    return tensor if tensor.ndim == 1 else tensor.reshape(*tensor.shape[:2], 1, 1)
