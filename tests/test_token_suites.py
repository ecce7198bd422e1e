"""The small twins of the papers' suites, every stage of every row, at token size on tiny data."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from loss_weights import deit, efficientnet, vgg16
from picture_files import images, write_zip

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
# One to seven minutes each; the one that is left goes through every stage.
LONG = ("cifar10-small", "imagenet64-small", "lfm-images-small", "lmm-ablation-small")
TWINS = [
    pytest.param(stem, marks=[pytest.mark.long] if stem in LONG else [])
    for stem in sorted(path.stem for path in BENCHMARKS.glob("*-small.toml"))
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The environment of a user with a tiny CIFAR-10 and the networks of the losses."""
    folder = tmp_path_factory.mktemp("token")
    for split, n in (("train", 96), ("test", 32)):
        labels = [i % 10 for i in range(n)]
        write_zip(folder / f"cifar10-jpeg-32x32-{split}.zip", images(n, 32), labels)
    files = {"VGG16": vgg16(folder), "EFFICIENTNET": efficientnet(folder), "DEIT": deit(folder)}
    known = {f"FLOWBENCH_{name}": str(path) for name, path in files.items()}
    return known | {
        "FLOWBENCH_DATA": str(folder),
        "FLOWBENCH_CACHE": str(folder / "cache"),
        "FLOWBENCH_RUNS": str(folder / "runs"),  # twins share their teachers
    }


def flowbench(place, folder, *words):
    from flowbench.cli import cli

    environment = place | {"FLOWBENCH_DB": str(folder / "results.db")}
    found = CliRunner().invoke(cli, [*words, "--token"], env=environment)
    assert found.exit_code == 0, found.output[-3000:]
    return found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_a_twin_runs_and_is_compared(name, place, tmp_path):
    suite = str(BENCHMARKS / f"{name}.toml")
    output = flowbench(place, tmp_path, "run", "--suite", suite)
    assert "runs are there" in output
    table = flowbench(place, tmp_path, "compare", "--suite", suite, "--format", "md")
    assert "fd-clf" in table and "not comparable with published" in table
    again = flowbench(place, tmp_path, "run", "--suite", suite, "--dry-run")
    assert "0 of " in again
