"""The papers' tables as suites: their numbers and presets, their small twins, and a dry run."""

import re
import tomllib
from pathlib import Path

import plain_tables
import pytest
from picture_files import images, write_zip

from flowbench import agenda, augment, optimizers, plugins, presets, suites
from flowbench.nets import settings
from flowbench.planning import Request, Setup

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PAPERS = ("cifar10", "imagenet64", "afhq64", "lmm-ablation", "lfm-images")
TWINS = tuple(f"{name}-small" for name in PAPERS)
SETS = {  # archives of every data set that these suites name: side, classes
    "cifar10-32x32-train": (32, 10),
    "cifar10-jpeg-32x32-train": (32, 10),
    "imagenet-64x64-train": (64, 10),
    "imagenet-32x32-train": (32, 10),
    "afhqv2-64x64": (64, 0),
    "flowers-128x128": (128, 10),
}
WEIGHTS = ("vgg16", "deit", "efficientnet")

# What the papers print, by suite and label: (metric, NFE): value. NFE 0 is an adaptive solver's.
PUBLISHED = {
    "cifar10": {  # LMM paper, Table 2
        "EDM": {("fid", 35): 1.79},
        "EDM, no labels": {("fid", 35): 1.97, ("is", 35): 9.84},
        "CFM": {("fid", 0): 6.35},
        "1-RF": {("fid", 0): 2.58, ("is", 0): 9.60},
        "2-RF": {("fid", 0): 3.36, ("is", 0): 9.24},
        "3-RF": {("fid", 0): 3.96, ("is", 0): 9.01},
        "1-RF, distilled": {("fid", 1): 6.18, ("is", 1): 9.08},
        "2-RF, distilled": {("fid", 1): 4.85, ("is", 1): 9.01},
        "3-RF, distilled": {("fid", 1): 5.21, ("is", 1): 8.79},
        "CTM": {("fid", 1): 1.73, ("fid", 2): 1.63},
        "CTM, no labels": {("fid", 1): 1.98, ("fid", 2): 1.87},
        "CD, no labels": {("fid", 1): 3.55, ("is", 1): 9.48, ("fid", 2): 2.93, ("is", 2): 9.75},
        "LMM": {("fid", 1): 1.57, ("fid", 2): 1.39},
        "LMM, no labels": {("fid", 1): 1.90, ("is", 1): 10.16, ("fid", 2): 1.55, ("is", 2): 10.20},
    },
    "imagenet64": {  # LMM paper, Table 4
        "EDM": {("fid", 79): 2.23, ("is", 79): 48.88},
        "CFM": {("fid", 0): 14.45},
        "BOT-CFM": {("fid", 0): 11.82},
        "CTM": {("fid", 1): 1.92, ("is", 1): 70.38, ("fid", 2): 1.73, ("is", 2): 64.29},
        "CD": {("fid", 1): 6.20, ("is", 1): 40.08, ("fid", 2): 4.70},
        "LMM": {("fid", 1): 1.47, ("is", 1): 59.86, ("fid", 2): 1.17, ("is", 2): 61.18},
    },
    "afhq64": {  # LMM paper, Table 5
        "EDM": {("fid", 79): 1.96},
        "LMM": {("fid", 1): 2.68, ("fid", 2): 1.54},
    },
    "lmm-ablation": {  # LMM paper, Tables 7, 8 and 9: FID at NFE 1, 2, ...
        label: {("fid", nfe): value for nfe, value in enumerate(values, 1)}
        for label, values in {
            "L2, CIFAR-10": (5.125, 4.289, 3.337, 3.315),
            "VGG, CIFAR-10": (3.124, 2.796, 2.601, 2.625),
            "VGG+ADL, CIFAR-10": (1.672, 1.394, 1.381, 1.383),
            "VGG+ADL+SOT, CIFAR-10": (1.575, 1.389),
            "VGG, ImageNet": (6.968, 5.472, 4.694),
            "VGG+ADL, ImageNet": (1.731, 1.318, 1.284),
            "VGG+ADL+SOT, ImageNet": (1.473, 1.167),
            "VGG, AFHQ": (5.458, 4.254, 3.919),
            "VGG+ADL, AFHQ": (2.687, 1.545, 1.447),
            "VGG+ADL+SOT, AFHQ": (2.767, 1.776),
        }.items()
    }
    | {
        f"{label}, steps 0 1 2": {("fid", 3): value}
        for label, value in {
            "L2, CIFAR-10": 4.019,
            "VGG, CIFAR-10": 2.761,
            "VGG+ADL, CIFAR-10": 1.386,
            "VGG, ImageNet": 5.004,
            "VGG+ADL, ImageNet": 1.301,
            "VGG, AFHQ": 4.165,
            "VGG+ADL, AFHQ": 1.462,
        }.items()
    },
    "lfm-images": {  # the answers to LFM's reviews
        **{
            f"{label}, {name}": {("fid", 0): value}
            for name, values in {
                "CIFAR-10": (8.45, 8.55, 10.27, 12.30),
                "ImageNet-32": (7.00, 7.20, 8.49, 7.51),
                "Flowers": (59.7, 55.7, 65.9, 70.8),
            }.items()
            for label, value in zip(("LFM trig", "LFM OT", "InterFlow", "FM"), values, strict=True)
        },
        "LFM OT, CIFAR-10, equal time": {("fid", 0): 12.34},
        "LFM OT, Flowers, equal time": {("fid", 0): 65.0},
        "LFM OT, Flowers, distilled": {("fid", 4): 76.9},
        "1-RF, Flowers": {("fid", 0): 55.7},
        "2-RF, Flowers": {("fid", 0): 62.3},
        "3-RF, Flowers": {("fid", 0): 65.4},
        "1-RF, Flowers, distilled": {("fid", 4): 84.6},
        "2-RF, Flowers, distilled": {("fid", 4): 82.8},
        "3-RF, Flowers, distilled": {("fid", 4): 82.7},
    },
}
TABLE_6 = {  # LMM paper: channels, multipliers, blocks, attention, lr, pairs, iterations
    "cifar10": ("ddpmpp", 128, (2, 2, 2), 4, (16,), 4e-4, 10**6, (80_000, 20_000)),
    "afhq64": ("ddpmpp", 128, (1, 2, 2, 2), 4, (16,), 1e-4, 2 * 10**6, (80_000, 25_000)),
    "imagenet64": ("adm", 192, (1, 2, 3, 4), 3, (32, 16, 8), 8e-6, 4 * 10**6, (80_000, 30_000)),
}


