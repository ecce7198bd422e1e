"""Every command of README.md and CONTRIBUTING.md is run, on a small database and tiny archives."""

import functools
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import guides
import numpy as np
import pytest
from click.testing import CliRunner
from flowbench_plugins import rect_flow
from inception_weights import write_inception
from loose_plugins import GOOD
from picture_files import cifar_batches, images, write_folder, write_tar, write_zip
from small_catalogue import shrink
from small_runs import ran
from test_imports import edm, pickled, random  # noqa: F401

from flowbench import planning, presets
from flowbench.nets.backbone import Backbone
from flowbench.nets.settings import DDPMpp

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

ROOT = guides.ROOT
TEXT = guides.read("README.md")
CONTRIBUTING = guides.read("CONTRIBUTING.md")
FEW = "-o pairs=32 -o pair_steps=2 --seed 0"
NET = "--network ddpmpp,channels=16,blocks=1,mult=1-1,attention=16"
TINY = f"--preset none {NET} --steps 2 --batch 4 --samples 4 --nfe 1"
STUDENT = "--preset none -o pairs=8 -o pair_steps=2 --steps 2 --batch 4"
LARGE = "the paper's network and budget take GPUs: here a tiny one of the same kind"
ENGINE = "takes a cluster: tests/launchers start one"
LONG = "hours: its plan is printed, and tests/test_suites.py runs a suite"
SMALL = "the default is 4000 pairs of 18 levels, for each of three seeds"
DOWNLOAD = "a download; tests/test_download.py serves one"
TABLES = "flowbench compare --suite benchmarks/"
BLOCK = "tests/test_docs.py runs it on the tracked results.db and compares the table"
TEACHER = "edm-cifar10-32x32-cond-vp.pkl"
ON_CIFAR = "flowbench run lmm --dataset cifar10 --data-root data"
EXCEPTIONS = guides.Exceptions(
    added={
        "flowbench run lmm --dataset digits --nfe 1,2 --seed 0,1,2": (FEW, SMALL),
        "flowbench run lmm --dataset digits --dry-run": (FEW, SMALL),
        "flowbench run --suite benchmarks/digits.toml": ("--dry-run", LONG),
        "flowbench run --suite benchmarks/smoke.toml --max-hours 8": ("--dry-run", LONG),
        "flowbench run --suite benchmarks/digits.toml --launcher ray,gpus=1": ("--dry-run", ENGINE),
        "flowbench run --suite benchmarks/digits.toml"
        " --launcher slurm,partition=gpu,gpus=1,time=24h --max-jobs 50": ("--dry-run", ENGINE),
        "flowbench run lmm --dataset digits": (FEW, SMALL),
        "flowbench run lmm --dataset digits --device auto": (FEW, SMALL),
        "flowbench run cfm --dataset 8gaussians --timeout 2h": (
            "--dry-run",
            "its worker does not know the small data of this test; tests/test_limits.py runs one",
        ),
        "flowbench run --suite benchmarks/coupling.toml": ("--dry-run", LONG),
        "flowbench run --suite benchmarks/cifar10-small.toml --data-root data --token": (
            "--dry-run",
            "minutes: tests/test_token_suites.py runs it",
        ),
        "flowbench run edm --dataset cifar10 --data-root data --inception-weights FILE": (
            f"{TINY} --reference-rows 8",
            LARGE,
        ),
        f"{ON_CIFAR} --teacher {TEACHER}": (f"{STUDENT} --samples 8 --nfe 1", LARGE),
        f"{ON_CIFAR} --preset cifar10 --teacher {TEACHER}": (
            "--explain --feature-weights vgg16=inception.pth --feature-weights deit=inception.pth"
            " --feature-weights efficientnet=inception.pth",
            LARGE,
        ),
        "flowbench run lmm --dataset imagenet64 --data-root data": (
            f"{TINY} -o pairs=4 -o pair_steps=1",
            LARGE,
        ),
        "flowbench pairs lmm --dataset cifar10 --data-root data --preset cifar10": (
            f"{STUDENT} {NET}",
            LARGE,
        ),
        "flowbench run edm --dataset cifar10-jpeg --data-root data --inception-weights FILE "
        "--network ddpmpp,blocks=1 -o width=16 --steps 60 --batch 64 --samples 200 --nfe 2,18 "
        "--reference-rows 1000": ("--explain", "3 minutes, and like the one on cifar10"),
        "flowbench data prepare cifar10 --source cifar-10-python.tar.gz --output data": (
            "--allow-other-count",
            "24 images in the place of 60 000",
        ),
        "flowbench ref build cifar10 --data-root data": (
            "--inception-weights inception.pth",
            "they were not downloaded",
        ),
    },
    changed={
        f"flowbench {words}": ("benchmarks/table1.toml", "small.toml", "hours: a suite of its form")
        for words in (
            "run --suite benchmarks/table1.toml --dry-run",
            "run --suite benchmarks/table1.toml",
            "compare --suite benchmarks/table1.toml --figure panel.png",
            "compare --suite benchmarks/table1.toml --figure benchmarks/table1.png",
        )
    },
    skipped={
        f"{TABLES}table1.toml --metric S,in-mode,fd --nfe 1,2,8,20 --format md": BLOCK,
        f"{TABLES}digits.toml --metric fd-clf,S --nfe 1,2,4,8,50 --format md": BLOCK,
        "flowbench weights download inception": DOWNLOAD,
        "flowbench weights download vgg16": DOWNLOAD,
    },
    others={
        "make demo": "three minutes; its commands are in the list of .ci",
        "make test": "this test is a part of it",
        "make speed": "a quarter of an hour; tests/test_speed.py runs it at tiny sizes",
        "torchrun --nproc-per-node 4 -m flowbench run lmm --dataset imagenet64 --data-root data": (
            "takes four GPUs; tests/ranks starts processes so"
        ),
    },
    stands_for={"RUN": "digits-cfm-s0", "NAME": "cfm", "FILE": "inception.pth"},
)

