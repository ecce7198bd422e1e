"""The state of torch's random numbers, on the host and on the device of a run."""

import torch
from torch import Tensor


def random_state(device: str) -> dict[str, Tensor]:
    """The state of the global random generators of the host and of `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: str) -> None:
    """Go back to a `random_state`; one without a GPU leaves the GPU alone."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.startswith("cuda"):
        torch.cuda.set_rng_state(state["cuda"], device)
