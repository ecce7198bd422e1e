"""Training against a discriminator: both players' losses, their balance, and taking turns."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.options import choose
from flowbench.step import Step

if TYPE_CHECKING:
    from flowbench.training import Run

Kind = Literal["hinge", "bce"]
SCALE = 2.0**12  # of losses whose gradients are looked at: float16 loses small ones


def discriminator_loss(real: Tensor, fake: Tensor, kind: Kind = "hinge") -> Tensor:
    """What the discriminator minimises, a scalar; logits of any shapes, each with equal weight.

    "hinge": Lim and Ye 2017, eq. 1; "bce": the log loss of Goodfellow et al. 2014. Raises
    FlowbenchError for other words.
    """
    if choose("adversarial loss", kind, get_args(Kind)) == "bce":
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def generator_loss(fake: Tensor, kind: Kind = "hinge") -> Tensor:
    """What the generator minimises, a scalar; logits of any shape.

    "hinge": minus their mean; "bce": the non-saturating loss, -log sigmoid. Raises FlowbenchError
    for other words.
    """
    if choose("adversarial loss", kind, get_args(Kind)) == "bce":
        return functional.softplus(-fake).mean()
    return -fake.mean()


def adaptive_weight(
    first: Tensor,
    second: Tensor,
    weight: Tensor,
    low: float = 0.01,
    high: float = 10.0,
    eps: float = 1e-4,
) -> Tensor:
    """The factor on the loss `second` that makes its gradient as large as that of `first`.

    |d first / d weight| / (|d second / d weight| + eps), within low and high, a constant scalar
    (Esser et al. 2021, eq. 7; the bounds are those of CTM's code). Both graphs are kept.
    """
    norms = []
    for loss in (first, second):
        (gradient,) = torch.autograd.grad(SCALE * loss, weight, retain_graph=True)
        norms.append(_norm(gradient) / SCALE)
    return (norms[0] / (norms[1] + eps)).clamp(low, high).to(first.dtype)


def balanced(
    output: Tensor,
    lines: Tensor,
    adversarial: Tensor,
    weight: Tensor,
    share: float = 0.5,
    low: float = 0.01,
    high: float = 10.0,
    eps: float = 1e-4,
) -> Tensor:
    """share * lines + lam * adversarial, a scalar, with lam the `adaptive_weight` at `weight`.

    Both losses are scalars computed from `output`, any shape, and share nothing else of a graph:
    each is gone through backward once, here, from the loss to `output`, and freed. So the result's
    gradient reaches what `output` was computed from, and no other inputs of the losses.
    lam = |d lines / d weight| / (|d adversarial / d weight| + eps), within low and high, of
    unweighted losses. Source: LMM, eq. 5 and lambda_lines, where bounds and eps are CTM's.
    """
    along, against = (torch.autograd.grad(loss, output)[0] for loss in (lines, adversarial))
    norms = [_pulled_back(output, gradient, weight) for gradient in (along, against)]
    factor = (norms[0] / (norms[1] + eps)).clamp(low, high).to(lines.dtype)
    value = share * lines.detach() + factor * adversarial.detach()
    linear = (output * (share * along + factor * against)).sum()  # its gradient is the right one
    return linear + (value - linear).detach()


def _pulled_back(output: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """The norm of a gradient with respect to `weight`, from that with respect to `output`.

    It passes at unit length, because layers in half precision lose small numbers.
    """
    size = _norm(gradient)
    unit = gradient / size.clamp_min(torch.finfo(torch.float64).tiny)
    (pulled,) = torch.autograd.grad(output, weight, unit, retain_graph=True)
    return size * _norm(pulled)


def _norm(gradient: Tensor) -> Tensor:
    """The Euclidean norm, in float64: squares of small numbers are zero in float32."""
    return torch.linalg.vector_norm(gradient.detach(), dtype=torch.float64)


class Rival:
    """A discriminator that learns in turns with a generator, by RAdam at a constant step size.

    `loss(*batch)` is its loss on a batch, a mean over rows; the method writes it, with fakes made
    under no_grad. The discriminator is moved to `run.device`. Between its turns it is frozen and
    evaluates, so the generator's steps leave no trace in it. `run.micro_batch` rows go through it
    at once, and its batch norms see no more than these.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        loss: Callable[..., Tensor],
        run: "Run",
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.5, 0.9),
    ):
        self.discriminator, self.count = discriminator.to(run.device), 0
        self.learned = [p for p in discriminator.parameters() if p.requires_grad]
        self.optimizer = torch.optim.RAdam(self.learned, lr=lr, betas=betas)
        constant = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)
        self._step = Step(discriminator, loss, self.optimizer, constant, run, clip=math.inf)
        self._learn(False)

    def turn(self) -> bool:
        """Whether this iteration, counted here, is the discriminator's; the generator begins."""
        self.count += 1
        return self.count % 2 == 0

    def step(self, batch: Sequence[Any]) -> Tensor:
        """Move the discriminator once; returns its loss, a scalar on the device.

        Raises RunFailed where not even one row fits in memory.
        """
        self._learn(True)
        value = self._step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        self._learn(False)
        return value

    def state_dict(self) -> dict[str, Any]:
        state = {"discriminator": self.discriminator.state_dict(), "count": self.count}
        return {**state, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.count = state["count"]

    def _learn(self, learns: bool) -> None:
        """Let the discriminator's own weights learn, or freeze them."""
        self.discriminator.train(learns)
        for parameter in self.learned:
            parameter.requires_grad_(learns)
