"""From the words of `flowbench run` to requests, and to the machine's side of them."""

from pathlib import Path
from typing import Any

from flowbench.cli import streams, words
from flowbench.records import FlowbenchError

WEIGHTS = ("inception", "dinov2", "clean", "feature_weights")


def setup(folder: Path, asked: dict[str, Any]) -> Any:
    """The machine's side; takes its words out of `asked`."""
    from flowbench import environment
    from flowbench.planning import Setup

    machine = {name: asked.pop(name) for name in ("data_root", "every", "reference")}
    machine |= {name: asked.pop(name) for name in ("micro_batch", "compile", "deterministic")}
    return Setup(
        device=environment.device(asked.pop("device")),
        folder=folder,
        note=streams.tell,
        weights=words.pretrained(*(asked.pop(name) for name in WEIGHTS)),
        **machine,
    )


def made_folder(folder: Path, named: bool) -> Path:
    """The folder of runs; the place of a database that does not exist is not made up."""
    try:
        folder.mkdir(parents=named, exist_ok=True)
    except OSError as error:
        raise FlowbenchError(f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder


def requests(db: str, method, dataset, seeds, sample_seeds, options, teacher, **asked: Any):
    """A request for each training seed and each stream of noise; streams share a network."""
    from flowbench.planning import Request

    settings = words.assignments(options)
    chosen = None if teacher is None else _teacher(db, teacher)
    asked["preset"] = preset(method, dataset, asked["preset"], asked["weights"])
    return [
        Request(
            method, dataset, seed, options=settings, teacher=chosen, sample_seed=stream, **asked
        )
        for seed in dict.fromkeys(seeds)
        for stream in dict.fromkeys(sample_seeds)
    ]


def preset(method: str, dataset: str, word: str | None, weights: Path | None) -> str | None:
    """What was asked for, else the paper's settings for this very data set, if there are any."""
    from flowbench import presets

    if word is None and weights is None and dataset in presets.of(method):
        return dataset
    return None if word == "none" else word


def _teacher(db: str, word: str):
    """What `--teacher` names: a method, a file, or an earlier run."""
    from flowbench import plugins
    from flowbench.store import Store

    if word in plugins.methods():
        return word
    if Path(word).is_file():
        return Path(word)
    try:
        return Store.open_existing(words.url(db)).find(word)
    except FlowbenchError as error:
        raise FlowbenchError(
            f"--teacher {word} is no method, no file and no run: {error}"
        ) from error
