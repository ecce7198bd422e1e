"""Presets: files beside a method, what wins over what, teachers, and the way back from a run."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowbench import planning, plugins, presets
from flowbench.cli import cli
from flowbench.plans import Request, Setup
from flowbench.records import FlowbenchError

ALL = [name for name in plugins.methods() if name != "exact"]


def write(monkeypatch, tmp_path, **texts):
    """Give methods the presets of `texts`, and others none."""
    presets.of.cache_clear()
    for method, text in texts.items():
        (tmp_path / f"{method}.toml").write_text(text)
    monkeypatch.setattr(presets, "place", lambda method: tmp_path / f"{method}.toml")


@pytest.fixture(autouse=True)
def fresh():
    yield
    presets.of.cache_clear()


LMM = """
[small]
title = "a small one"
[small.run]
steps = { value = 7, source = "paper, Table 1" }
batch = { value = 16, source = "paper, Table 1" }
nfe = { value = [1, 2], source = "paper, Table 2" }
optimizer = { value = "radam,clip=0", source = "paper, Table 1" }
[small.options]
lr = { value = 4e-4, source = "paper, Table 1" }
pairs = { value = 50, source = "our choice" }
"""
EDM = """
[small]
title = "its teacher"
[small.run]
steps = { value = 9, source = "paper" }
[small.options]
ema = { value = 0.9, source = "paper" }
"""


def planned(**words):
    return planning.plan(Request("lmm", "digits", preset="small", **words), Setup())


@pytest.fixture
def lmm(monkeypatch, tmp_path):
    write(monkeypatch, tmp_path, lmm=LMM)


@pytest.mark.parametrize("method", ALL)
def test_every_value_of_every_preset_is_taken_and_has_a_source(method):
    found = presets.of(method)
    assert found, method
    for preset in found.values():
        for values in (preset.run, preset.options, preset.fixed):
            assert all(len(value.source) > 3 for value in values.values())
        words = {name: value.value for name, value in preset.options.items()}
        assert plugins.method(method, words)


def test_it_fills_what_the_user_leaves_open(lmm):
    plan = planned()
    assert (plan.spec.budget.steps, plan.spec.budget.batch) == (7, 16)
    assert plan.nfe == (1, 2)
    assert plan.method.lr == 4e-4 and plan.method.pairs == 50
    assert plan.spec.setting == {"optimizer": "radam,clip=0.0"}
    assert dict(plan.spec.changed) == {"preset": "small"}


def test_what_the_user_types_wins(lmm):
    plan = planned(steps=3, nfe=(4,), options={"lr": "0.1"}, optimizer="adam")
    assert plan.spec.budget.steps == 3 and plan.spec.budget.batch == 16
    assert plan.nfe == (4,) and plan.method.lr == 0.1 and plan.method.pairs == 50
    assert plan.spec.setting == {}
    typed = {"lr": 0.1, "steps": 3, "optimizer": "adam", "preset": "small"}
    assert dict(plan.spec.changed) == typed
    assert planned(images=64).spec.budget.steps == 4


def test_an_adaptive_solver_is_auto(monkeypatch, tmp_path):
    text = "[a]\ntitle = 'x'\n[a.run]\nnfe = {value = ['auto', 4], source = 's'}\n"
    text += "[a.options]\nsolver = {value = 'dopri5', source = 's'}"
    write(monkeypatch, tmp_path, cfm=text.replace(", 4", ""))
    assert planning.plan(Request("cfm", "digits", preset="a"), Setup()).nfe == (0,)
    write(monkeypatch, tmp_path, cfm=text)
    with pytest.raises(FlowbenchError, match="nfe auto"):
        planning.plan(Request("cfm", "digits", preset="a"), Setup())


def test_a_preset_is_its_values(lmm):
    said = Request(
        *("lmm", "digits"),
        steps=7,
        batch=16,
        optimizer="radam,clip=0",
        options={"lr": 4e-4, "pairs": 50},
        teacher="edm",
    )
    assert planning.plan(said, Setup()).spec.key == planned(teacher="edm").spec.key
    assert planned(options={"lr": 1e-4}).spec.key != planned().spec.key


def test_a_teacher_takes_its_own_or_the_students(monkeypatch, tmp_path):
    write(monkeypatch, tmp_path, lmm=LMM)
    teacher = planned().teacher
    assert (teacher.spec.budget.steps, teacher.method.ema) == (7, 0.999)
    assert teacher.spec.setting == {"optimizer": "radam,clip=0.0"}
    write(monkeypatch, tmp_path, edm=EDM)
    teacher = planned().teacher
    assert (teacher.spec.budget.steps, teacher.method.ema) == (9, 0.9)
    assert teacher.spec.setting == {} and teacher.spec.changed["preset"] == "small"
    assert planned(steps=2).teacher.spec.budget.steps == 2
    assert planned(options={"width": "40"}).teacher.method.width == 40


def test_the_optimizer_that_a_user_names_is_the_students(monkeypatch, tmp_path):
    write(monkeypatch, tmp_path, lmm=LMM, edm=EDM)
    plan = planned(optimizer="radam,schedule=linear")
    assert plan.spec.setting["optimizer"] == "radam,schedule=linear"
    assert plan.teacher.spec.setting == {}
    assert planning.again(plan.spec, Setup()).spec.key == plan.spec.key


@pytest.mark.parametrize("method", ["lmm", "ctm"])
def test_every_student_has_a_teacher_with_a_recipe_of_its_own(method):
    assert set(presets.of(method)) <= set(presets.of("edm"))


def test_a_stored_run_leads_back_to_its_plan(lmm):
    for words in ({}, {"steps": 5}, {"batch": 8, "options": {"pairs": "60"}}):
        plan = planned(**words)
        assert planning.again(plan.spec, Setup()).spec.key == plan.spec.key


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[small", "no TOML"),
        ("[small]\ntitle = 'x'\n[small.run]\nstep = {value = 1, source = 's'}", "small.run.step"),
        ("[small]\ntitle = 'x'\n[small.run]\nsteps = {value = 1}", "small.run.steps.source"),
        ("[small]\ntitle = 'x'\n[small.options]\nlr = {value = 'x', source = 's'}", "small: .*lr"),
        ("[small]\ntitle = 'x'\n[small.options]\nlrr = {value = 1, source = 's'}", "mean lr"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(monkeypatch, tmp_path, text, match):
    write(monkeypatch, tmp_path, lmm=text)
    with pytest.raises(FlowbenchError, match=f"lmm.toml.*{match}"):
        planned()


def test_words_that_are_no_preset():
    for words, said in (
        (["run", "lmm", "--dataset", "digits", "--preset", "cifar11"], "did you mean cifar10?"),
        (["run", "exact", "--dataset", "mog128", "--preset", "x"], "exact has no presets"),
        (["methods", "--preset", "cifar10"], "belongs to a METHOD"),
        (["methods", "lmm", "--preset", "cifar11"], "did you mean cifar10?"),
    ):
        found = CliRunner().invoke(cli, words)
        assert found.exit_code == 2 and said in found.output


def test_a_data_set_takes_the_preset_of_its_own_name(monkeypatch, tmp_path):
    from flowbench.cli.asking import preset

    write(monkeypatch, tmp_path, lmm=LMM.replace("[small", "[digits"))
    assert preset("lmm", "digits", None, None) == "digits"
    assert preset("lmm", "digits", "none", None) is None
    assert preset("lmm", "digits", "small", None) == "small"
    assert preset("lmm", "moons", None, None) is None
    assert preset("lmm", "digits", None, tmp_path) is None  # --weights trains nothing


def test_they_are_printed_as_they_are_typed():
    text = CliRunner().invoke(cli, ["methods", "lmm", "--preset", "imagenet64"]).output
    for line in ("--network adm", "-o lr=8e-06", "-o pairs=4000000", "--steps 110000"):
        assert f"  {line}\n      LMM paper, Table 6" in text


def test_a_third_partys_file_is_found(monkeypatch, tmp_path):
    @dataclass(frozen=True)
    class Mine:
        lr: float = 1.0

    (tmp_path / "mine.toml").write_text(
        "[fast]\ntitle = 'mine'\n[fast.options]\nlr = {value = 2.0, source = 'me'}"
    )
    monkeypatch.setattr(plugins, "method_class", lambda name: Mine)
    monkeypatch.setattr(presets.inspect, "getfile", lambda cls: str(tmp_path / "mine.py"))
    assert presets.get("mine", "fast").options["lr"].value == 2.0
    Path(tmp_path / "mine.toml").unlink()
    presets.of.cache_clear()
    assert presets.of("mine") == {}
