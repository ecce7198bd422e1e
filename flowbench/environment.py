"""Where a run took place: packages, Python, torch, processor or GPU, and the state of the code."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from flowbench import git, ranks, torchrun
from flowbench.records import FlowbenchError


def device(word: str) -> str:
    """The device that `word` means: "auto" takes a GPU where there is one.

    Of several processes of a run each has a GPU of its own. Raises FlowbenchError for a device that
    torch does not know or that is not here.
    """
    if word == "auto":
        word = "cuda" if torch.cuda.is_available() else "cpu"
    if word.startswith("cuda:") and torchrun.launched() > 1:
        raise FlowbenchError(f"every process has a GPU of its own: give --device cuda, not {word}")
    word = f"cuda:{torchrun.place()}" if word == "cuda" else word
    try:
        chosen = torch.device(word)
        if chosen.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise FlowbenchError(f"device {word!r} cannot be used: {reason}") from error
    return word


def capture(device: str, deterministic: bool = False) -> dict[str, Any]:
    """All that may move a number without being part of the run's own description."""
    mode = {"deterministic": True} if deterministic else {}
    return mode | {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "torch": torch.__version__,
        "device": device_name(device) if ranks.count() == 1 else _devices(device),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "git": git_state(),
        "packages": packages(),
    }


def _devices(device: str) -> str:
    """The devices of all ranks, such as "4 x NVIDIA H200"."""
    return f"{ranks.count()} x {device_name(device)}"


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads on the processor inside; None: as many as before."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_name(device: str) -> str:
    """The model of the GPU, or of the processor with the number of its cores."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


@cache
def packages() -> dict[str, str]:
    """Every installed distribution and its version."""
    found = {dist.metadata["Name"]: dist.version for dist in distributions()}
    return dict(sorted((name, version) for name, version in found.items() if name))


def git_state() -> str | None:
    """Commit of the checkout that flowbench runs from, with `-dirty` if it was changed."""
    return git.state(Path(__file__))