def path(name):
    return BENCHMARKS / f"{name}.toml"


@pytest.fixture
def data(tmp_path):
    """A folder with a few images of every data set."""
    for stem, (side, classes) in SETS.items():
        labels = [n % classes for n in range(10)] if classes else None
        write_zip(tmp_path / f"{stem}.zip", images(10, side), labels)
    return tmp_path


@pytest.fixture
def setup(data):
    """Data and files in the place of weights, which planning only hashes."""
    files = {name: data / name for name in WEIGHTS}
    for name, file in files.items():
        file.write_text(name)
    return Setup(folder=data / "runs", data_root=data, weights=files)


@pytest.mark.parametrize("name", PAPERS)
def test_published_numbers_are_those_of_the_papers(name):
    suite = suites.read(path(name))
    found = {}
    for entry in suite.expectations:
        assert entry.published and entry.tolerance >= 0.0999 * entry.value
        found.setdefault(entry.label, {})[entry.metric, entry.level] = entry.value
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("name", TWINS)
def test_small_twins_expect_no_published_number(name):
    suite, large = (suites.read(path(each)) for each in (name, name.removesuffix("-small")))
    assert suite.datasets == ["cifar10-jpeg"]
    assert not any(entry.published for entry in suite.expectations)
    assert sum(row.gpu_hours for row in suite.rows) < 0.5
    labels = {row.label for row in suite.rows}
    assert {row.label.partition(", ")[0] for row in large.rows} <= {
        label.partition(", ")[0] for label in labels
    }


