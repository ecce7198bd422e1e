"""Flow matching (Lipman et al. 2023, arXiv:2210.02747) in a few lines that keep every promise, and
for each promise a method that breaks it: what `test_check.py` examines."""

import dataclasses
import itertools
import os
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from flowbench import hookimpl, training
from flowbench.coordinates import like
from flowbench.records import Budget


class Net(nn.Module):
    """A velocity v(z, t, y) of one hidden layer."""

    def __init__(self, data):
        super().__init__()
        size = torch.Size(data.shape).numel()
        self.classes = max(1, data.classes)
        self.layers = nn.Sequential(
            nn.Linear(size + 1 + self.classes, 64), nn.SiLU(), nn.Linear(64, size)
        )

    def forward(self, z, t, y=None):
        y = torch.zeros(len(z), dtype=torch.int64) if y is None else y
        told = nn.functional.one_hot(y, self.classes)
        return self.layers(torch.cat([z.flatten(1), t[:, None], told], 1)).view_as(z)


@dataclasses.dataclass(frozen=True)
class Good:
    """Learn the velocity of straight lines, and follow it by Euler's rule."""

    lr: float = 1e-2  # Adam's step size
    times: tuple[float, ...] = (0.0, 1.0)  # between which lines are drawn
    note: str | None = None  # of no use

    def network(self, data):
        return Net(data)

    def loss(self, net, x, y):
        noise, t = torch.randn_like(x), torch.rand(len(x))
        z = torch.lerp(noise, x, like(t, x))
        return (net(z, t, y) - (x - noise)).square().mean()

    @hookimpl
    def train(self, data, run):
        net = self.network(data)
        return training.fit(net, lambda x, y: self.loss(net, x, y), data.train, run, lr=self.lr)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        return self.walk(network, noise, labels, nfe)

    def walk(self, network, z, labels, nfe):
        for step in range(nfe):
            z = z + network(z, z.new_full((len(z),), step / nfe), labels) / nfe
        return z

    @hookimpl
    def velocity(self, network, z, t, labels):
        return network(z, t, labels)

    @hookimpl
    def measure(self, network):
        return {"size": float(sum(p.numel() for p in network.parameters()))}


@dataclasses.dataclass(frozen=True)
class Bad(Good):
    """One that breaks a promise."""


def bad(**body: Any) -> Any:
    """A method like `Bad` but for what is in `body`; hooks are marked as such."""
    hooks = {"train", "sample", "velocity", "measure"}
    marked = {name: hookimpl(f) if name in hooks else f for name, f in body.items()}
    own = {"__doc__": Bad.__doc__, "__module__": __name__, **marked}
    return dataclasses.dataclass(frozen=True)(type("Bad", (Bad,), own))()


# What is wrong with the class itself.


@dataclasses.dataclass
class Changeable:
    """Its options can be changed."""

    lr: float = 1e-2  # Adam's step size
    network, loss, walk = Good.network, Good.loss, Good.walk
    train, sample, velocity = Good.train, Good.sample, Good.velocity


@dataclasses.dataclass(frozen=True)
class Misheard(Good):
    """It names an argument that no hook has."""

    @hookimpl
    def measure(self, netwrok):
        return {}


@dataclasses.dataclass(frozen=True)
class Loose(Good):
    """An option that words cannot say."""

    rates: dict[str, float] = dataclasses.field(default_factory=lambda: {"a": 1.0})  # of nothing


@dataclasses.dataclass(frozen=True)
class Silent(Good):
    lr: float = 1e-2  # Adam's step size


@dataclasses.dataclass(frozen=True)
class Uncommented(Good):
    """One of its options says nothing."""

    speed: float = 1.0


@dataclasses.dataclass(frozen=True)
class Needy(Good):
    """What it needs is not there."""

    needs: ClassVar[tuple[str, ...]] = ("flowbench-absent-package>=1.0",)


@dataclasses.dataclass(frozen=True)
class CFM(Good):
    """It takes a name that another method has."""

    name: ClassVar[str] = "cfm"


# What is wrong with sampling.


def double(self, network, noise, labels, nfe):
    return self.walk(network, noise, labels, nfe).double()


def infinite(self, network, noise, labels, nfe):
    return self.walk(network, noise, labels, nfe).masked_fill(noise > 1.5, torch.inf)


def padded(self, network, noise, labels, nfe):
    samples = self.walk(network, noise, labels, nfe)
    return torch.cat([samples, samples[:1]]) if len(samples) == 7 else samples


def greedy(self, network, noise, labels, nfe):
    return self.walk(network, noise, labels, nfe + 1)


CALLS = itertools.count()


def seedless(self, network, noise, labels, nfe):
    generator = torch.Generator().manual_seed(next(CALLS))
    return self.walk(network, noise, labels, nfe) + 1e-6 * torch.randn(
        noise.shape, generator=generator
    )


