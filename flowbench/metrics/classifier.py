"""The small classifiers whose features `fd-clf` and `is-clf` use, with their shipped weights.

`python -m flowbench.metrics.classifier digits OUT.safetensors` trains one anew; photographs also
take the folder of their archives: `... classifier cifar10-jpeg OUT.safetensors DIR`. The weights
ship with the package because the same seed gives other weights with another number of threads.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.checkpoints import file_hash, read_tensors, save_tensors
from flowbench.data.base import Data
from flowbench.data.placement import scale
from flowbench.metrics.extractors import Extractor
from flowbench.metrics.scores import inception_score as inception_score
from flowbench.records import FlowbenchError

FOLDER = Path(__file__).parent
SHIPPED = {
    "digits": "3e13c1b3b4a1453c5ff4d5290b7677c12fa22bc0dcf1a0d8786cad15da0e2802",
    "classifier_cifar10": "7f44bc2a14a27fe7c31cc12c409ae27e789f2a9a80bea7a46486f52d1fc9576a",
}  # SHA-256 of <name>.safetensors


class Classifier(nn.Module):
    """Logits (B, classes) of images (B, C, H, W) in [-1, 1]: `output` of `features` (B, d)."""

    output: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """The features (B, d) before the last layer, after their ReLU."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.features(x))


class Plain(Classifier):
    """Two convolutions for images of a few pixels, from 4x4 on; 64 features."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 4, 64)
        self.output = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        h = functional.max_pool2d(self.conv1(x).relu(), 2)
        h = functional.adaptive_max_pool2d(self.conv2(h).relu(), 2)
        return self.hidden(h.flatten(1)).relu()


class Residual(Classifier):
    """Three stages, each of half the side and one residual block; 128 features, their mean."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        widths = (32, 64, 128)
        befores = (channels, *widths)
        self.downs = nn.ModuleList(_conv(a, b, 4, 2) for a, b in zip(befores, widths, strict=False))
        self.blocks = nn.ModuleList(
            nn.Sequential(_conv(w, w, 3, 1), nn.ReLU(), _conv(w, w, 3, 1)) for w in widths
        )
        self.output = nn.Linear(widths[-1], classes)
        self.to(memory_format=torch.channels_last)  # faster on a CPU

    def features(self, x: Tensor) -> Tensor:
        for down, block in zip(self.downs, self.blocks, strict=True):
            h = down(x).relu()
            x = h + block(h).relu()
        return x.mean((2, 3))


def _conv(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: by AdamW, on images that `vary` changes.

    The step size is a cosine from `lr` to 0 over `period` steps (0: all), cut short at the end by a
    line to 0 of the slope `lr / fall`; `smoothing` is that of the labels.
    """

    network: str
    vary: Callable[[Tensor], Tensor]
    steps: int
    batch: int
    lr: float
    decay: float
    smoothing: float = 0.0
    period: int = 0
    fall: int = 1

    def size(self, step: int) -> float:
        """The step size as a share of `lr`."""
        cosine = (1 + math.cos(math.pi * step / (self.period or self.steps))) / 2
        return min(cosine, (self.steps - step) / self.fall)


def rolled(x: Tensor) -> Tensor:
    """Images shifted by at most one pixel, all alike; what leaves on one side enters opposite."""
    return torch.roll(x, tuple(torch.randint(-1, 2, (2,)).tolist()), (2, 3))


def cropped(x: Tensor, shift: int = 3, hole: int = 8) -> Tensor:
    """Images each flipped or not, shifted by at most `shift` pixels, and with a grey square."""
    n, _, height, width = x.shape
    across = torch.arange(width).expand(n, -1)
    across = torch.where(torch.rand(n, 1) < 0.5, across, across.flip(1))
    down = torch.arange(height) + torch.randint(2 * shift + 1, (n, 1))
    across = across + torch.randint(2 * shift + 1, (n, 1))
    padded = functional.pad(x, (shift,) * 4, mode="reflect").permute(0, 2, 3, 1)
    moved = padded[torch.arange(n)[:, None, None], down[:, :, None], across[:, None, :]]
    rows, columns = (
        (torch.arange(side) - torch.randint(side, (n, 1))).abs() < hole // 2
        for side in (height, width)
    )
    inside = rows[:, :, None] & columns[:, None, :]
    return moved.masked_fill(inside[..., None], 0).permute(0, 3, 1, 2)


NETWORKS: dict[str, type[Plain] | type[Residual]] = {"plain": Plain, "residual": Residual}
RECIPES = {
    "digits": Recipe("plain", rolled, 1500, 128, lr=2e-3, decay=1e-2),
    # What ships was planned for 5000 steps and ended after 2400; 83.0 % right on the test split.
    "cifar10-jpeg": Recipe(
        "residual", cropped, 2400, 256, lr=3e-3, decay=5e-2, smoothing=0.1, period=5000, fall=245
    ),
}


@cache
def load(name: str, device: str) -> Classifier:
    """The shipped classifier `name`; raises FlowbenchError where its file was changed."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists() or file_hash(path) != SHIPPED[name]:
        raise FlowbenchError(f"{path} is not the file that flowbench ships; install it again")
    weights, facts = read_tensors(path)
    network = NETWORKS[facts.get("network", "plain")](facts["channels"], facts["classes"])
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)


