"""A run that fails or is slow is looked into: smoke runs, the debugger, profiles, errors."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from failing_method import line_of, write
from picture_files import images, write_folder

from flowbench import blame, plugins, smoke
from flowbench.cli import debugger, profile
from flowbench.planning import Request, Setup
from flowbench.profiling import Operator, Profile
from flowbench.records import Budget, FlowbenchError, RunFailed, Spec

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

SMALL = ["--dataset", "moons", "--steps", "20", "--batch", "32", "--samples", "50", "--nfe", "1"]
SPEC = Spec("cfm", "moons", 0, Budget(1, 1))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    return write(tmp_path, monkeypatch)


@pytest.fixture
def thrown(tmp_path, monkeypatch):
    """The folder in which throw-away folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def rows(path, query):
    with sqlite3.connect(path) as connection:
        return connection.execute(query).fetchall()


def test_a_smoke_run_prints_a_table_and_keeps_nothing(flowbench, database, tmp_path, thrown):
    code, output = flowbench("run", "lmm", "--dataset", "moons", "--smoke")
    assert code == 0, output
    assert "smoke: 20 steps of 16, 64 samples at NFE 1, 2, on cpu" in output
    assert "pairs=32" in output and "teacher edm alike" in output
    assert "floor (n = 64)" in output and "nothing of it was kept" in output
    assert not database.exists() and not (tmp_path / "runs").exists()
    assert list(thrown.glob("flowbench*")) == []


def test_a_smoke_run_that_fails_leaves_its_log_where_it_says(flowbench, mine, database, thrown):
    code, output = flowbench("run", "mine", "--dataset", "moons", "--smoke", "-o", "wrong=train")
    assert code == 3 and not database.exists()
    (log,) = re.findall(r"traceback in (\S+)\)", output)
    assert log.startswith(str(thrown)) and "ZeroDivisionError" in Path(log).read_text()


def test_the_size_of_a_smoke_run_is_small_unless_the_user_says_other():
    plan = smoke.plan(Request("cfm", "digits"), Setup())
    assert (plan.spec.budget.steps, plan.spec.budget.batch) == (20, 16)
    assert (plan.protocol.samples, plan.protocol.reference_rows, plan.nfe) == (64, 64, (1, 2))
    said = Request("cfm", "digits", steps=3, batch=5, samples=7, nfe=(4,))
    plan = smoke.plan(said, Setup())
    assert (plan.spec.budget.steps, plan.spec.budget.batch) == (3, 5)
    assert (plan.protocol.samples, plan.nfe) == (7, (4,))


@pytest.mark.parametrize(
    "method, options, nfe",
    [
        ("lfm", {}, (4, 5)),
        ("cfm", {"solver": "dopri5"}, (0,)),
        ("ctm", {"levels": "1.382,0.5"}, (1, 3)),
    ],
)
def test_a_smoke_run_samples_with_what_its_method_takes(method, options, nfe):
    assert smoke.plan(Request(method, "moons", options=options), Setup()).nfe == nfe


def test_few_pairs_are_left_out_where_a_method_refuses_them():
    few = smoke.plan(Request("rect-flow", "moons"), Setup())
    assert few.spec.options["pairs"] == 32 and few.spec.options["pair_steps"] == 4
    none = smoke.plan(Request("rect-flow", "moons", options={"k": "1"}), Setup())
    assert none.spec.options["pairs"] is None
    said = smoke.plan(Request("rect-flow", "moons", options={"pairs": "99"}), Setup())
    assert said.spec.options["pairs"] == 99


@pytest.fixture
def pictures(tmp_path):
    """A folder of 32x32 images, which get a large backbone."""
    folder = tmp_path / "pictures"
    write_folder(folder, images(12, 32), [""] * 12)
    return folder


