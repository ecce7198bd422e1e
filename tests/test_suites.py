"""Suites: their files, the order of their runs, processes that die, verdicts, and the tables."""

import io
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import plain_tables
import pytest
from rich.console import Console
from suite_workers import obey

from flowbench import agenda, processes, suites, verdicts, workers
from flowbench.cli import board
from flowbench.planning import Setup
from flowbench.processes import Processes
from flowbench.records import RUN_LEVEL, FlowbenchError
from flowbench.report import suite as report
from flowbench.suites import Cell
from flowbench.training import Progress
from flowbench.workers import Status

ROOT = Path(__file__).parent.parent
HEAD = (
    '[suite]\ntitle = "T"\ndataset = "moons"\nsteps = 20\nbatch = 32\nsamples = 200\nnfe = [1, 2]\n'
)
EDM = '[[method]]\nlabel = "EDM"\nmethod = "edm"\n'
CFM = '[[method]]\nlabel = "CFM"\nmethod = "cfm"\n'
LMM = '[[method]]\nlabel = "LMM"\nmethod = "lmm"\noptions = { pairs = 64, pair_steps = 3 }\n'
TOKEN = "[token]\nsteps = 2\nbatch = 4\nsamples = 8\n"
PUBLISHED = "published = true\nvalue = 1.0\ntolerance = 0.1\n"
EXPECT = '[[expect]]\nlabel = "EDM"\nmetric = "S"\nsource = "x"\n'


def write(folder, text, name="suite.toml"):
    path = folder / name
    path.write_text(text)
    return path


def read(folder, text):
    return suites.read(write(folder, text))


def rows(path, query):
    with sqlite3.connect(path) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    "text, message",
    [
        ("[suite", "is no TOML"),
        (EDM, "suite is missing"),
        (HEAD, "method is missing"),
        (
            HEAD + "sede = 1\n" + EDM,
            "suite: sede is no key there; did you mean",
        ),
        (HEAD + EDM + "[extra]\n", "extra is no key there; there are suite, method, expect"),
        (
            HEAD + EDM + "sedes = [1]\n",
            "method 1 (EDM): sedes is no key there; did you mean seeds?",
        ),
        (HEAD + EDM + "seeds = 1\n", "method 1 (EDM): seeds takes a list such as [0, 1], not 1"),
        (HEAD + EDM + 'seeds = ["0"]\n', "method 1 (EDM): seeds takes a whole number, not '0'"),
        (HEAD + EDM + "nfe = [-1]\n", 'nfe takes whole numbers from 1, or "auto", not -1'),
        (HEAD + EDM + "steps = 0\n", "steps Input should be greater than or equal to 1, not 0"),
        (HEAD + EDM + 'datasets = ["moons"]\ndataset = "rose"\n', "dataset or datasets, not both"),
        (HEAD.replace("dataset", "# dataset") + EDM, "takes dataset or datasets (EDM has none)"),
        (HEAD + '[[method]]\nlabel = "A"\n', "method 1 (A): method is missing"),
        (HEAD + EDM + EDM, "two methods have the label 'EDM'"),
        (HEAD + EDM + EXPECT, "expect 1 (S) takes either min and max, or value and tolerance"),
        (HEAD + EDM + EXPECT + "value = 1\n", "takes value and tolerance together"),
        (HEAD + EDM + EXPECT + "max = 1\nfloors = 3\n", "takes either min and max"),
        (HEAD + EDM + EXPECT + "max = '1'\n", "expect 1 (S): max takes a number, not '1'"),
        (HEAD + EDM + EXPECT.replace('"x"', '""') + "max = 1\n", "expect 1 (S): source"),
        (HEAD + EDM + EXPECT.replace("source", "sauce") + "max = 1\n", "sauce is no key there"),
        (HEAD + EDM + EXPECT + 'labels = ["EDM"]\nmax = 1\n', "takes label or labels"),
        (HEAD + EDM + EXPECT + 'minus = "A"\ntimes_below = "B"\nmax = 1\n', "takes only one of"),
        (HEAD + EDM + EXPECT + 'minus = "EMD"\nmax = 1\n', "the label 'EMD'; there is EDM"),
        (HEAD + EDM + EXPECT + "nfe = 4\nmax = 1\n", "EDM is not sampled at nfe 4: [1, 2]"),
        (HEAD + EDM + EXPECT + 'dataset = "rose"\nmax = 1\n', "EDM does not run on rose"),
        (
            HEAD.replace('dataset = "moons"', 'datasets = ["moons", "rose"]')
            + EDM
            + EXPECT
            + "max = 1\n",
            "say which dataset",
        ),
        (HEAD + EDM + "gpu_hours = -1.0\n", "method 1 (EDM): gpu_hours Input should be greater"),
        (
            HEAD + EDM + EXPECT + "published = true\nmax = 1\n",
            "takes value and tolerance of its own",
        ),
        (
            HEAD + EDM + CFM + EXPECT + PUBLISHED + 'minus = "CFM"\n',
            "that is published takes value and tolerance of its own",
        ),
        (HEAD + EDM + 'preset = "cifar"\n', "EDM: no preset of edm called 'cifar': did you mean"),
        (HEAD + 'preset = "x"\n' + EDM + TOKEN, "EDM: no preset of edm called 'x'"),
        (HEAD + EDM + "[token]\nsteps = 2\nbatch = 4\n", "token: samples is missing"),
        (HEAD + EDM + TOKEN + "step = 2\n", "token: step is no key there; did you mean steps?"),
        (HEAD + EDM + TOKEN + "options = { edm = 3 }\n", "token: options takes a table"),
    ],
)
def test_mistakes_in_a_file_are_one_line_that_says_where(tmp_path, text, message):
    with pytest.raises(FlowbenchError) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "suite.toml") in str(caught.value)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        (EDM.replace('"edm"', '"edn"'), "EDM: no method 'edn': did you mean edm?"),
        (EDM + "options = { solver = 'hune' }\n", "EDM: option solver of edm takes"),
        (EDM + 'dataset = "mons"\n', "EDM: no data set 'mons': did you mean moons?"),
        (EDM + 'nfe = ["auto"]\n', "EDM: edm cannot sample with --nfe auto"),
        (LMM + 'teacher = "nobody"\n', "LMM: its teacher 'nobody' is neither a label nor a method"),
        (LMM + 'teacher = "LMM"\n', "its own teacher"),
    ],
)
def test_what_cannot_be_run_is_one_line_that_names_the_row(tmp_path, text, message):
    with pytest.raises(FlowbenchError) as caught:
        agenda.tasks(read(tmp_path, HEAD + text))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_rows_become_cells_and_take_from_the_head_what_they_do_not_say(tmp_path):
    head = HEAD.replace('dataset = "moons"', 'datasets = ["rose", "moons"]\nseeds = [0, 1]')
    more = 'dataset = "moons"\nseeds = [5]\nnfe = [0, 2, 2]\nsteps = 7\n'
    suite = read(tmp_path, head + EDM + CFM + more)
    cells = [(c.row.label, c.dataset, c.seed, c.row.steps, c.row.nfe) for c in suite.cells()]
    assert cells == [
        *[("EDM", "rose", seed, 20, [1, 2]) for seed in (0, 1)],
        *[("EDM", "moons", seed, 20, [1, 2]) for seed in (0, 1)],
        ("CFM", "moons", 5, 7, [0, 2]),
    ]
    assert read(tmp_path, HEAD + EDM + 'nfe = ["auto"]\n').rows[0].nfe == [0]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda p: p.stem)
