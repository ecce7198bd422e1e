"""The state that a whole process shares, which no method may leave changed."""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

ENVIRONMENT = "environment"
LIBRARIES = ("TORCH", "TRITON", "KINETO", "KMP")  # of variables that these set on first use


def state() -> dict[str, Any]:
    """What is global beside the random generators, by name."""
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "number of threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "working directory": Path.cwd(),
        ENVIRONMENT: {k: v for k, v in os.environ.items() if not k.startswith(LIBRARIES)},
    }


def changed(before: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what is not as it was."""
    after = state()
    now, then = after.pop(ENVIRONMENT), before[ENVIRONMENT]
    variables = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    names = [name for name, value in after.items() if value != before[name]]
    return (*names, *(f"environment variable {key}" for key in variables))


def restore(before: Mapping[str, Any]) -> None:
    """Put everything back, so that one check says nothing about the next."""
    torch.set_default_dtype(before["default dtype"])
    if torch.get_default_device() != before["default device"]:
        torch.set_default_device(before["default device"])
    torch.set_num_threads(before["number of threads"])
    torch.set_grad_enabled(before["gradient mode"])
    torch.use_deterministic_algorithms(before["deterministic mode"])
    os.chdir(before["working directory"])
    for name in state()[ENVIRONMENT].keys() - before[ENVIRONMENT].keys():
        del os.environ[name]
    os.environ.update(before[ENVIRONMENT])


def random_states() -> dict[str, Any]:
    """The states of the global random generators."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state(legacy=False)),
        "random": random.getstate(),
    }