@pytest.mark.parametrize(
    "word, channels, blocks",
    [(None, 8, 1), ("ddpmpp,channels=16", 16, 1), ("adm,blocks=2", 8, 2), ("openai", 32, 1)],
)
def test_a_large_backbone_becomes_tiny_but_for_what_was_said(pictures, word, channels, blocks):
    request = Request("lmm", str(pictures), network=word)
    plan = smoke.plan(request, Setup(data_root=pictures.parent))
    assert (plan.data.network.channels, plan.data.network.blocks) == (channels, blocks)
    assert plan.teacher.data.network.channels == channels
    assert plan.spec.budget.batch == 8 and plan.protocol.samples == 16


def test_a_smoke_run_takes_no_earlier_run_as_teacher():
    with pytest.raises(FlowbenchError, match="--smoke trains a teacher of its own"):
        smoke.plan(Request("lmm", "moons", teacher=SPEC), Setup())


@pytest.mark.parametrize(
    "words, message",
    [
        ("--suite x.toml --smoke", "--smoke is for one METHOD; of a suite: --token"),
        ("--suite x.toml --pdb", "--pdb is for one METHOD"),
        ("--suite x.toml --profile", "--profile is for one METHOD"),
        ("--suite x.toml --explain", "--explain is for one METHOD"),
        ("cfm --dataset moons --smoke --dry-run", "leave out --smoke"),
        ("cfm --dataset moons --explain --pdb", "leave out --smoke, --pdb and --profile"),
        ("cfm --dataset moons --dry-run --force", "there is nothing to explain"),
        ("cfm --dataset moons --smoke --profile", "leave --smoke out"),
        ("cfm --dataset moons --track nobody", "no observer 'nobody'"),
        ("cfm --dataset moons --smoke --steps 0", "0 is not in the range"),
        ("cfm --smoke", "Missing option '--dataset'"),
        ("--smoke --dataset moons", "Missing argument 'METHOD'"),
    ],
)
def test_words_that_do_not_go_together_are_one_line(flowbench, database, words, message):
    code, output = flowbench("run", *words.split())
    assert code == 2 and message in output and "Traceback" not in output
    assert len([line for line in output.splitlines() if line.startswith("Error")]) == 1
    assert not database.exists()


def test_the_debugger_begins_in_the_frame_of_the_plugin(mine, tmp_path):
    words = [sys.executable, "-m", "flowbench", "run", "mine", *SMALL, "-o", "wrong=library"]
    typed = "p self.wrong, len(x)\ndown\nup\nup\nw\nc\n"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, "--pdb"], input=typed, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 3
    assert f"my_method.py({line_of('linalg.inv')})loss()" in done.stdout
    assert "('library', 32)" in done.stdout
    assert "fitting.py" in done.stdout, "the frames around it are there"
    assert done.stderr.splitlines()[-1].startswith("Error: mine")


