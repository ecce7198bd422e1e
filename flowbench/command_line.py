"""The words that make a stored run again."""

import shlex
from collections.abc import Sequence

from flowbench.entries import Dataset
from flowbench.records import Spec

OF_THE_RUN = (  # written with dashes
    *("teacher", "weights", "network", "precision", "augment", "unconditional"),
    *("optimizer", "preset", "steps", "images", "batch"),
)


def command(
    spec: Spec,
    nfes: Sequence[int],
    seeds: Sequence[int],
    n: int,
    stream: int = 0,
    default: Dataset | None = None,
) -> str:
    """The command that would measure `spec` at `nfes`, with `n` samples of a noise stream."""
    words = ["flowbench", "run", spec.method, "--dataset", spec.dataset]
    words += ["--nfe", ",".join(str(nfe or "auto") for nfe in nfes)]
    words += ["--seed", ",".join(map(str, seeds))]
    if "preset" not in spec.changed and (default is None or spec.budget != default.budget):
        words += ["--steps", str(spec.budget.steps), "--batch", str(spec.budget.batch)]
    if default is None or n != default.samples:
        words += ["--samples", str(n)]
    if stream:
        words += ["--sample-seed", str(stream)]
    if spec.setting and "preset" not in spec.changed:  # some sets have one of their name
        words += ["--preset", "none"]
    place = spec.version.partition(", git ")[0]
    if place.endswith(".py"):  # a loose file, as the user named it
        words += ["--plugin", place]
    for name, value in sorted(spec.changed.items()):
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if name in OF_THE_RUN:
            words += [f"--{name}"] + [text] * (name != "unconditional")
        else:
            words += ["-o", f"{name}={text}"]
    return shlex.join(words)