def test_the_suites_that_come_along_can_be_planned(path):
    suite = suites.read(path)
    one, unready = {cell.seed for cell in suite.cells()}, []
    tasks = agenda.tasks(suite, seeds=[min(one)], unready=unready)
    assert len({task.key for task in tasks}) == len(tasks)
    rows = [entry.cell.row for entry in (*tasks, *unready)]
    assert rows and all((row.gpu_hours if unready else row.seconds) for row in rows), "no estimate"


@pytest.mark.parametrize(
    "text, message",
    [
        (EDM, "has no [token]"),
        (EDM + TOKEN + "options = { edn = { lr = 1.0 } }\n", "no label or method of [token] 'edn'"),
    ],
)
def test_a_token_that_is_none_is_one_line(tmp_path, text, message):
    with pytest.raises(FlowbenchError, match=re.escape(message)) as caught:
        suites.read(write(tmp_path, HEAD + text), token=True)
    assert "suite.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_token_words_win_over_rows_and_labels_over_methods(tmp_path):
    head = HEAD + "seeds = [3, 4]\n"
    rows = EDM + "steps = 50\nsamples = 100\noptions = { lr = 0.1, ema = 0.5 }\nseconds = 3\n"
    rows += EDM.replace('label = "EDM"', 'label = "other"') + EXPECT + "max = 1.0\n"
    more = 'network = "small"\nprecision = "fp32"\nreference_rows = 9\n'
    more += "options = { edm = { lr = 1.0 }, other = { lr = 2.0, ema = 0.1 } }\n"
    suite = suites.read(write(tmp_path, head + rows + TOKEN + more), token=True)
    first, second = suite.rows
    assert (first.steps, first.batch, first.samples, first.network) == (2, 4, 8, "small")
    assert first.options == {"lr": 1.0, "ema": 0.5} and first.seconds is None
    assert second.options == {"lr": 2.0, "ema": 0.1} and second.precision == "fp32"
    assert suite.expectations == () and suite.head.reference_rows == 9
    assert [cell.seed for cell in suite.cells()] == [3, 3]
    assert suites.read(suite.path).rows[0].steps == 50


