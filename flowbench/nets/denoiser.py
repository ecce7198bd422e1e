"""Networks that predict clean data from a noisy state: preconditionings around a backbone."""

from typing import Literal

import torch
from torch import Tensor, nn

from flowbench.coordinates import like, time

Form = Literal["edm", "line", "cm"]


class Denoiser(nn.Module):
    """D(x, sigma, y): clean data from x = data + sigma noise, sigma (B,) > 0.

    `form` "edm": c_skip x + c_out F(c_in x, ln(sigma)/4) with `std` the data's standard deviation
    (EDM, Table 1). `form` "line": z + (1-t) F(z, t) in canonical coordinates, so F is a velocity.
    `form` "cm": as "edm", with c_skip and c_out shifted so that D(x, sigma_min) = x (Song et al.
    2023, consistency models, appendix C).
    """

    def __init__(self, net: nn.Module, std: float, form: Form = "edm", sigma_min: float = 0.002):
        super().__init__()
        self.net, self.std, self.form = net, std, form
        self.shift = sigma_min if form == "cm" else 0.0

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        if self.form == "line":
            t = time(sigma)
            z = x * like(t, x)
            return z + like(1 - t, x) * self.net(z, t, y)
        total = (sigma.square() + self.std**2).sqrt()
        output = self.net(x / like(total, x), sigma.log() / 4, y)
        above = sigma - self.shift
        skip, out = self.std**2 / (above.square() + self.std**2), above * self.std / total
        return like(skip, x) * x + like(out, x) * output

    def weight(self, sigma: Tensor) -> Tensor:
        """EDM's loss weight 1 / c_out^2, (B,)."""
        return (sigma.square() + self.std**2) / (sigma * self.std).square()

    def extra_repr(self) -> str:
        return f"std={self.std:.4g}, form={self.form}"


class Jumps(Denoiser):
    """g(x, t, y, s): EDM's denoiser of x = data + t noise, told the level s (B,) to jump to.

    EDM's preconditioning at t of a network with the times ln(t)/4 and ln(s)/4; without s it is
    g(x, t, t), which is trained to be EDM's denoiser (Kim et al. 2024, consistency trajectories).
    """

    def forward(
        self, x: Tensor, sigma: Tensor, y: Tensor | None = None, s: Tensor | None = None
    ) -> Tensor:
        times = torch.stack([sigma, sigma if s is None else s], 1)
        total = (sigma.square() + self.std**2).sqrt()
        output = self.net(x / like(total, x), times.log() / 4, y)
        skip, out = (self.std / total).square(), sigma * self.std / total
        return like(skip, x) * x + like(out, x) * output


def last_weight(net: nn.Module) -> nn.Parameter:
    """The weight of the last layer of a preconditioned network, which balances losses."""
    return net.get_parameter("net.output.weight")
