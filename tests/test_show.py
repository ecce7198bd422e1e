"""All that is known about a run, for a reader and for a program."""

import dataclasses
import json
import math
import sqlite3

import pytest

from flowbench.cli import dossier
from flowbench.cli.show import _cost, _plain
from flowbench.records import Budget, Measured, Score, Spec
from flowbench.store import Store

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

SIZE = ["--dataset", "moons", "--steps", "20", "--batch", "32", "--samples", "50", "--nfe", "1,2"]
SPEC = Spec(
    "edm",
    "moons",
    0,
    Budget(20, 32),
    {"lr": 0.002, "sizes": (64, 224), "width": None},
    {"lr": 0.002},
    teacher="t" * 64,
    data="d" * 64,
    code="c" * 64,
    version="flowbench 0.1.0",
    setting={"network": {"name": "ddpmpp", "mult": [1, 2]}, "augment": "flip"},
    sources={"teacher": {"licence": "CC BY 4.0", "sha256": "ab" * 32}},
)


@pytest.fixture
def store(database):
    """A database with one run that took two attempts, in two noise streams."""
    store = Store(f"sqlite:///{database}")
    packages = {"numpy": "2.0", "a-package-with-a-long-name": "1.2.3"}
    surroundings = {"python": "3.11", "torch": "2.9", "device": "an abacus", "packages": packages}
    with pytest.raises(KeyboardInterrupt), store.attempt(SPEC, surroundings) as attempt:
        attempt.note("the teacher came late")
        raise KeyboardInterrupt
    with store.attempt(SPEC, surroundings | {"torch": "3.0"}) as attempt:
        for score in scores():
            attempt.add(score)
        attempt.artifact("network", "moons-edm/network.safetensors", "ab" * 32, 2048)
        attempt.artifact("samples-nfe1", "moons-edm/samples.safetensors", "cd" * 32, 3)
        attempt.artifact("training-log", "moons-edm/training.jsonl", "ef" * 32, 3 * 2**20)
    return store


def scores():
    for seed in (0, 4):
        for nfe in (1, 2, 0):
            yield Score("w2", 0.25 + nfe + seed, nfe, n=50, seed=seed, goal="min")
        yield Score("w2", 0.125, subject="floor", n=40, seed=seed)
    yield Score("fd", math.nan, 2, n=50)
    yield Score("ms-per-sample", 0.5, 1)
    for name, value in [("S", 0.75), ("parameters", 219651.0)]:
        yield Score(name, value)
    bill = {"": (4.0, 1280.0), ":teacher": (1.0, 640.0), ":train": (3.0, 640.0)}
    for stage, (seconds, images) in bill.items():
        yield Score(f"train-seconds{stage}", seconds)
        yield Score(f"train-images{stage}", images)


def section(output, title):
    """The lines of a section, split into words."""
    _, _, rest = output.partition(f"\n{title}\n")
    assert rest, f"no section {title} in {output}"
    return [line.split() for line in rest.split("\n\n")[0].splitlines()]


def test_every_section_says_what_is_stored(flowbench, store, tmp_path):
    folder = tmp_path / "runs/moons-edm"
    folder.mkdir(parents=True)
    (folder / "network.safetensors").write_bytes(bytes(2048))
    (folder / "samples.safetensors").write_bytes(b"longer")
    code, output = flowbench("show", "moons-edm")
    assert code == 0, output
    assert output.startswith(f"{SPEC.name}\n")
    run = dict((line[0], line[1:]) for line in section(output, "run"))
    assert run["variant"] == ["edm", "lr=0.002"] and run["key"] == [SPEC.key]
    assert run["budget"] == ["20", "steps", "of", "32:", "640", "images"]
    assert section(output, "options") == [["lr=0.002", "sizes=64-224", "width=none"]]
    assert section(output, "setting") == [["network=name=ddpmpp,mult=1-2", "augment=flip"]]
    assert "licence='CC BY 4.0'" in output
    assert section(output, "teacher") == [f"key {'t' * 16}, not in this database".split()]
    assert section(output, "cost of training") == [
        ["stage", "images", "seconds", "share"],
        ["teacher", "640", "1.000", "25%"],
        ["train", "640", "3.000", "75%"],
        ["all", "1280", "4.000", "100%"],
    ]
    assert section(output, "scores of 50 samples, noise stream 0") == [
        ["metric", "NFE", "1", "NFE", "2", "NFE", "auto", "floor,", "n=40"],
        ["fd", "nan"],
        ["w2", "1.250", "2.250", "0.2500", "0.1250"],
    ]
    assert section(output, "scores of 50 samples, noise stream 4")[1:] == [
        ["w2", "5.250", "6.250", "4.250", "0.1250"]
    ]
    assert section(output, "cost of sampling")[1:] == [["ms-per-sample", "0.5000"]]
    assert section(output, "of the whole run") == [["S", "0.7500"], ["parameters", "219651"]]
    files = section(output, "files")
    assert files[0] == ["network:", "2", "KiB,", "ab" * 8]
    assert files[1] == ["moons-edm/network.safetensors"]
    assert files[3] == ["moons-edm/samples.safetensors", "other", "size", "than", "stored"]
    assert files[4] == ["training-log:", "3", "MiB,", "ef" * 8] and files[5][1:] == ["not", "there"]
    again = section(output, "again")
    assert again[0][:3] == ["flowbench", "run", "edm"] and "--nfe" in again[0]
    assert again[1] == ["flowbench", "reproduce", SPEC.name]