def test_nfe_and_samples_come_from_row_then_head_then_preset(tmp_path):
    bare = HEAD.replace("nfe = [1, 2]\n", "").replace("samples = 200\n", "")
    preset = 'preset = "cifar10"\n'
    (row,) = read(tmp_path, bare + EDM + preset).rows
    assert (row.nfe, row.samples) == ([35], None), "planning takes samples from the preset"
    assert read(tmp_path, bare + CFM + preset).rows[0].nfe == [0], "auto"
    assert read(tmp_path, bare + EDM).rows[0].nfe == [1, 2, 4, 8]
    assert read(tmp_path, HEAD + EDM + preset).rows[0].nfe == [1, 2]
    row = read(tmp_path, HEAD + EDM + preset + "nfe = [3]\nsamples = 9\n").rows[0]
    assert (row.nfe, row.samples) == ([3], 9)


def test_preset_and_optimizer_of_a_row_reach_its_run(tmp_path):
    words = 'preset = "cifar10"\noptimizer = "adam,warmup=3"\naugment = "none"\n'
    words += 'network = "ddpmpp,channels=32,mult=1,blocks=1"\n'
    words += "options = { lr = 0.5 }\n"
    text = HEAD.replace("moons", "digits") + EDM + words
    (task,) = agenda.tasks(read(tmp_path, text))
    spec = task.plan.spec
    assert (spec.budget.steps, spec.budget.batch, task.plan.protocol.samples) == (20, 32, 200)
    assert spec.setting["optimizer"] == "adam,warmup=3"
    assert task.plan.method.lr == 0.5 and task.plan.method.solver == "heun"
    assert dict(spec.changed)["preset"] == "cifar10"


def test_a_published_number_is_shown_as_such(tmp_path):
    suite = read(tmp_path, HEAD + EDM + EXPECT + PUBLISHED)
    table = report.published_table(suite)
    assert [cell.words for cell in table.rows[0]] == ["EDM", "moons", "S", "", "1", "x"]
    (verdict,) = verdicts.judge(suite, {("EDM", "moons", "S", RUN_LEVEL): {0: 1.05}}, {})
    (line, _) = report.verdict_lines([verdict])
    assert "met" in line and "expected published 1 ± 0.1: 1.05" in line
    assert report.published_table(read(tmp_path, HEAD + EDM)) is None


def test_a_suite_at_token_size_runs_and_is_compared(flowbench, tmp_path):
    expect = '[[expect]]\nlabel = "LMM"\nmetric = "w2"\nnfe = 2\nmax = 0.0\nsource = "x"\n'
    text = HEAD.replace("steps = 20", "steps = 100_000") + EDM + LMM + expect + TOKEN
    path = str(write(tmp_path, text))
    code, output = flowbench("run", "--suite", path, "--token")
    assert code == 0, output
    assert f"see flowbench compare --suite {path} --token" in output
    code, output = flowbench("compare", "--suite", path, "--token", "--strict")
    assert code == 0 and "T, token size" in output and "not measured" not in output
    code, output = flowbench("compare", "--suite", path)
    assert output.count("not measured") >= 2, "runs of another size are no part of it"


def test_a_teacher_ranks_before_its_students_wherever_it_stands(tmp_path):
    reflow = (
        '[[method]]\nlabel = "{0}"\nmethod = "rect-flow"\noptions = {{ k = {1} }}\nseconds = 9\n'
    )
    text = HEAD + LMM + EDM + reflow.format("2-RF", 2) + reflow.format("1-RF", 1)
    tasks = agenda.tasks(read(tmp_path, text))
    agenda.look_up(tasks, None, False, Setup(folder=tmp_path))
    named = {task.cell.row.label: task for task in tasks}
    assert [t.cell.row.label for t in named["LMM"].teachers] == ["EDM"]
    assert [t.cell.row.label for t in named["2-RF"].teachers] == ["1-RF"]
    assert not any(task.shared for task in tasks)
    rank = agenda.priorities(tasks)
    assert rank[named["EDM"].key] > rank[named["LMM"].key]
    assert rank[named["1-RF"].key] == 18 and rank[named["2-RF"].key] == 9


