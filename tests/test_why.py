"""Why a run is made or not: the field that decides is named, and what is there is used."""

import dataclasses
import shutil
from types import SimpleNamespace

import pytest
from small_runs import ran

from flowbench import plugins, protocol, records, stages
from flowbench.entries import Metric
from flowbench.explanation import NOT_HASHED, decided, differences, nearest
from flowbench.records import Budget, Protocol, Spec
from flowbench.stages import Stage
from flowbench.store import Store

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

SIZE = ["--dataset", "moons", "--steps", "20", "--batch", "32", "--samples", "50"]
LMM = ["lmm", *SIZE, "-o", "pairs=32", "-o", "pair_steps=3"]

SPEC = Spec(
    method="lmm",
    dataset="moons",
    seed=0,
    budget=Budget(20, 32),
    options={"lr": 0.002, "width": None, "sizes": (64, 224), "pairs": 1},
    changed={"lr": 0.002},
    teacher="aa",
    data="d",
    code="c",
    version="flowbench 0.1.0",
    setting={"network": {"name": "ddpmpp", "channels": 64}, "augment": "flip"},
    weights="w",
    sources={"teacher": {"licence": "MIT"}},
)
OPTIONS, SETTING = SPEC.options, SPEC.setting
MUTATED = [
    ({"method": "edm"}, ["method"]),
    ({"dataset": "rose"}, ["dataset"]),
    ({"seed": 1}, ["seed"]),
    ({"budget": Budget(21, 32)}, ["budget.steps"]),
    ({"budget": Budget(20, 33)}, ["budget.batch"]),
    ({"options": {**OPTIONS, "lr": 0.003}}, ["options.lr"]),
    ({"options": {**OPTIONS, "width": 8}}, ["options.width"]),
    ({"options": {**OPTIONS, "sizes": (64, 225)}}, ["options.sizes"]),
    ({"options": {**OPTIONS, "pairs": 1.0}}, ["options.pairs"]),
    ({"options": {**OPTIONS, "pairs": True}}, ["options.pairs"]),
    ({"options": {**OPTIONS, "new": None}}, ["options.new"]),
    ({"options": {"lr": 0.002, "width": None, "sizes": (64, 224)}}, ["options.pairs"]),
    ({"teacher": "bb"}, ["teacher"]),
    ({"teacher": None}, ["teacher"]),
    ({"data": "e"}, ["data"]),
    ({"code": "b"}, ["code"]),
    ({"weights": ""}, ["weights"]),
    ({"setting": {**SETTING, "augment": "edm"}}, ["setting.augment"]),
    ({"setting": {"augment": "flip"}}, ["setting.network"]),
    ({"setting": {}}, ["setting.network", "setting.augment"]),
    (
        {"setting": {**SETTING, "network": {"name": "ddpmpp", "channels": 32}}},
        ["setting.network.channels"],
    ),
]


@pytest.mark.parametrize("change, fields", MUTATED, ids=[str(change) for change, _ in MUTATED])
def test_each_field_of_the_key_is_named_alone(change, fields):
    other = dataclasses.replace(SPEC, **change)
    assert other.key != SPEC.key
    assert [d.field for d in differences(SPEC, other)] == fields
    assert [d[1:] for d in differences(other, SPEC)] == [d[:0:-1] for d in differences(SPEC, other)]


def test_every_field_of_a_spec_is_tried_here():
    tried = {name for change, _ in MUTATED for name in change}
    assert tried | set(NOT_HASHED) == {field.name for field in dataclasses.fields(Spec)}


@pytest.mark.parametrize(
    "change", [{"changed": {}}, {"version": "flowbench 9"}, {"sources": {}}], ids=str
)
def test_what_is_no_part_of_the_key_never_decides(change):
    other = dataclasses.replace(SPEC, **change)
    assert other.key == SPEC.key and other != SPEC
    assert differences(SPEC, other) == []


def test_a_spec_that_comes_back_from_json_differs_in_nothing():
    import json

    back = Spec.from_json(json.loads(json.dumps(dataclasses.asdict(SPEC))))
    assert back != SPEC and back.key == SPEC.key and differences(SPEC, back) == []


def test_another_recipe_is_named_where_the_spec_is_the_same():
    assert decided(SPEC.name, SPEC, SPEC) == []
    (found,) = decided("moons-lmm-s0-00000000", SPEC, SPEC)
    assert found.field == "recipe"


def test_the_nearest_run_differs_in_the_fewest_fields():
    near = dataclasses.replace(SPEC, options={**OPTIONS, "lr": 0.1})
    far = dataclasses.replace(near, seed=3)
    elsewhere = dataclasses.replace(SPEC, dataset="rose")
    other, found = nearest([far, elsewhere, SPEC, near], SPEC)
    assert other == near and [d.field for d in found] == ["options.lr"]
    assert nearest([SPEC, elsewhere], SPEC) is None


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder with one small run of cfm, edm and lmm on moons, whose teacher is that edm."""
    runs = [[*words, "--nfe", "1,2"] for words in (["cfm", *SIZE], ["edm", *SIZE], LMM)]
    return ran(tmp_path_factory.mktemp("made"), *runs)


@pytest.fixture
def made(once, tmp_path):
    """A copy of it, where FLOWBENCH_DB is."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs"