def deaf(self, network, noise, labels, nfe):
    return self.walk(network, torch.ones_like(noise), labels, nfe)


def batchwise(self, network, noise, labels, nfe):
    return self.walk(network, noise, labels, nfe) - 1e-3 * noise.mean(0)


def careless(self, network, noise, labels, nfe):
    samples = self.walk(network, noise, labels, nfe)
    noise.zero_()
    return samples


def meddling(self, network, noise, labels, nfe):
    samples = self.walk(network, noise, labels, nfe)
    network.train()
    return samples


def hoarding(self, network, noise, labels, nfe):
    with torch.enable_grad():
        return self.walk(network, noise, labels, nfe)


KEPT: list[torch.Tensor] = []


def collecting(self, network, noise, labels, nfe):
    samples = self.walk(network, noise, labels, nfe)
    KEPT.append(samples.clone())
    return samples


def blind(self, network, noise, labels, nfe):
    return self.walk(network, noise, None, nfe)


def gambling(self, network, noise, labels, nfe):
    torch.rand(())
    return self.walk(network, noise, labels, nfe)


def endless(self, network, z, t, labels):
    return network(z, t, labels) / like((1 - t).sign(), z)


def shifted(self, network, noise, labels, nfe):
    """Euler's rule at the wrong times: it does not converge to the field's ends."""
    z = noise
    for step in range(nfe):
        z = z + network(z, z.new_full((len(z),), (step / nfe) ** 2), labels) / nfe
    return z


def short(self, network, noise, labels, nfe):
    """It leaves the last half of the last step out."""
    z = noise
    for step in range(nfe):
        size = (0.5 if step == nfe - 1 else 1.0) / nfe
        z = z + size * network(z, z.new_full((len(z),), step / nfe), labels)
    return z


# What is wrong with training.


def own_loop(
    self,
    data,
    run,
    net: nn.Module,
    parts: Callable[..., dict] = lambda **parts: parts,
    swallowed: tuple[type[BaseException], ...] = (),
    finite: bool = False,
    maximize: bool = False,
):
    """Train as `fit` does, with what is bad about it as an argument."""
    optimizer = torch.optim.Adam(net.parameters(), lr=self.lr, maximize=maximize)
    try:
        for x, y in run.batches(data.train, **parts(net=net, optimizer=optimizer)):
            loss = self.loss(net, x, y)
            if finite and not loss.isfinite():
                continue
            run.log(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    except swallowed:
        pass
    return net.eval()


def nothing(self, data, run):
    own_loop(self, data, run, self.network(data))


def climbing(self, data, run):
    return own_loop(self, data, run, self.network(data), maximize=True)


def spare(self, data):
    net = Net(data)
    net.unused = nn.Linear(2, 2)
    return net


class Scaled(Net):
    """A network with a number that its weights do not tell."""

    scale = 1.0

    def forward(self, z, t, y=None):
        return self.scale * super().forward(z, t, y)


def hiding(self, data, run):
    net = Scaled(data)
    own_loop(self, data, run, net)
    net.scale = 2.0
    return net


def forgetful(self, data, run):
    return own_loop(self, data, run, self.network(data), lambda net, optimizer: {"net": net})


def late(self, data, run):
    """It changes the network after the last checkpoint, if there was anything to train."""
    before = run.bill.copy()
    net = own_loop(self, data, run, self.network(data))
    if run.bill != before and run.loss is not None:
        with torch.no_grad():
            net.layers[0].bias.add_(1e-3)
    return net


def lavish(self, data, run):
    more = dataclasses.replace(run, budget=Budget(2 * run.budget.steps, run.budget.batch))
    return own_loop(self, data, more, self.network(data))


def early(self, data, run):
    net = self.network(data)
    optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
    if not run.started:
        torch.manual_seed(0)
        for _ in range(3):
            x, y = data.train.draw(torch.randint(len(data.train), (8,)))
            optimizer.zero_grad()
            self.loss(net, x, y).backward()
            optimizer.step()
    optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
    for x, y in run.batches(data.train, net=net, optimizer=optimizer):
        loss = self.loss(net, x, y)
        run.log(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def littering(self, data, run):
    os.environ["BAD_METHOD"] = "was here"
    return own_loop(self, data, run, self.network(data))


def wordy(self, network):
    return {"size": "large"}


def collapsed(self, data, run):
    """It learns the mean of the lines only."""
    net = self.network(data)

    def loss(x, y):
        return self.loss(net, x.mean(0).expand_as(x), y)

    return training.fit(net, loss, data.train, run, lr=self.lr)


def swallowing(*errors: type[BaseException]) -> Any:
    """A `train` that lets these errors end it as if nothing had happened."""

    def train(self, data, run):
        return own_loop(self, data, run, self.network(data), swallowed=errors)

    return train


def choosy(self, data, run):
    return own_loop(self, data, run, self.network(data), finite=True)