def test_a_teacher_that_is_no_row_is_shared(tmp_path):
    other = LMM.replace('"LMM"', '"other"').replace("64", "65")
    tasks = agenda.tasks(read(tmp_path, HEAD + LMM + other))
    agenda.look_up(tasks, None, False, Setup(folder=tmp_path))
    assert tasks[0].shared == tasks[1].shared != set()
    (name,) = tasks[0].shared
    (tmp_path / name).mkdir()
    (tmp_path / name / "network.safetensors").write_text("")
    agenda.look_up(tasks, None, False, Setup(folder=tmp_path))
    assert not tasks[0].shared


def test_cells_that_only_sample_in_another_way_train_one_network(flowbench, database, tmp_path):
    more = (
        'label = "{0}"\nmethod = "lmm"\nnfe = [3]\noptions = {{ pairs = 64, pair_steps = 3{1} }}\n'
    )
    text = "".join(
        "[[method]]\n" + more.format(label, words)
        for label, words in (
            ("first", ', sampler = "paper"'),
            ("second", ', sampler = "paper", indices = [0, 1, 2]'),
            ("line", ""),
        )
    )
    path = write(tmp_path, HEAD + EDM + text)
    edm, first, second, line = agenda.tasks(suites.read(path))
    agenda.look_up([edm, first, second], None, False, Setup(folder=tmp_path / "runs"))
    assert first.shared == second.shared == {line.plan.spec.name}
    agenda.look_up([edm, first, second, line], None, False, Setup(folder=tmp_path / "runs"))
    assert first.teachers == [line, edm] and first.shared == set()
    assert flowbench("run", "--suite", str(path), "--quiet") == (0, "")
    networks = {p.parent.name for p in (tmp_path / "runs").glob("*/network.safetensors")}
    assert networks == {edm.plan.spec.name, line.plan.spec.name}
    score = "select value from scores join attempts on attempts.id = attempt_id join runs on "
    score += "runs.id = run_id where scores.name = 'w2' and nfe = 3 and subject = 'model'"
    assert len(set(rows(database, score))) == 3, "they sample in three ways"


def test_a_label_may_be_a_teacher(tmp_path):
    small = EDM.replace("EDM", "small") + "options = { width = 16 }\n"
    tasks = agenda.tasks(read(tmp_path, HEAD + small + LMM + 'teacher = "small"\n'))
    assert tasks[1].plan.teacher.spec == tasks[0].plan.spec


def task(name, *teachers, seconds=None, shared=(), key=None):
    """A task that nothing was planned for."""
    row = SimpleNamespace(label=name, seconds=seconds)
    spec = SimpleNamespace(key=key or name, name=name)
    plan = SimpleNamespace(spec=spec, teacher=None, trained=None)
    cell = Cell(row, "moons", 0)
    return agenda.Task(cell, None, plan, set(), 1, "", list(teachers), set(shared), seconds)


def test_the_span_of_tasks_is_that_of_the_best_order():
    first = task("a", seconds=5)
    found = [task("x", seconds=4), task("y", seconds=4), first, task("b", first, seconds=5)]
    assert agenda.span(found, 1) == 18
    assert agenda.span(found, 2) == 10, "the chain goes first, or it would be 14"


@pytest.fixture(scope="module")
def context():
    with processes.context(1) as found:
        yield found


@pytest.fixture
def crew(context, tmp_path):
    """Run tasks whose ends are given by name: (statuses by name, lines of the log, notes)."""

    def run(tasks, jobs=2, made=lambda name: False, meet=(), **ends):
        log, notes = tmp_path / "log", []

        def job(task):
            name = task.plan.spec.name
            words = {"log": str(log), "name": name, "steps": 3, "end": ends.get(name, "")}
            return words | {
                "meet": next((other for other in meet if name in meet and other != name), "")
            }

        statuses = [Status(each) for each in tasks]
        watch = lambda status, note: notes.append(note)  # noqa: E731
        workers.Crew(Processes(context, obey), job, jobs, watch, made).run(statuses)
        found = {status.task.plan.spec.name: status for status in statuses}
        return found, log.read_text().splitlines(), notes

    return run


def overlap(lines, one, other):
    """Whether two jobs ran at the same time."""
    span = {
        name: (lines.index(f"begin {name}"), lines.index(f"end {name}")) for name in (one, other)
    }
    return max(begin for begin, _ in span.values()) < min(end for _, end in span.values())


def test_students_wait_for_teachers_and_others_do_not(crew):
    teacher = task("teacher")
    tasks = [task("student", teacher), task("alone"), teacher]
    found, lines, notes = crew(tasks, meet=("teacher", "alone"))
    assert {status.word for status in found.values()} == {"done"}
    assert lines.index("end teacher") < lines.index("begin student")
    assert "a note" in notes and found["alone"].progress.step == 3