class _Both(nn.Module):
    """Features and logits in one pass, as an `Extractor` takes them."""

    def __init__(self, network: Classifier):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(x)
        return features, self.network.output(features)


@cache
def extractor(name: str, device: str) -> Extractor:
    """The shipped classifier `name` as an extractor of uint8 images (B, C, H, W).

    Its features go into the cache of references as those of large networks do.
    """
    network = load(name, device)
    channels = next(network.parameters()).shape[1]
    protocol = {"name": name, "weights": SHIPPED[name], "dtype": "float32", "tf32": False}
    return Extractor(
        name=name,
        sha256=SHIPPED[name],
        protocol=protocol,
        device=device,
        prepare=lambda images: scale(images[:, :channels]),  # an Extractor repeats one channel
        network=_Both(network),
        batch=250,
    )


@torch.no_grad()
def accuracy(network: Classifier, x: Tensor, y: Tensor) -> float:
    """Share of rows that are classified right."""
    found = torch.cat([network(part).argmax(1) for part in x.split(500)])
    return (found == y).double().mean().item()


def train(data: Data, recipe: Recipe) -> Classifier:
    """A classifier of the training split, from seed 0."""
    torch.manual_seed(0)
    network = NETWORKS[recipe.network](data.shape[0], data.classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.size)
    for _ in range(recipe.steps):
        x, y = data.train.draw(torch.randint(len(data.train), (recipe.batch,)))
        assert y is not None
        logits = network(recipe.vary(x))
        loss = functional.cross_entropy(logits, y, label_smoothing=recipe.smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def main(name: str, out: str, root: str | None = None) -> None:
    """Train the classifier of the data set `name`, found in `root`, and write it to `out`."""
    from flowbench.data import base, catalogue

    if name not in RECIPES:
        raise FlowbenchError(f"no classifier is made of {name}: take {', '.join(RECIPES)}")
    entry = next(entry for entry in catalogue.datasets() if entry.name == name)
    data, recipe = base.load(name, entry.load(root and Path(root)), "cpu"), RECIPES[name]
    network = train(data, recipe)
    weights = {key: _short(tensor) for key, tensor in network.state_dict().items()}
    network.load_state_dict(weights)  # what is measured is what ships
    assert data.test is not None
    x, y = data.test.spread(len(data.test))
    assert y is not None
    facts = {
        **{name: value for name, value in vars(recipe).items() if name != "vary"},
        "channels": data.shape[0],
        "classes": data.classes,
        "data": data.sha256,
        "test_accuracy": accuracy(network, x, y),
        "made_by": "python -m flowbench.metrics.classifier",
    }
    save_tensors(Path(out), weights, facts)
    print(f"{out}: sha256 {file_hash(Path(out))}, test accuracy {facts['test_accuracy']:.4f}")


def _short(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    main(*sys.argv[1:])
