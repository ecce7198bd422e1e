"""Trained networks as files: those that `flowbench run` writes, and published checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from flowbench import imports, plugins
from flowbench.checkpoints import file_hash, read_facts, read_tensors
from flowbench.data.base import Data
from flowbench.nets import settings
from flowbench.records import FlowbenchError, Spec
from flowbench.training import Bill


@dataclass(frozen=True)
class NetworkFile:
    """A network that needs no training: what made it, and how it sees data.

    `spec` is that of the run which wrote the file, None for published checkpoints; these say
    their `shape`, `classes`, the `std` of data that they were trained with, and the `facts` of
    where they come from (hash of the original file, licence, source).
    """

    path: Path
    sha256: str
    method: str
    options: Mapping[str, Any]
    setting: Mapping[str, Any]
    spec: Spec | None = None
    shape: tuple[int, ...] = ()
    classes: int = 0
    std: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> Any:
        """The settings of its backbone, or None for small data."""
        known = self.setting.get("network")
        return settings.from_json(known, plugins.networks()) if known else None

    @property
    def unlabelled(self) -> bool:
        """Whether a network of ours was trained without labels: then so is what follows from it."""
        return self.spec is not None and bool(self.setting.get("unconditional"))

    def check(self, data: Data) -> None:
        """Raise FlowbenchError unless the network takes data like these."""
        if self.spec is not None:
            return
        if self.shape != data.shape:
            raise FlowbenchError(
                f"{self.path} takes images {self.shape}, and {data.name} has {data.shape}"
            )
        if self.classes != data.classes:
            hint = "add --unconditional" if not self.classes else "it needs other labels"
            raise FlowbenchError(
                f"{self.path} knows {self.classes} classes, and the run {data.classes}: {hint}"
            )


def look(path: Path) -> NetworkFile:
    """What a file holds; raises FlowbenchError in one line for what is no network."""
    sha256 = file_hash(path)
    spec = _own(path)
    if spec is not None:
        return NetworkFile(path, sha256, spec.method, spec.options, spec.setting, spec)
    found = _imported(path, sha256)
    setting: dict[str, Any] = {"network": settings.to_json(found.network)}
    if not found.classes:
        setting["unconditional"] = True
    described = (found.shape, found.classes, found.std, found.facts)
    return NetworkFile(path, sha256, found.method, found.options, setting, None, *described)


def _own(path: Path) -> Spec | None:
    """The Spec in the header of a file that `flowbench run` wrote."""
    if path.suffix != ".safetensors":
        return None
    facts = read_facts(path)
    try:
        return Spec.from_json(facts["spec"]) if "import" not in facts else None
    except (KeyError, TypeError) as error:
        raise FlowbenchError(f"{path} does not say which method made it") from error


@lru_cache(maxsize=1)
def _imported(path: Path, sha256: str) -> Any:
    """The last published checkpoint that was read; its hash tells whether the file changed."""
    return imports.read(path)


def tensors(path: Path) -> tuple[dict[str, Tensor], Bill | None]:
    """The state dict of the network, and what its training cost where the file says so."""
    if _own(path) is None:
        return dict(_imported(path, file_hash(path)).tensors), None
    values, facts = read_tensors(path)
    return values, facts.get("bill")