def test_runs_that_would_make_the_same_teacher_are_not_started_together(crew):
    tasks = [task("a", shared=["t"]), task("b", shared=["t"]), task("c")]
    found, lines, _ = crew(tasks, meet=("a", "c"))
    assert not overlap(lines, "a", "b") and found["a"].word == "done"


def test_once_the_shared_teacher_is_there_they_are(crew):
    tasks = [task("a", shared=["t"]), task("b", shared=["t"])]
    found = crew(tasks, made=lambda name: True, meet=("a", "b"))[0]
    assert {status.failure for status in found.values()} == {""}


def test_two_rows_of_one_run_take_turns(crew):
    lines = crew([task("a", key="same"), task("b", key="same")])[1]
    assert not overlap(lines, "a", "b")


def test_workers_have_the_environment_of_now_and_not_of_when_their_server_began(crew, monkeypatch):
    crew([task("early")])
    monkeypatch.setenv("FLOWBENCH_PLUGINS", "late.py")
    _, lines, _ = crew([task("late")])
    assert lines[-1] == "end late late.py"


def test_a_cell_that_dies_is_one_failure_and_the_others_go_on(crew):
    killed, fine = task("kill"), task("fine")
    tasks = [killed, task("exit"), task("raise"), task("wrong"), task("says"), fine]
    tasks.append(task("student", killed))
    ends = {name: name for name in ("kill", "exit", "raise", "wrong")} | {"says": "it says so"}
    found, lines, _ = crew(tasks, **ends)
    assert {name: status.failure for name, status in found.items()} == {
        "kill": "its process was killed by SIGKILL, perhaps for want of memory",
        "exit": "its process ended with exit code 7",
        "raise": "RuntimeError: out of luck",
        "wrong": "wrong words",
        "says": "it says so",
        "fine": "",
        "student": "its teacher failed: kill on moons, seed 0",
    }
    assert found["fine"].word == "done" and "begin student" not in lines


def test_an_interruption_ends_the_workers(context, tmp_path):
    pressed: list[str] = []

    def watch(status, note):
        if status.progress is not None and not pressed:
            pressed.append("Ctrl-C")
            raise KeyboardInterrupt

    job = {"log": str(tmp_path / "log"), "name": "a", "steps": 1000}
    status = Status(task("a"))
    with pytest.raises(KeyboardInterrupt):
        workers.Crew(Processes(context, obey), lambda task: job, 1, watch).run([status])
    assert status.word == "interrupted"
    assert (tmp_path / "log").read_text() == "begin a\n", "it went on to its end"


VALUES = {
    ("A", "moons", "S", RUN_LEVEL): {0: 1.0, 1: 1.2},
    ("B", "moons", "S", RUN_LEVEL): {0: 0.1, 1: 0.1},
    ("A", "moons", "w2", 1): {0: 3.0, 1: math.nan},
    ("B", "moons", "w2", 1): {0: 3.0},
    ("A", "moons", "fd", 1): {0: 2.9, 1: 3.1},
    ("B", "moons", "fd", 1): {0: 0.0, 1: 0.1},
}


@pytest.mark.parametrize(
    "words, verdict",
    [
        ('label = "A"\nmetric = "S"\nmax = 1.3', "met"),
        ('label = "A"\nmetric = "S"\nmin = 1.0\nmax = 1.2', "met"),  # bounds belong to it
        ('label = "A"\nmetric = "S"\nmax = 1.1', "missed"),  # by one seed
        ('label = "A"\nmetric = "S"\nmax = 1.15\neach = false', "met"),  # by the mean
        ('label = "A"\nmetric = "S"\nmax = 1.05\neach = false', "missed"),
        ('label = "A"\nmetric = "S"\nvalue = 1.1\ntolerance = 0.11', "met"),
        ('label = "A"\nmetric = "S"\nvalue = 1.1\ntolerance = 0.09', "missed"),
        ('label = "A"\nmetric = "S"\nminus = "B"\nmin = 0.85\nmax = 1.15', "met"),
        ('label = "B"\nmetric = "S"\nminus = "A"\nmin = 0.85\nmax = 1.15', "missed"),  # the sign
        ('label = "B"\nmetric = "S"\ntimes_below = "A"\nmin = 10', "met"),
        ('label = "A"\nmetric = "S"\ntimes_below = "B"\nmin = 10', "missed"),  # upside down
        ('label = "A"\nmetric = "w2"\nnfe = 1\nmax = 1e9', "missed"),  # NaN is measured
        ('label = "B"\nmetric = "w2"\nnfe = 1\nmax = 4', "not measured"),  # one seed is missing
        ('label = "B"\nmetric = "w2"\nnfe = 1\nmax = 2', "missed"),  # whatever the other will be
        ('label = "B"\nmetric = "w2"\nnfe = 1\nmax = 2\neach = false', "not measured"),
        ('label = "B"\nmetric = "w2"\nnfe = 2\nmax = 2', "not measured"),
        ('label = "B"\nmetric = "w2"\nnfe = 1\nminus = "A"\nmax = 2', "not measured"),
        ('label = "A"\nmetric = "w2"\nmax = 9', "not measured"),  # at no NFE there is none
        ('label = "A"\nmetric = "fd"\nnfe = 1\nfloors = 3.2', "met"),
        ('label = "A"\nmetric = "fd"\nnfe = 1\nfloors = 3', "missed"),
        ('label = "A"\nmetric = "S"\nfloors = 3', "not measured"),  # no floor
        ('label = "B"\nmetric = "fd"\nnfe = 1\ntimes_below = "A"\nmin = 10', "met"),  # over zero
    ],
)
def test_verdicts(tmp_path, words, verdict):
    methods = "".join(CFM.replace("CFM", label) + "seeds = [0, 1]\n" for label in "AB")
    suite = read(tmp_path, HEAD + methods + f'[[expect]]\nsource = "x"\n{words}\n')
    (found,) = verdicts.judge(suite, VALUES, {("moons", "fd"): 1.0})
    assert found.word == verdict
    assert found.seeds == 2