@pytest.mark.parametrize("name", [*PAPERS, *TWINS])
def test_every_word_of_every_row_can_be_read(name):
    for token in (False, True):
        for row in suites.read(path(name), token).rows:
            said = presets.get(row.method, row.preset) if row.preset else None
            words = {key: value.value for key, value in said.run.items()} if said else {}
            words |= {key: getattr(row, key) for key in words if getattr(row, key) is not None}
            network = settings.parse(row.network or words["network"])
            optimizers.parse(row.optimizer or words["optimizer"])
            told = augment.parse(row.augment or words.get("augment", "none"))
            assert told is None or told.mode != "edm" or network.augment
            assert token or row.gpu_hours is not None


@pytest.mark.parametrize("name", [*PAPERS, *TWINS])
@pytest.mark.parametrize("token", [False, True])
def test_every_row_can_be_planned_and_no_two_are_one_run(name, token, setup):
    suite = suites.read(path(name), token)
    tasks = agenda.tasks(suite, setup)
    agenda.look_up(tasks, None, False, setup)
    assert len(tasks) == len(suite.rows)
    assert token or len({task.key for task in tasks}) == len(tasks)
    for task in tasks:  # each teacher is a row of its own
        own = {task.plan.trained.spec.name} if task.plan.trained else set()
        assert task.shared <= own
    keys = {task.cell.row.label: task.key for task in tasks}
    for task in tasks:
        teacher = task.plan.teacher and task.plan.teacher.spec.key
        assert teacher == keys.get(task.cell.row.teacher)


def test_rows_of_two_tables_that_are_one_run_are_made_once(setup):
    """EDM and LMM of Tables 2, 4 and 5 are teachers and columns of Tables 7 to 9."""
    keys = [
        {task.plan.spec.key for task in agenda.tasks(suites.read(path(each)), setup)}
        for each in ("cifar10", "imagenet64", "afhq64")
    ]
    ablation = agenda.tasks(suites.read(path("lmm-ablation")), setup)
    labels = {task.cell.row.label for task in ablation if task.key in set().union(*keys)}
    teachers = {f"EDM, {place}" for place in ("CIFAR-10", "ImageNet", "AFHQ")}
    assert labels == teachers | {
        "VGG+ADL+SOT, CIFAR-10",
        "VGG+ADL+SOT, ImageNet",
        "VGG+ADL, AFHQ",
    }


@pytest.mark.parametrize("name", [*PAPERS, *TWINS])
def test_token_size_changes_every_row_and_expects_nothing(name):
    suite = suites.read(path(name), token=True)
    words = tomllib.loads(path(name).read_text())["token"]
    assert suite.expectations == () and suite.head.title.endswith("token size")
    for row, before in zip(suite.rows, suites.read(path(name)).rows, strict=True):
        for key in ("steps", "batch", "samples", "network", "precision"):
            assert getattr(row, key) == words[key]
        mine = [words["options"].get(key, {}) for key in (row.method, row.label)]
        assert row.options == {**before.options, **mine[0], **mine[1]}
        assert (row.nfe, row.preset, row.seeds) == (before.nfe, before.preset, before.seeds[:1])
        assert row.gpu_hours is None


@pytest.mark.parametrize("name", PAPERS)
def test_a_dry_run_says_what_it_takes_before_there_are_data(flowbench, name):
    suite = suites.read(path(name))
    code, output = flowbench("run", "--suite", str(path(name)), "--dry-run")
    assert code == 0, output
    hours = sum(row.gpu_hours for row in suite.rows)
    told = re.search(r"about ([\d.]+) GPU-hours", output)
    assert told is not None and float(told[1]) == pytest.approx(hours, rel=0.01)
    assert "Published numbers: the papers' own, not measured here" in output
    for dataset in suite.datasets:
        assert f"not here: {dataset} does not come with flowbench" in output
    rows = plain_tables.rows(output)
    assert sum("not here" in line for line in rows) == len(suite.rows)
    for label, numbers in PUBLISHED[name].items():
        for (metric, nfe), value in numbers.items():
            wanted = [label, metric, str(nfe or "auto"), f"{value:g}"]
            assert any([c[0], *c[2:5]] == wanted for c in rows), wanted


