"""What moves the weights in training: optimiser, step sizes over time, clipping, weight average.

A method names the step size (`lr`) and the decay of its average (`ema`); the rest belongs to the
run, so that any method can be trained by any paper's recipe.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from flowbench import options
from flowbench.average import Ramp
from flowbench.records import FlowbenchError


@dataclass(frozen=True)
class Optimizer:
    """What all optimisers share; raises FlowbenchError for values that mean nothing."""

    name: ClassVar[str]
    schedule: Literal["cosine", "constant", "linear"] = "cosine"  # after the warm-up; two fall to 0
    warmup: int = 100  # steps over which the step size rises from 0; at most a tenth of all
    beta1: float = 0.9  # decay of the average of gradients
    beta2: float = 0.999  # decay of the average of their squares
    decay: float = 0.0  # of the weights, adamw's
    clip: float = 1.0  # largest norm of a gradient; 0: not clipped
    ramp: Ramp = "count"  # how the decay of the weight average rises: see `average.decay_at`

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.clip < 0 or self.decay < 0:
            raise FlowbenchError(f"optimizer {self.name}: warmup, clip, decay are not negative")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise FlowbenchError(f"optimizer {self.name}: beta1 and beta2 go from 0 to below 1")
        if self.decay and self.name != "adamw":
            raise FlowbenchError(f"optimizer {self.name} decays no weights: take adamw")

    @property
    def largest(self) -> float:
        """The largest norm of a gradient."""
        return self.clip or math.inf

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """PyTorch's optimiser of these parameters; on a GPU in one kernel, where there is one."""
        moved, betas = list(parameters), (self.beta1, self.beta2)
        if self.name == "radam":
            return torch.optim.RAdam(moved, lr=lr, betas=betas)
        # Elsewhere the default, None, stays: other kernels would give stored results other bits.
        fused = True if on_gpu(moved) else None
        if self.name == "adamw":
            return torch.optim.AdamW(moved, lr, betas, weight_decay=self.decay, fused=fused)
        return torch.optim.Adam(moved, lr, betas, fused=fused)

    def factor(self, step: int, steps: int) -> float:
        """The factor on the step size at `step` of `steps`."""
        warmup = min(self.warmup, steps // 10)
        if step < warmup:
            return (step + 1) / warmup
        share = min(1.0, (step - warmup) / max(1, steps - warmup))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        return 1.0 if self.schedule == "constant" else 1 - share


def on_gpu(parameters: Sequence[Tensor]) -> bool:
    """Whether all of them lie on a GPU, and there are any."""
    return bool(parameters) and all(each.is_cuda for each in parameters)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015); the defaults are flowbench's for small budgets."""

    name: ClassVar[str] = "adam"


@dataclass(frozen=True)
class RAdam(Optimizer):
    """RAdam (Liu et al. 2020), whose first steps need no warm-up; of CM, CTM and LMM."""

    name: ClassVar[str] = "radam"


@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019), which decays the weights by `decay`."""

    name: ClassVar[str] = "adamw"


OPTIMIZERS: dict[str, type[Optimizer]] = {cls.name: cls for cls in (Adam, RAdam, AdamW)}
DEFAULT = Adam()


def parse(word: str) -> Optimizer:
    """An optimiser from a word such as `radam,schedule=constant,warmup=0`.

    Raises FlowbenchError for a name or value that does not exist.
    """
    return options.parse_word("optimizer", word, OPTIMIZERS)