def of(runs, method):
    """The folder of the only run of a method."""
    (folder,) = runs.glob(f"moons-{method}-*/")
    return folder


def words_of(output):
    """{stage: used or new} of the first plan that is explained."""
    lines = [line.split() for line in output.split("\n\n")[-1].splitlines()]
    found = {}
    for line in lines:
        place = next((i for i, word in enumerate(line) if word in ("used", "new", "-")), None)
        if place is None:
            continue
        found[" ".join(line[:place])] = line[place]
    return found


def stored(runs):
    return Store(f"sqlite:///{runs.parent / 'results.db'}")


def everything(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_uses_all_that_is_there(flowbench, made, tmp_path):
    before = everything(made)
    code, output = flowbench("why", "moons-lmm")
    assert code == 0 and "lead to this very run" in output and "there is nothing to do" in output
    assert words_of(output) == dict.fromkeys(
        ["teacher's network", "pairs", "network", "samples, NFE 1", "samples, NFE 2", "scores"],
        "used",
    )
    assert f"{of(made, 'edm').name}/network.safetensors (train.pt)" in output
    assert "32 of 32 in pairs-" in output
    assert everything(made) == before, "a look changes nothing"


@pytest.mark.parametrize(
    "lost, stage, says",
    [
        ("moons-lmm-*/lines.pt", "network", "its checkpoints are gone: lines.pt"),
        ("moons-lmm-*/network.safetensors", "network", "goes on from lines.pt"),
        ("moons-edm-*/train.pt", "teacher's network", "its checkpoints are gone: train.pt"),
        ("pairs-*/*.safetensors", "pairs", "0 of 32 in pairs-"),
        ("moons-lmm-*/samples-nfe2-*", "samples, NFE 2", "not there"),
    ],
)
def test_what_is_gone_is_not_needed_where_all_scores_are_stored(flowbench, made, lost, stage, says):
    (path,) = made.glob(lost)
    path.unlink()
    code, output = flowbench("why", "moons-lmm")
    assert code == 0 and says in output and "not needed" in " ".join(output.split())
    found = words_of(output)
    assert found[stage] == "-" and found["scores"] == "used"


def test_samples_of_another_network_are_not_used(flowbench, made):
    from flowbench.checkpoints import read_tensors, save_tensors

    path = next(of(made, "lmm").glob("samples-nfe1-*"))
    tensors, facts = read_tensors(path)
    save_tensors(path, tensors, facts | {"weights": "other"})
    code, output = flowbench("why", "moons-lmm")
    assert code == 0 and "is of another network" in output
    assert words_of(output)["samples, NFE 1"] == "-"


def test_files_that_are_damaged_are_not_used_and_no_traceback(flowbench, made):
    folder = of(made, "lmm")
    for path in (folder / "network.safetensors", next(folder.glob("samples-nfe1-*"))):
        path.write_bytes(b"x")
    code, output = flowbench("why", "moons-lmm")
    assert code == 0 and " ".join(output.split()).count("cannot be read as safetensors") == 3
    found = words_of(output)
    assert found["network"] == found["samples, NFE 1"] == found["samples, NFE 2"] == "-"


def test_other_code_is_the_field_that_decides(flowbench, made, monkeypatch):
    original = plugins.code_hash
    monkeypatch.setattr(
        plugins, "code_hash", lambda cls: "ee" * 32 if cls.__name__ == "EDM" else original(cls)
    )
    code, output = flowbench("why", "moons-edm")
    assert code == 0 and "lead to another run, moons-edm-s0-" in output
    assert "    code  " in output and "-> eeee" in output
    code, output = flowbench("why", "moons-lmm")
    lines = [line.split()[0] for line in output.splitlines() if "->" in line]
    assert lines[:2] == ["teacher", "code"], "the student's field, then its teacher's"
    assert "its teacher was moons-edm-s0-" in output


def test_a_method_that_is_gone_is_said_in_a_line(flowbench, made, monkeypatch):
    claims = plugins.claimed("method")
    less = {name: claim for name, claim in claims.items() if name != "cfm"}
    monkeypatch.setattr(plugins, "claimed", lambda kind: less)
    code, output = flowbench("why", "moons-cfm")
    assert code == 0 and "no such plan today: " in output and "Traceback" not in output


def test_another_recipe_is_the_field_that_decides(flowbench, made, monkeypatch):
    monkeypatch.setattr(records, "RECIPE", 2)
    code, output = flowbench("why", "moons-cfm")
    assert code == 0 and "    recipe  that of an earlier version -> " in output


def test_a_run_that_was_named_as_teacher_is_found_again(flowbench, made):
    name = of(made, "edm").name
    words = ["run", *LMM, "--nfe", "1", "--teacher", name, "-o", "lr=1e-3", "--quiet"]
    assert flowbench(*words)[0] == 0
    specs = [tried.spec for tried in stored(made).tried("moons", ["lmm"])]
    (named,) = [spec.name for spec in specs if spec.changed.get("teacher") == name]
    code, output = flowbench("why", named)
    assert code == 0 and "lead to this very run" in output


def test_a_network_from_a_file_cannot_be_planned_again(flowbench, made):
    file = of(made, "cfm") / "network.safetensors"
    words = ["run", "cfm", "--dataset", "moons", "--samples", "50", "--nfe", "1", "--quiet"]
    assert flowbench(*words, "--weights", str(file))[0] == 0
    spec = next(row.spec for row in stored(made).measured("moons", ["cfm"]) if row.spec.weights)
    code, output = flowbench("why", spec.name)
    assert code == 0 and "examines the network of the file network.safetensors@" in output


def test_explain_says_what_a_run_would_find_and_does_nothing(flowbench, made):
    before = everything(made)
    code, output = flowbench("run", *LMM, "--nfe", "1,4", "--explain")
    assert code == 0
    found = words_of(output)
    assert found["samples, NFE 1"] == "used" and found["samples, NFE 4"] == "new"
    assert found["network"] == "used" and "w2 @ 4" in output and "nearest" not in output
    assert everything(made) == before
    assert flowbench("run", *LMM, "--nfe", "1,4", "--quiet")[0] == 0
    after = everything(made)
    assert {p for p in after if after[p] != before.get(p)} & {of(made, "lmm") / "lines.pt"} == set()


def test_explain_names_the_nearest_run_and_the_fields(flowbench, made):
    code, output = flowbench("run", *LMM, "--nfe", "1", "--explain", "-o", "lr=1e-4", "--seed", "0")
    assert code == 0
    assert f"the nearest stored run is {of(made, 'lmm').name}, other in\n" in output
    assert [line.split() for line in output.splitlines() if "->" in line] == [
        ["options.lr", "0.002", "->", "0.0001"]
    ]
    found = words_of(output)
    assert found["network"] == "new" and found["pairs"] == found["teacher's network"] == "used"


def test_explain_of_a_first_run_makes_nothing(flowbench, database, tmp_path):
    code, output = flowbench("run", "cfm", *SIZE, "--explain", "--sample-seed", "0,1")
    assert code == 0 and "no other run of cfm on moons is stored" in output
    assert "noise stream 1" in output
    assert not database.exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["run", "--suite", "x.toml", "--explain"], "--explain is for one METHOD"),
        (["run", "cfm", *SIZE, "--explain", "--force"], "there is nothing to explain"),
        (["why", "x"], "run `flowbench run ...` first"),
    ],
)
def test_words_that_do_not_go_together_are_one_line(flowbench, words, message):
    code, output = flowbench(*words)
    assert code == 2 and message in output and "Traceback" not in output