def test_a_dry_run_says_which_weights_are_missing(flowbench, data, monkeypatch):
    for name in WEIGHTS:
        monkeypatch.delenv(f"FLOWBENCH_{name.upper()}", raising=False)
    words = ("run", "--suite", str(path("afhq64")), "--dry-run", "--data-root", str(data))
    code, output = flowbench(*words)
    assert code == 0 and "2 of 2 runs to do" in output
    lines = plain_tables.rows(output)
    assert sum("not here" in line for line in lines) == 1, "EDM is planned, LMM lacks weights"
    assert "needs the weights vgg16" in output
    code, output = flowbench(*(word for word in words if word != "--dry-run"))
    assert code == 2 and "needs the weights vgg16" in output and "Traceback" not in output


@pytest.mark.parametrize("name", TABLE_6)
def test_lmm_presets_are_table_6(name):
    preset = presets.get("lmm", name)
    word, channels, mult, blocks, attention, lr, pairs, parts = TABLE_6[name]
    run = {key: value.value for key, value in preset.run.items()}
    chosen = {key: value.value for key, value in preset.options.items()}
    network = settings.parse(run["network"])
    shape = (network.name, network.channels, network.mult, network.blocks, network.attention)
    assert shape == (word, channels, mult, blocks, attention)
    optimizer = optimizers.parse(run["optimizer"])
    assert (optimizer.name, optimizer.beta1, optimizer.beta2) == ("radam", 0.9, 0.999)
    assert (run["batch"], run["steps"]) == (512, sum(parts))
    assert round(run["steps"] * (1 - chosen["adversarial"])) == parts[0]
    assert chosen["sot"] in (0, chosen["adversarial"])
    assert (chosen["lr"], chosen["disc_lr"], chosen["pairs"]) == (lr, 2e-3, pairs)
    assert (chosen["ema"], chosen["lines"]) == (0.999, 0.5)
    steps = 18 if name == "cifar10" else 40
    assert (chosen["pair_steps"], chosen["grid"]) == (steps, steps)


@pytest.mark.parametrize(
    "name, images, half_life, total",
    [
        ("cifar10", 512, 0.5e6, 200e6),
        ("ffhq64", 256, 0.5e6, 200e6),
        ("afhq64", 256, 0.5e6, 200e6),
        ("imagenet64", 4096, 50e6, 2500e6),
    ],
)
def test_edm_presets_count_what_the_paper_gives_in_images(name, images, half_life, total):
    preset = presets.get("edm", name)
    assert preset.run["batch"].value == images
    assert preset.run["steps"].value == pytest.approx(total / images, abs=1)
    assert preset.options["ema"].value == pytest.approx(0.5 ** (images / half_life), abs=1e-9)
    optimizer = optimizers.parse(preset.run["optimizer"].value)
    assert optimizer.warmup == pytest.approx(10e6 / images, abs=1) and optimizer.ramp == "edm"
    assert not optimizer.clip and optimizer.schedule == "constant"


@pytest.mark.parametrize("method", [name for name in plugins.methods() if name != "exact"])
def test_presets_sample_as_their_method_can(method):
    for name, preset in presets.of(method).items():
        words = {key: value.value for key, value in preset.options.items()}
        made = plugins.method(method, words)
        for nfe in preset.run["nfe"].value:
            reason = getattr(made, "refuses", lambda nfe: None)(None if nfe == "auto" else nfe)
            assert reason is None, (name, reason)
        filled = presets.fill(Request(method, "digits", preset=name))
        assert filled.nfe == tuple(0 if n == "auto" else n for n in preset.run["nfe"].value)
        readers = {
            "network": settings.parse,
            "optimizer": optimizers.parse,
            "augment": augment.parse,
        }
        said = readers.keys() & preset.run.keys()
        assert said == readers.keys() or method == "shortcut", "its paper has other data sets"
        for word in said:
            readers[word](preset.run[word].value)
