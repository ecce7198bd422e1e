"""The small classifiers whose features `fd-clf` and `is-clf` use, with their shipped weights.

`python -m flowbench.metrics.classifier digits OUT.safetensors` trains one anew. The weights ship
with the package because the same seed gives other weights with another number of threads.
"""

import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.checkpoints import file_hash, read_tensors, save_tensors
from flowbench.data.base import Data
from flowbench.metrics.scores import inception_score as inception_score
from flowbench.records import FlowbenchError

FOLDER = Path(__file__).parent
SHIPPED = {
    "digits": "3e13c1b3b4a1453c5ff4d5290b7677c12fa22bc0dcf1a0d8786cad15da0e2802"
}  # SHA-256 of <name>.safetensors


class Classifier(nn.Module):
    """Logits (B, classes) of images (B, C, H, W) in [-1, 1]; `features` gives (B, 64)."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 4, 64)
        self.output = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        """The 64 features before the last layer, after their ReLU."""
        h = functional.max_pool2d(self.conv1(x).relu(), 2)
        h = functional.adaptive_max_pool2d(self.conv2(h).relu(), 2)
        return self.hidden(h.flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.features(x))


@cache
def load(name: str, device: str) -> Classifier:
    """The shipped classifier `name`; raises FlowbenchError where its file was changed."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists() or file_hash(path) != SHIPPED[name]:
        raise FlowbenchError(f"{path} is not the file that flowbench ships; install it again")
    weights, facts = read_tensors(path)
    network = Classifier(facts["channels"], facts["classes"])
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)


def accuracy(network: Classifier, x: Tensor, y: Tensor) -> float:
    """Share of rows that are classified right."""
    return (network(x).argmax(1) == y).double().mean().item()


def train(data: Data, steps: int = 1500, batch: int = 128) -> Classifier:
    """A classifier of the training split, from seed 0, augmented by shifts of one pixel."""
    torch.manual_seed(0)
    network = Classifier(data.shape[0], data.classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x, y = data.train.draw(torch.randint(len(data.train), (batch,)))
        shift = tuple(torch.randint(-1, 2, (2,)).tolist())
        assert y is not None
        loss = functional.cross_entropy(network(torch.roll(x, shift, (2, 3))), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def main(name: str, out: str) -> None:
    """Train the classifier of the data set `name` and write it to `out`."""
    from flowbench.data import base, digits

    data = base.load(name, {"digits": digits.digits}[name](), "cpu")
    network = train(data)
    assert data.test is not None
    x, y = data.test.spread(len(data.test))
    assert y is not None
    facts = {
        "channels": data.shape[0],
        "classes": data.classes,
        "data": data.sha256,
        "test_accuracy": accuracy(network, x, y),
        "made_by": "python -m flowbench.metrics.classifier",
    }
    save_tensors(Path(out), network.state_dict(), facts)
    print(f"{out}: sha256 {file_hash(Path(out))}, test accuracy {facts['test_accuracy']:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