def test_one_expectation_of_several_labels_is_one_of_each(tmp_path):
    words = '[[expect]]\nlabels = ["A", "B"]\nmetric = "S"\nmax = 1.3\nsource = "x"\n'
    suite = read(tmp_path, HEAD + CFM.replace("CFM", "A") + CFM.replace("CFM", "B") + words)
    found = verdicts.judge(suite, VALUES, {})
    assert [(v.expectation.label, v.word, v.measured) for v in found] == [
        ("A", "met", {0: 1.0}),
        ("B", "met", {0: 0.1}),
    ]


def statuses():
    """One of each kind."""
    teacher = task("EDM", seconds=60)
    found = [
        Status(teacher, "running", Progress("train", 30, 100, seconds_left=45), time.monotonic()),
        Status(task("LMM", teacher, seconds=30)),
        Status(task("CFM", seconds=10), "done", begun=1.0, ended=13.0),
        Status(task("2-RF", seconds=10), "failed", failure="out of luck"),
    ]
    return found


def test_the_live_table_shows_every_state_and_the_time_left():
    progresses = board.Progresses(statuses(), 2)
    console = Console(width=100, file=io.StringIO())
    console.print(board.table(progresses))
    text = console.file.getvalue()
    for words in ("train 30% ETA 60 s", "waiting", "done 12 s", "failed", "seed 0"):
        assert words in text
    assert "1 waiting, 1 running, 1 done, 1 failed" in text
    assert "ETA 90 s" in text, "the student begins when its teacher has ended"


def test_a_table_that_is_too_high_leaves_out_what_is_done():
    console = Console(width=100, file=io.StringIO())
    console.print(board.table(board.Progresses(statuses(), 2), height=3))
    text = console.file.getvalue()
    assert "EDM" in text and "LMM" in text and "2-RF" in text and "CFM" not in text


def test_without_an_estimate_the_time_left_is_that_of_rows_that_have_ended():
    ended = Status(task("A"), "done", begun=1.0, ended=21.0)
    waiting, other = Status(task("A")), Status(task("B"))
    progresses = board.Progresses([ended, waiting, other], 1)
    assert progresses.left(waiting) == 20 and progresses.left(other) is None
    assert progresses.total() == ""
    assert board.Progresses([ended, waiting], 1).total() == "ETA 20 s"