def test_a_forced_run_is_looked_for_where_it_lies(flowbench, made):
    assert flowbench("run", "cfm", *SIZE, "--nfe", "1", "--force", "--quiet")[0] == 0
    code, output = flowbench("why", "moons-cfm")
    assert code == 0 and "-g2/network.safetensors" in output
    assert words_of(output)["network"] == "used"


def test_a_score_by_another_reference_says_which_field(monkeypatch):
    metric = Metric("fid", lambda e: 0.0, extractor="inception")
    facts = {"weights": "new", "reference": {"data": "d", "rows": 50}}
    old = {"weights": "new", "reference": {"data": "d", "rows": 40}}
    key = ("model", "fid", 1, 200)
    monkeypatch.setattr(protocol, "metrics_for", lambda plan, setup: [metric])
    against = SimpleNamespace(facts=lambda metric, data: facts)
    monkeypatch.setattr(protocol, "against_for", lambda plan, setup: against)
    monkeypatch.setattr(stages.runner, "expected", lambda plan, setup: {key})
    plan = SimpleNamespace(spec=SPEC, protocol=Protocol(200), data=None)
    setup = None
    for stored, words in ((old, "stored with reference.rows 40, today 50"), (facts, None)):
        store = SimpleNamespace(done=lambda spec, seed, stored=stored: {key: stored})
        found = list(stages._scores(plan, setup, store))
        if words:
            assert found == [Stage("score fid", False, words), Stage("scores", False, "0 of 1")]
        else:
            assert found == [Stage("scores", True, "1 of 1")]


def test_nothing_is_new_where_there_is_nothing_to_do(flowbench, made):
    shutil.rmtree(made)
    code, output = flowbench("why", "moons-cfm")
    assert code == 0 and "there is nothing to do" in output
    assert "not there, not needed" in output and "new" not in words_of(output).values()
    assert "nearest" not in output and "no other run" not in output
    output = flowbench("run", "cfm", *SIZE, "--nfe", "4", "--explain")[1]
    assert words_of(output)["network"] == "new" and "not needed" not in output
