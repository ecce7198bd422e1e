"""A published network as flowbench uses it, and the safetensors file that keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flowbench.checkpoints import save_tensors
from flowbench.nets import settings
from flowbench.records import FlowbenchError

Form = Literal["edm-pickle", "consistency-models", "ctm", "torchcfm"]


@dataclass(frozen=True)
class Imported:
    """A network that was trained elsewhere, with the method of flowbench that samples from it.

    `options` are those of the method that differ from its defaults; `network` are the settings of
    the backbone. Images are `shape` (C, H, W) in [-1, 1], `classes` is 0 where it knows none, and
    `std` is the standard deviation of data that its preconditioning has. `tensors` is the state
    dict of the method's network in float32. `facts` say where it comes from: sha256 and file (of
    the original), licence, source, importer (our version).
    """

    form: Form
    method: str
    network: settings.Network
    shape: tuple[int, int, int]
    classes: int
    tensors: Mapping[str, Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    std: float = 0.5
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def times(self) -> int:
        """How many times the backbone reads: 2 where it is told the end of a jump."""
        return 2 if self.method == "ctm" and self.options.get("variant", "ctm") == "ctm" else 1

    @property
    def prefix(self) -> str:
        """What stands before the backbone's names in `tensors`: the preconditioning's child."""
        return "" if self.method == "cfm" else "net."

    def backbone(self) -> nn.Module:
        """The untrained backbone."""
        from flowbench.nets.backbone import Backbone

        return Backbone(self.network, self.shape, self.classes, self.times)

    @property
    def parameters(self) -> int:
        """How many parameters the network has."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.backbone().parameters())

    def check(self, path: Path) -> None:
        """Raise FlowbenchError unless every tensor of the network is there, and no other."""
        with torch.device("meta"):
            state = self.backbone().state_dict()
        wanted = {(self.prefix + name, tuple(tensor.shape)) for name, tensor in state.items()}
        there = {(name, tuple(tensor.shape)) for name, tensor in self.tensors.items()}
        if odd := sorted(wanted ^ there):
            raise FlowbenchError(
                f"{path} is no {settings.word(self.network)}, which is nearest to it: {len(odd)}"
                f" tensors differ, such as {odd[0][0]!r}; import one of the published files"
            )


def chosen(path: Path, kind: type[settings.Settings], **values: Any) -> settings.Settings:
    """Settings with these values; raises FlowbenchError, naming the file, where none can be."""
    try:
        return kind(**values)
    except FlowbenchError as error:
        raise FlowbenchError(f"{path} holds a network that is not known: {error}") from error


def save(path: Path, imported: Imported) -> None:
    """Store it as safetensors, from which `read` makes the same again."""
    described = {
        "form": imported.form,
        "method": imported.method,
        "options": dict(imported.options),
        "network": settings.to_json(imported.network),
        "shape": list(imported.shape),
        "classes": imported.classes,
        "std": imported.std,
        **imported.facts,
    }
    save_tensors(path, imported.tensors, {"import": described})


def restore(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Imported:
    """What `save` stored; raises FlowbenchError for another file."""
    if "spec" in facts:
        raise FlowbenchError(
            f"{path} is a network of flowbench already: there is nothing to import"
        )
    try:
        described = dict(facts["import"])
        channels, height, width = (int(n) for n in described.pop("shape"))
        return Imported(
            form=described.pop("form"),
            method=str(described.pop("method")),
            network=settings.from_json(described.pop("network")),
            shape=(channels, height, width),
            classes=int(described.pop("classes")),
            tensors=tensors,
            options=dict(described.pop("options")),
            std=float(described.pop("std")),
            facts=described,
        )
    except (FlowbenchError, KeyError, TypeError, ValueError) as error:
        raise FlowbenchError(
            f"{path} was not written by flowbench import: give it the published file"
        ) from error