def test_the_debugger_is_left_out_where_nobody_types(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    debugger.examine(ValueError("x"), object())
    assert "there is nobody to type" in capsys.readouterr().err


def test_a_profile_shows_operators_and_changes_no_number(flowbench, database, tmp_path):
    query = (
        "select name, nfe, value from scores where name not like '%seconds%' and name not in"
        " ('ms-per-sample', 'peak-mib') order by name, nfe"
    )
    assert flowbench("run", "lmm", *SMALL, "-o", "pairs=64", "-o", "pair_steps=3")[0] == 0
    plain = rows(database, query)
    database.rename(tmp_path / "other.db")
    (tmp_path / "runs").rename(tmp_path / "other")
    code, output = flowbench(
        *("run", "lmm", *SMALL, "-o", "pairs=64", "-o", "pair_steps=3", "--profile")
    )
    assert code == 0, output
    assert rows(database, query) == plain and len(plain) > 8
    assert "steps of 32 rows, stage lines" in output and "50 samples at NFE 1" in output
    assert "aten::addmm" in output
    traces = re.findall(r"chrome://tracing: (\S+)", output)
    assert len(traces) == 2
    for trace in traces:
        assert trace.startswith(str(tmp_path / "runs"))
        events = json.loads(Path(trace).read_text())["traceEvents"]
        assert any(event.get("name") == "aten::addmm" for event in events)


def test_the_table_of_a_profile_adds_up(tmp_path):
    operators = (Operator("aten::mm", 3, 0.75, 2**21), Operator("x" * 60, 1, 0.25, 0))
    head, _, first, second, trace, _ = profile.table(Profile("2 steps", operators, tmp_path))
    assert head == "2 steps: 1 s in operators"
    assert first.split() == ["aten::mm", "3", "750", "ms", "75%", "2.0", "MiB"]
    assert "x..." in second and str(tmp_path) in trace


def test_a_method_that_cannot_be_profiled_fails_as_it_would(flowbench, mine):
    code, output = flowbench("run", "mine", *SMALL, "-o", "wrong=sample", "--profile")
    place = f"my_method.py:{line_of('raise ValueError')} in sample"
    assert code == 3 and f"--profile: {place}" in output and "Traceback" not in output


def test_an_error_names_the_plugin_s_own_line(flowbench, mine, tmp_path):
    code, output = flowbench("run", "mine", *SMALL, "-o", "wrong=train")
    place = f"my_method.py:{line_of('return 1 / 0')} in zero: return 1 / 0"
    assert code == 3
    assert f"{place}: ZeroDivisionError: division by zero (traceback in {tmp_path}" in output
    log = next((tmp_path / "runs").glob("*.error.log")).read_text()
    assert "in zero" in log and "fitting.py" in log
    code, output = flowbench("run", "mine", *SMALL, "-o", "wrong=library")
    assert f"my_method.py:{line_of('linalg.inv')} in loss: torch.linalg.inv" in output


def test_what_a_terminal_would_obey_is_made_visible(flowbench, mine):
    code, output = flowbench("run", "mine", *SMALL, "-o", "wrong=sample")
    assert code == 3 and "ValueError: bad?[31m news in two lines (traceback" in output
    assert "\x1b" not in output


def test_memory_that_runs_out_is_recorded_with_what_to_type(flowbench, mine, database):
    code, output = flowbench("run", "mine", *SMALL, "-o", "wrong=memory")
    place = f"my_method.py:{line_of('OutOfMemoryError')} in train"
    said = f"out of memory: {place}: CUDA out of memory; give a smaller --batch than 32"
    assert code == 3 and said in output
    ((outcome, text),) = rows(database, "select outcome, error_text from attempts")
    assert outcome == "failed" and text.startswith(said)


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_is_told_from_other_errors(error, expected):
    assert blame.is_memory(error) is expected
    plan = smoke.plan(Request("cfm", "moons"), Setup())
    with pytest.raises(RunFailed if expected else type(error)), blame.memory(plan):
        raise error


class Elsewhere:
    """Stands for a method whose code has no part in an error."""


def caught(work):
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("no error")


def test_an_error_without_the_plugin_is_flowbench_s_or_the_innermost():
    ours = caught(lambda: smoke.plan(Request("nobody", "moons"), Setup()))
    method = plugins.method("cfm", {})
    assert re.match(r"plugins\.py:\d+ in find: raise FlowbenchError", blame.line(ours, method))
    other = caught(lambda: json.loads("{"))
    assert blame.line(other, method).startswith("decoder.py:"), "nobody's: the innermost"
    assert "test_debugging.py" in blame.line(other, Elsewhere())


def test_the_code_of_a_package_is_all_its_files(tmp_path, monkeypatch):
    package = tmp_path / "some_package" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package.parent / "losses.py").write_text("def fail():\n    raise KeyError('k')\n")
    (package / "method.py").write_text(
        "from some_package import losses\n"
        "class Method:\n    def train(self):\n        losses.fail()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from some_package.inner.method import Method

    error = caught(Method().train)
    assert blame.line(error, Method()) == "losses.py:2 in fail: raise KeyError('k'): KeyError: 'k'"


def test_an_error_that_cannot_be_printed_is_still_a_line():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    assert blame.line(Mute(), Elsewhere()) == "Mute: (it cannot say what is wrong)"
    assert len(blame.line(ValueError("x" * 5000), Elsewhere())) < 400