def test_attempts_and_the_environments_of_each(flowbench, store):
    output = flowbench("show", "moons-edm")[1]
    attempts = section(output, "attempts")
    assert attempts[0] == ["attempt", "1", "(generation", "1,", "id", "1):", "interrupted"]
    assert attempts[-2] == ["attempt", "2", "(generation", "1,", "id", "2):", "ok"]
    assert output.count("\nenvironment ") == 2 and "torch     2.9" in output
    assert "packages  2 (--packages lists them)" in output
    listed = flowbench("show", "moons-edm", "--packages")[1]
    assert "numpy=2.0" in listed and "numpy" not in output


def test_it_fits_a_terminal(flowbench, store):
    output = flowbench("show", "moons-edm", "--packages")[1]
    long = [line for line in output.splitlines() if len(line) > 80]
    assert long == [line for line in long if line.startswith("  flowbench run ")]


def test_columns_that_do_not_fit_go_on_below():
    rows = [["metric", *(f"NFE {k}" for k in range(30))], ["w2", *(f"{k}.000" for k in range(30))]]
    lines = list(dossier._grid(rows))
    assert max(map(len, lines)) <= 78 and len(lines) > 2
    words = [word for line in lines if line.startswith("w2") for word in line.split()[1:]]
    assert words == rows[1][1:], "every number once, in order"


def test_json_has_everything(flowbench, store):
    code, output = flowbench("show", "moons-edm", "--format", "json")
    assert code == 0
    known = json.loads(output, parse_constant=pytest.fail)  # no NaN
    spec = json.loads(json.dumps(dataclasses.asdict(SPEC)))
    assert {**{name: known[name] for name in spec}, "teacher": SPEC.teacher} == spec
    assert known["teacher"] == {"key": "t" * 64, "run": "", "stored": False}
    assert len(known["scores"]) == len(list(scores()))
    (nan,) = [s for s in known["scores"] if s["name"] == "fd"]
    assert nan["value"] == "nan" and nan["nfe"] == 2 and nan["fingerprint"]
    assert [a["outcome"] for a in known["attempts"]] == ["interrupted", "ok"]
    assert {f["role"]: f["there"] for f in known["files"]} == dict.fromkeys(
        ["network", "samples-nfe1", "training-log"], "no"
    )
    (first, second) = known["environments"].values()
    assert first["packages"]["numpy"] == "2.0" and {first["torch"], second["torch"]} == {
        "2.9",
        "3.0",
    }
    assert known["command"].startswith("flowbench run edm --dataset moons")


def test_a_whole_run_shows_its_teacher_and_its_files(flowbench, database):
    words = ["run", "lmm", *SIZE, "-o", "pairs=32", "-o", "pair_steps=3", "--quiet"]
    assert flowbench(*words)[0] == 0
    known = json.loads(flowbench("show", "moons-lmm", "--format", "json")[1])
    assert known["teacher"]["run"].startswith("moons-edm-s0-") and not known["teacher"]["stored"]
    assert [stage["stage"] for stage in known["cost"]] == ["teacher", "lines", "pairs", "all"]
    assert sum(stage["share"] for stage in known["cost"][:-1]) == pytest.approx(1)
    assert {file["there"] for file in known["files"]} == {"yes"}
    assert "training-log" in {file["role"] for file in known["files"]}
    assert flowbench("run", "edm", *SIZE, "--quiet")[0] == 0
    known = json.loads(flowbench("show", "moons-lmm", "--format", "json")[1])
    assert known["teacher"]["stored"]


def test_what_a_stranger_wrote_cannot_steer_the_terminal(flowbench, store, database):
    with sqlite3.connect(database) as connection:
        text = "'\x1b[2J\x07 gone\nand more'"
        connection.execute(f"update attempts set error_text = {text}, started = 'yesterday'")
        connection.execute("update environments set json = '{\"packages\": [1]}'")
    code, output = flowbench("show", "moons-edm")
    assert code == 0 and "gone" in output
    assert "\x1b" not in output and "\x07" not in output


def test_a_bill_that_nobody_knows_has_no_shares():
    bill = [Score("train-seconds", math.nan), Score("train-images", 5.0)]
    rows = [Measured("x", SPEC, score, 1, 1, "") for score in bill]
    (only,) = _cost(rows)
    assert only["stage"] == "all" and math.isnan(only["share"])
    assert _plain(only)["share"] == "nan"
    assert [*dossier._cost([only])][1].split() == ["all", "5", "nan"]


def test_an_attempt_says_why_it_ended_and_where_it_came_from():
    attempt = {
        "id": 177,
        "number": 3,
        "generation": 2,
        "outcome": "failed",
        "started": "2026-11-20T10:00:00.1",
    }
    attempt |= {"seconds": 2.5, "environment": "", "error": "no memory " * 20, "origin": "lab-b"}
    lines = list(dossier._attempts([attempt | {"notes": ["by night"]}]))
    assert lines[0] == "attempt 3 (generation 2, id 177): failed"
    assert lines[1] == "    2026-11-20T10:00:00, 2.5 s"
    assert lines[-2:] == ["    merged from lab-b", "    by night"]
    assert " ".join(" ".join(lines[2:-2]).split()) == ("no memory " * 20).strip()
