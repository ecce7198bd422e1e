"""A loose file with a method that fails where it is asked to."""

SOURCE = '''
"""A method with mistakes."""

from dataclasses import dataclass

import torch

from flowbench import coordinates, hookimpl, nets, solvers, training


@dataclass(frozen=True)
class Mine:
    """Straight lines, with a mistake in them."""

    wrong: str = "nothing"  # where it fails
    lr: float = 1e-3  # Adam's step size

    @hookimpl
    def train(self, data, run):
        net = nets.default(data).to(data.device)
        if self.wrong == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

        def loss(x, y):
            if self.wrong == "train":
                x = x / self.zero()
            if self.wrong == "library":
                torch.linalg.inv(torch.zeros(2, 2))
            t, noise = torch.rand(len(x), device=x.device), torch.randn_like(x)
            z = torch.lerp(noise, x, coordinates.like(t, x))
            return (net(z, t, y) - (x - noise)).square().mean()

        return training.fit(net, loss, data.train, run, lr=self.lr)

    def zero(self):
        return 1 / 0

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        if self.wrong == "sample":
            raise ValueError("bad\\x1b[31m news\\nin two lines")
        return solvers.euler(network, noise, labels, nfe)
'''.lstrip()


def write(folder, monkeypatch):
    """Write the file `my_method.py`, whose method is called `mine`, and let flowbench find it."""
    path = folder / "my_method.py"
    path.write_text(SOURCE)
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(path))
    return path


def line_of(words):
    """The number of the first line of the file in which these words stand."""
    return next(n for n, line in enumerate(SOURCE.splitlines(), 1) if words in line)