SUITE = """
[suite]
title = "Small"
dataset = "8gaussians"
nfe = [1, 2]
seeds = [0]
steps = 3
batch = 16
samples = 48
columns = ["S", "in-mode"]

[[method]]
label = "CFM"
method = "cfm"

[[method]]
label = "EDM"
method = "edm"
"""


@pytest.fixture
def place(tmp_path, monkeypatch, pickled):  # noqa: F811
    """A folder with a small database, archives, weights and a published checkpoint."""
    shrink(monkeypatch)
    monkeypatch.setattr(rect_flow, "ROWS", 8)  # behind its drift
    load = functools.cache(planning.load_data)  # suites load the same data for each of their runs
    monkeypatch.setattr(planning, "load_data", lambda *words: load(*words[:3]))
    monkeypatch.chdir(tmp_path)
    presets.of.cache_clear()
    (tmp_path / "benchmarks").mkdir()
    for suite in (ROOT / "benchmarks").glob("*.toml"):
        (tmp_path / "benchmarks" / suite.name).write_bytes(suite.read_bytes())
    (tmp_path / "small.toml").write_text(SUITE)
    make_images(tmp_path)
    write_inception(tmp_path / "inception.pth")
    settings = DDPMpp(channels=16, mult=(1, 1), blocks=1)
    source = random(Backbone(settings, (3, 32, 32), 10))
    pickled(edm(source), TEACHER)
    make_runs(tmp_path)
    yield tmp_path
    presets.of.cache_clear()


def make_images(folder):
    """What a user has beside a database: sources, archives, statistics."""
    (folder / "data").mkdir()
    batches = cifar_batches(images(24, 32), np.arange(24) % 10)
    members = {f"cifar-10-batches-py/{name}": content for name, content in batches.items()}
    write_tar(folder / "cifar-10-python.tar.gz", members)
    for stem, n, side in (("cifar10-jpeg-32x32", 16, 32), ("imagenet-64x64", 8, 64)):
        for split in ("train", "test"):
            path = folder / "data" / f"{stem}-{split}.zip"
            write_zip(path, images(n, side, seed=split == "test"), np.arange(n) % 10)
    write_folder(folder / "pictures", images(6, 16), ["a", "b"] * 3)
    np.savez(folder / "cifar10-32x32.npz", mu=np.zeros(2048), sigma=np.eye(2048))


def make_runs(folder):
    """A few methods on digits, and the results of somebody else."""
    few = ["--dataset", "digits", "--nfe", "1,2"]
    pairs = ["-o", "pairs=32", "-o", "pair_steps=2"]
    ran(folder, ["cfm", *few, "--seed", "0,1"], ["lmm", *few, *pairs, "--seed", "1"])
    ran(folder, ["edm", *few], ["rect-flow", *few, *pairs])
    theirs = folder / "elsewhere"
    theirs.mkdir()
    ran(theirs, ["cfm", "--dataset", "moons", "--nfe", "1"])
    with closing(sqlite3.connect(theirs / "results.db")) as database:
        database.execute("vacuum into 'theirs.db'")


def call(words, variables):
    from flowbench.cli import cli

    result = CliRunner().invoke(cli, words, env=variables)
    defect = repr(result.exception) if result.exit_code == 1 else ""
    return result.exit_code, result.output + defect


@pytest.mark.slow
def test_every_command_of_the_readme_runs(place):
    assert EXCEPTIONS.stale(TEXT) == []
    assert "\n".join(guides.carried_out(TEXT, EXCEPTIONS, call)) == ""
    for name in ("leaderboard.html", "out.png", "panel.png", "table.tex", "fid.pdf", "mine.zip"):
        assert (place / name).stat().st_size > 1000, name


def test_every_command_of_the_guide_for_contributors_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GOOD)
    theirs = guides.Exceptions(
        added={"flowbench check FILE": ("--only A", "tests/test_check.py carries out the list")},
        others=dict.fromkeys(
            ["make quick", "make test", "make smoke", "make leaderboard", "make readme"],
            "minutes to hours, of which this test is a part",
        ),
        stands_for={"FILE": "mine.py"},
    )
    assert theirs.stale(CONTRIBUTING) == []
    assert guides.carried_out(CONTRIBUTING, theirs, call) == []


@pytest.mark.slow
def test_the_shell_completes_commands_by_the_line_of_the_readme():
    line = re.search(r'`eval "\$\((_\w+=bash_source) flowbench\)"`', TEXT).group(1)
    name, _, value = line.partition("=")
    script = Path(sys.executable).parent / "flowbench"
    done = subprocess.run(
        [script], env={name: value, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert "complete -o nosort -F" in done.stdout, done.stderr


def test_the_targets_of_make_are_there():
    makefile = guides.read("Makefile")
    for name in re.findall(r"`?make ([a-z]+)", TEXT + CONTRIBUTING):
        assert re.search(rf"^{name}:", makefile, re.M), name


def test_the_line_of_a_failed_plugin_is_as_the_readme_prints_it(tmp_path, monkeypatch, flowbench):
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)
    line = "        x = a / b"
    broken = GOOD.replace("        def loss", f"        a, b = 1, 0\n{line}\n\n        def loss")
    number = broken.splitlines().index(line) + 1
    (tmp_path / "my_method.py").write_text(broken)
    code, output = flowbench("run", "my-idea", "--plugin", "my_method.py", "--dataset", "moons")
    shown = re.search(r"`(my_method.py:31 in train: [^`]+)`", TEXT).group(1)
    assert code == 3 and shown.replace("31", str(number)) in output, output