PLUGIN = '''"""Two methods that fail."""

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from flowbench import hookimpl, nets, solvers, training


@dataclass(frozen=True)
class Failing:
    """Fails or dies unless a file is there."""

    place: str = ""  # of the file
    how: str = "raise"  # or kill

    @hookimpl
    def train(self, data, run):
        if not Path(self.place).exists():
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("out of luck")
        net = nets.default(data)
        return training.fit(net, lambda x, y: net(x, x[:, 0], y).square().mean(), data.train, run)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        return solvers.euler(network, noise, labels, nfe)
'''


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Rows of a method that fails until a file is made, and the file."""
    site, mended = tmp_path / "site", tmp_path / "mended"
    (site / "failing-1.0.dist-info").mkdir(parents=True)
    (site / "failing.py").write_text(PLUGIN)
    (site / "failing-1.0.dist-info/METADATA").write_text("Name: failing\nVersion: 1.0\n")
    (site / "failing-1.0.dist-info/entry_points.txt").write_text(
        "[flowbench.methods]\nfailing = failing:Failing\n"
    )
    monkeypatch.syspath_prepend(site)
    text = ""
    for how in ("raise", "kill"):
        options = f'{{ place = "{mended}", how = "{how}" }}'
        text += f'[[method]]\nlabel = "{how}"\nmethod = "failing"\noptions = {options}\n'
    return text, mended


def test_a_suite_from_its_plan_to_its_verdicts(flowbench, failing, database, tmp_path):
    text, mended = failing
    expect = (
        '[[expect]]\nlabel = "EDM"\nmetric = "S"\nmax = 0.001\nsource = "a bound too low"\n'
        '[[expect]]\nlabel = "LMM"\nmetric = "w2"\nnfe = 2\nfloors = 50\nsource = "easy"\n'
        '[[expect]]\nlabel = "raise"\nmetric = "w2"\nnfe = 2\nmax = 1e9\nsource = "none"\n'
    )
    head = HEAD + 'columns = ["w2", "S"]\n'
    path = str(write(tmp_path, head + LMM + EDM + text + expect))
    before = sorted(tmp_path.rglob("*"))
    code, output = flowbench("run", "--suite", path, "--dry-run")
    assert code == 0 and output.count("new") == 4 and "4 runs of which nothing is known" in output
    assert sorted(tmp_path.rglob("*")) == before, "a dry run writes nothing"

    code, output = flowbench("run", "--suite", path, "--jobs", "2")
    assert code == 3 and "Traceback" not in output
    assert "2 of 4 runs failed" in output
    assert "failed raise on moons, seed 0: failing.py:" in output
    assert "RuntimeError: out of luck (traceback in" in output
    assert "kill on moons, seed 0: its process was killed by SIGKILL" in output
    assert output.index("done EDM") < output.index("start LMM"), "the teacher is a run of its own"
    query = "select method, outcome from attempts join runs on runs.id = run_id order by 1, 2"
    ours = [("edm", "ok"), ("lmm", "ok")]
    assert rows(database, query) == [
        ours[0],
        ("failing", "failed"),
        *[("failing", "lost")] * 2,  # --retries 1
        ours[1],
    ]

    other = ["--dataset", "moons", "--steps", "5", "--batch", "32", "--samples", "200"]
    assert flowbench("run", "edm", *other, "--nfe", "1,4", "--quiet")[0] == 0
    code, output = flowbench("compare", "--suite", path)
    assert code == 0
    assert [output.count(word) for word in ("w2 @ 1", "w2 @ 2", "@ 4")] == [1, 1, 0]
    lines = plain_tables.rows(output)[:5]
    assert [line[0].split()[0] for line in lines] == ["LMM", "EDM", "raise", "kill", "floor"]
    assert lines[2].count("not measured") == 2 and lines[1].count("not measured") == 0
    assert "missed        S of EDM, expected at most 0.001: 0." in output
    assert "met           w2 of LMM @ 2 over its floor, expected at most 50: " in output
    assert "not measured  w2 of raise @ 2, expected at most 1e+09  [none]" in output
    assert "1 met, 1 missed, 1 not measured" in output
    assert "raise, seed 0 (moons-failing-s0-" in output and "failed: RuntimeError" in output
    code, output = flowbench("compare", "--suite", path, "--strict", "--format", "md")
    assert code == 3 and "| S of EDM | at most 0.001 | missed |" in output
    code, output = flowbench("compare", "--suite", path, "--metric", "S")
    assert "w2 @" not in output.partition("missed")[0]

    mended.write_text("")
    code, output = flowbench("run", "--suite", path, "--dry-run")
    assert output.count("cached") == 2 and "2 of 4 runs to do" in output
    code, output = flowbench("run", "--suite", path)
    assert code == 0 and "all 4 runs are there" in output
    assert "start EDM" not in output and "start LMM" not in output
    assert flowbench("run", "--suite", path, "--quiet") == (0, "")


@pytest.mark.parametrize(
    "words, message",
    [
        (["run", "cfm"], "instead of giving METHOD"),
        (["run", "-o", "lr=1"], "instead of giving --option"),
        (["run", "--nfe", "1"], "instead of giving --nfe"),
        (["run", "--seed", "7"], "has no seed 7: it has 0"),
        (["run", "--dataset", "rose"], "has no dataset rose: it has moons"),
        (["compare", "cfm"], "--suite says what to compare"),
        (["compare"], "run `flowbench run ...` first"),
    ],
)
def test_words_that_go_against_the_file_are_one_line(flowbench, database, tmp_path, words, message):
    path = write(tmp_path, HEAD + EDM)
    code, output = flowbench(*words, "--suite", str(path))
    assert code == 2 and message in output and "Traceback" not in output
    assert not database.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        ("run --suite /no/such.toml", "the suite /no/such.toml cannot be read"),
        ("run cfm --dataset moons --token", "belong to --suite"),
        ("run cfm --dataset moons --jobs 2", "belong to --suite"),
        ("run cfm", "Missing option '--dataset'"),
        ("run --dataset moons", "Missing argument 'METHOD'"),
        ("compare --strict", "--strict belongs to --suite"),
    ],
)
def test_words_that_need_a_suite_or_a_method(flowbench, words, message):
    code, output = flowbench(*words.split())
    assert code == 2 and message in output


def start(folder):
    """Start a suite of four runs in a process of its own."""
    folder.mkdir(exist_ok=True)
    head = HEAD.replace("steps = 20", "seeds = [0, 1]\nsteps = 400")
    path = write(folder, head + EDM + LMM)
    words = ["run", "--suite", str(path), "--checkpoint-every", "0.2", "--jobs", "2"]
    environment = os.environ | {"FLOWBENCH_DB": str(folder / "results.db")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-m", "flowbench", *words]
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def finish(folder):
    """Every score but times and memory, after the suite has ended well."""
    process = start(folder)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    query = """select key, scores.name, nfe, subject, value from scores
        join attempts on attempts.id = attempt_id join runs on runs.id = run_id
        where scores.name not like '%seconds%'
        and scores.name not in ('ms-per-sample', 'peak-mib')"""
    return sorted(rows(folder / "results.db", query))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_suite_goes_on_to_the_same_numbers(tmp_path, number, undisturbed):
    process = start(tmp_path)
    while len(list((tmp_path / "runs").glob("moons-edm-*/train.pt"))) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == (4 if number == signal.SIGTERM else -number), output
    outcomes, deadline = "select outcome from attempts", time.monotonic() + 60
    while ("running",) in rows(tmp_path / "results.db", outcomes):  # orphans notice by themselves
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert set(rows(tmp_path / "results.db", outcomes)) == {("interrupted",)}
    assert finish(tmp_path) == undisturbed


def test_scores_of_another_protocol_have_no_part_in_a_suite(flowbench, tmp_path):
    """The same run with another number of samples or another noise stream."""
    text = HEAD.replace("nfe = [1, 2]", "nfe = [2]") + EDM
    plain, other = write(tmp_path, text), write(tmp_path, text + "\n", "other.toml")
    other.write_text(text.replace("samples = 200", "samples = 150\nsample_seed = 5"))
    assert flowbench("run", "--suite", str(plain), "--quiet")[0] == 0
    code, output = flowbench("compare", "--suite", str(other), "--metric", "w2", "--format", "md")
    assert code == 0 and "not measured" in output and "1 of 1 runs are not measured" in output
    assert flowbench("run", "--suite", str(other), "--quiet")[0] == 0

    def row(path):
        words = ("compare", "--suite", str(path), "--metric", "w2", "--format", "md")
        return next(line for line in flowbench(*words)[1].splitlines() if "| EDM" in line)

    assert row(plain) != row(other) and "not measured" not in row(plain) + row(other)


def test_a_teacher_may_have_a_teacher_that_the_file_chooses(tmp_path):
    """C learns from B, which learns from A, although B's own choice would be another."""
    text = HEAD + EDM.replace("EDM", "A") + "steps = 10\n"
    text += LMM.replace("LMM", "B") + 'teacher = "A"\n'
    text += '[[method]]\nlabel = "C"\nmethod = "rect-flow"\nteacher = "B"\n'
    text += 'options = { pairs = 64, pair_steps = 2, start = "random" }\n'
    a, b, c = agenda.tasks(read(tmp_path, text))
    assert [plan.spec.key for plan in c.ancestors()] == [b.key, a.key]
    assert b.plan.teacher.spec.budget.steps == 10


def test_an_expectation_that_could_never_be_judged_is_refused(tmp_path):
    two = 'datasets = ["rose"]\n'
    expect = '[[expect]]\nlabel = "EDM"\nmetric = "S"\nminus = "CFM"\nmax = 0.0\nsource = "x"\n'
    with pytest.raises(FlowbenchError, match="does not run on moons"):
        read(tmp_path, HEAD + EDM + CFM + two + expect)
    with pytest.raises(FlowbenchError, match="CFM lacks seeds of EDM"):
        read(tmp_path, HEAD + EDM + CFM + "seeds = [1]\n" + expect)
    read(tmp_path, HEAD + EDM + CFM + expect)


def test_the_folder_of_runs_is_made_when_it_is_named(flowbench, tmp_path):
    path = write(tmp_path, HEAD.replace("steps = 20", "steps = 2") + EDM)
    assert (
        flowbench("run", "--suite", str(path), "--quiet", "--runs", str(tmp_path / "a/b"))[0] == 0
    )
    assert list((tmp_path / "a/b").iterdir())
