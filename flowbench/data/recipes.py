"""Which image sets flowbench can prepare: how each is made, how many images it has, its files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowbench.records import FlowbenchError

# What each transform does, as the manifest of a prepared set says it.
FILTERS = {
    "none": "none",
    "resize": "Lanczos",
    "center-crop": "Lanczos",
    "center-crop-dhariwal": "box halving, then bicubic",
}


@dataclass(frozen=True)
class Recipe:
    """How an image set is made from the files that people hold.

    `stem` names its archives; `side` is its height and width in pixels (0: that of the first
    image); `counts` the number of images of each split; `classes` 0 where it has no labels, None
    where the source decides; `reader` the form of its source besides an EDM zip; `get` says where
    the source comes from; `classifier` names shipped weights for `fd-clf` and `is-clf`.
    """

    name: str
    stem: str
    summary: str = ""
    side: int = 0
    transform: str = "none"
    counts: Mapping[str, int] = field(default_factory=dict)
    classes: int | None = None
    reader: str = "folder"
    get: str = ""
    remark: str = ""
    classifier: str | None = None

    def split(self, word: str | None) -> str:
        """The split that `word` means; raises FlowbenchError where it is unknown or open."""
        choices = list(self.counts) or ["all", "train", "test"]
        if word is None and self.counts and "all" in choices[1:]:
            counts = ", ".join(f"--split {name} ({n} images)" for name, n in self.counts.items())
            raise FlowbenchError(f"{self.name} needs the split by name: {counts}")
        if word is not None and word not in choices:
            raise FlowbenchError(f"{self.name} has no split {word!r}: take {', '.join(choices)}")
        return word or choices[0]


def stem(recipe: Recipe, split: str) -> str:
    """The name of a split's archive without its ending: the whole set has no suffix."""
    return recipe.stem if split == "all" else f"{recipe.stem}-{split}"


ILSVRC = {"train": 1_281_167, "test": 50_000}
CIFAR = {"train": 50_000, "test": 10_000}
PHOTOGRAPHS = "classifier_cifar10"
KAGGLE = "ILSVRC2012 (register at image-net.org or Kaggle): the folder that holds train/nXXXXXXXX/"
SMALL = "Imagenet{0}_train_npz and Imagenet{0}_val_npz (register at image-net.org), unzipped"

RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe(
            "cifar10",
            "cifar10-32x32",
            "CIFAR-10, 32x32, 10 classes",
            side=32,
            counts=CIFAR,
            classes=10,
            reader="cifar",
            get="cifar-10-python.tar.gz, by `flowbench data download cifar10`",
            classifier=PHOTOGRAPHS,
        ),
        Recipe(
            "cifar10-jpeg",
            "cifar10-jpeg-32x32",
            "CIFAR-10 re-encoded as JPEG, 32x32",
            side=32,
            counts=CIFAR,
            classes=10,
            get="a folder of JPEG images by class",
            remark="re-encoded as JPEG: not comparable with published CIFAR-10 numbers",
            classifier=PHOTOGRAPHS,
        ),
        Recipe(
            "imagenet64",
            "imagenet-64x64",
            "ImageNet, EDM's 64x64, 1000 classes",
            side=64,
            transform="center-crop",
            counts=ILSVRC,
            classes=1000,
            get=KAGGLE,
        ),
        Recipe(
            "imagenet64-adm",
            "imagenet-64x64-adm",
            "ImageNet, 64x64 of ADM, consistency models and EDM2, 1000 classes",
            side=64,
            transform="center-crop-dhariwal",
            counts=ILSVRC,
            classes=1000,
            get=KAGGLE,
            remark="not the pixels of EDM's ImageNet-64: compare with ADM's reference only",
        ),
        Recipe(
            "imagenet64-box",
            "imagenet-64x64-box",
            "ImageNet, the official downsampled 64x64, 1000 classes",
            side=64,
            counts=ILSVRC,
            classes=1000,
            reader="downsampled",
            get=SMALL.format(64),
            remark="squeezed by a box filter, classes in the order of its publishers",
        ),
        Recipe(
            "imagenet32",
            "imagenet-32x32",
            "ImageNet, the official downsampled 32x32, 1000 classes",
            side=32,
            counts=ILSVRC,
            classes=1000,
            reader="downsampled",
            get=SMALL.format(32),
            remark="squeezed by a box filter, classes in the order of its publishers",
        ),
        Recipe(
            "afhq64",
            "afhqv2-64x64",
            "AFHQv2, 64x64, no labels",
            side=64,
            transform="resize",
            # EDM's set and its FID reference are the whole of AFHQv2, train/ and test/ together.
            counts={"train": 14_336, "test": 1_467, "all": 15_803},
            classes=0,
            get="afhq-v2-dataset (StarGAN v2): the folder that holds train/ and test/",
        ),
        Recipe(
            "ffhq64",
            "ffhq-64x64",
            "FFHQ, 64x64, no labels",
            side=64,
            transform="resize",
            counts={"all": 70_000},
            classes=0,
            get="images1024x1024 (ffhq-dataset)",
        ),
        Recipe(
            "flowers128",
            "flowers-128x128",
            "Oxford Flowers, 128x128, 102 classes",
            side=128,
            transform="center-crop",
            counts={"train": 1_020, "val": 1_020, "test": 6_149, "all": 8_189},
            classes=102,
            reader="flowers",
            get="the folder flowers-102, by `flowbench data download flowers128`",
        ),
    ]
}


def find(name: str, side: int | None = None, transform: str | None = None) -> Recipe:
    """The recipe of a known set, or one for a set of the user's own.

    Raises FlowbenchError where a known set is asked for in another size or transform.
    """
    known = RECIPES.get(name)
    if known is None:
        if transform not in (None, "none") and not side:
            raise FlowbenchError(f"--transform {transform} needs --resolution")
        if side and transform in (None, "none"):
            raise FlowbenchError("--resolution needs --transform resize or center-crop")
        return Recipe(name, name, "your own images", side or 0, transform or "none")
    if side not in (None, known.side) or transform not in (None, known.transform):
        raise FlowbenchError(
            f"{name} is {known.side}x{known.side} by {known.transform}: another size or transform"
            " is another data set, so give it another name"
        )
    return known


def places(root: Path, stem: str) -> list[Path]:
    """Where the training split may lie in `root`, the first choice first."""
    return [root / name for name in (f"{stem}.zip", f"{stem}-train.zip", stem, f"{stem}-train")]


def present(path: Path) -> bool:
    """Whether a prepared split lies at `path`: an archive, or a folder with `images.npy`."""
    return path.is_file() or (path / "images.npy").is_file()


def found(root: Path, stem: str) -> list[Path]:
    """All prepared splits of a set in `root`."""
    held_out = [root / f"{stem}-test.zip", root / f"{stem}-test"]
    return [path for path in [*places(root, stem), *held_out] if present(path)]
