"""How a run sees its data: the backbone of its networks, augmentation, labels; how it is trained.

All methods on a data set share these, so they belong to the run and not to a method's options.
Small data have none: their networks follow from their shape alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flowbench import augment, optimizers, options, plugins
from flowbench.data.base import Data
from flowbench.entries import Dataset
from flowbench.nets import settings
from flowbench.nets.network import SMALL, Network
from flowbench.records import FlowbenchError

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
SIGMA_DATA = 0.5  # EDM's, for all images
WORDS = ("network", "precision", "augment", "unconditional", "optimizer")  # what a user may choose
HASH = 16  # digits of a hash in words that tell runs apart
LARGE = 32  # the side from which images get EDM's backbones


def resolve(
    data: Data,
    entry: Dataset,
    *,
    network: str | None = None,
    precision: str | None = None,
    augmentation: str | None = None,
    unconditional: bool = False,
    optimizer: str | None = None,
    like: Any = None,
    student: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(setting, what of it the user chose) of a run on `data`.

    Network, precision, augmentation and optimizer are a user's words. Unless the user names a
    backbone, it is `like` that of a file, or the data set's; a `student` copies a function, so it
    has no dropout unasked.
    """
    chosen = _precise(_backbone(data, entry, network, like, student), precision)
    augmented = augment.parse(augmentation or "none")
    moved = optimizers.parse(optimizer or optimizers.DEFAULT.name)
    parts = {
        "network": chosen and described(chosen),
        "augment": augmented and augmented.word,
        "unconditional": unconditional and bool(data.classes),
        "optimizer": options.to_word(moved) if moved != optimizers.DEFAULT else None,
    }
    setting = {name: part for name, part in parts.items() if part}
    return setting, _asked(setting, network, precision)


def described(network: Network) -> dict[str, Any]:
    """The settings of a backbone as a run keeps them: those of a third party's with its code.

    It decides what is trained as much as the settings do.
    """
    known = settings.to_json(network)
    if type(network) in settings.NETWORKS.values():
        return known
    return known | {settings.CODE: plugins.code_hash(type(network))[:HASH]}


def _backbone(data: Data, entry: Dataset, word: str | None, like: Any, student: bool) -> Any:
    """The settings of the backbone, None for the small networks."""
    name = word or default_network(entry, data)
    chosen: Any = _parsed(name) if like is None or word is not None else like
    if chosen is None or not student or not _sets(chosen, "dropout") or "dropout" in (word or ""):
        return chosen
    return dataclasses.replace(chosen, dropout=0.0)


def _parsed(word: str) -> Network | None:
    """The settings that a word says; raises FlowbenchError for what no plugin offers."""
    if word == SMALL:
        return None
    plugins.refuse_clash("networks", word.partition(",")[0])
    return settings.parse(word, plugins.networks())


def _asked(
    setting: Mapping[str, Any], network: str | None, precision: str | None
) -> dict[str, Any]:
    """What of a setting is not the data set's default, in the words of the command line."""
    words = {name: setting.get(name) for name in ("augment", "unconditional", "optimizer")}
    words |= {"network": network, "precision": precision}
    return {name: word for name, word in words.items() if word}


def default_network(entry: Dataset, data: Data) -> str:
    """The backbone that a data set's methods get unasked, as `--network` takes it."""
    side = data.shape[-1] if data.kind == "image" else 0
    if entry.network or side < LARGE:
        return entry.network or SMALL
    return "ddpmpp" if side < 2 * LARGE else "ddpmpp,mult=1-2-2-2"


def _precise(chosen: Any, precision: str | None) -> Any:
    if precision is None:
        return chosen
    if chosen is None and precision == "fp32":  # as small networks are
        return None
    if chosen is None:
        raise FlowbenchError(
            f"--precision {precision} goes with a large backbone, such as --network ddpmpp: take"
            " fp32"
        )
    wanted = PRECISIONS.get(precision, precision)
    if _sets(chosen, "precision"):
        return dataclasses.replace(chosen, precision=wanted)
    if wanted != chosen.precision:
        raise FlowbenchError(f"network {chosen.name} computes in float32: take --precision fp32")
    return chosen


def _sets(network: Network, field: str) -> bool:
    """Whether a backbone has this setting."""
    return field in {own.name for own in dataclasses.fields(network)}


def dress(data: Data, setting: Mapping[str, Any], std: float | None = None) -> Data:
    """The data as a run with this setting sees them; raises FlowbenchError for backbones that
    the data do not fit.

    Backbones for images take EDM's standard deviation of data, 0.5, as published weights do.
    """
    network = _fitting(setting.get("network"), data)
    augmented = augment.parse(setting.get("augment", "none"))
    if augmented is not None and data.kind != "image":
        raise FlowbenchError("--augment takes images, and these data are vectors")
    train = dataclasses.replace(data.train, augment=augmented)
    if augmented is not None and augmented.mode == "edm" and not getattr(network, "augment", 0):
        raise FlowbenchError(
            "--augment edm needs a backbone that is told of it: add --network ddpmpp, or take flip"
            " or none"
        )
    classes = 0 if setting.get("unconditional") else data.classes
    if not classes:
        train = dataclasses.replace(train, labels=None)
    if network is None:
        return dataclasses.replace(data, train=train, classes=classes)
    usual = SIGMA_DATA if data.kind == "image" else data.std
    std = usual if std is None else std
    return dataclasses.replace(data, train=train, classes=classes, network=network, std=std)


def _fitting(known: Mapping[str, Any] | None, data: Data) -> Network | None:
    """The settings of the backbone, if there is one; raises FlowbenchError where it fits not."""
    if known is None:
        return None
    network = settings.from_json(known, plugins.networks())
    if data.kind != "image" and not network.vectors:
        raise FlowbenchError(f"--network {settings.word(network)} takes images, not vectors")
    network.check(data.shape)
    return network
