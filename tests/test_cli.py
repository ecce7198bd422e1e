"""The command line: light to start, clear in its mistakes, never doing work twice."""

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys

import pytest
from small_runs import failing

from flowbench import plugins
from flowbench.records import Diverged, Score
from flowbench.store import Store

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

SMALL = ["--steps", "20", "--batch", "32", "--samples", "200", "--nfe", "1,2"]


def rows(path, query):
    with sqlite3.connect(path) as connection:
        return connection.execute(query).fetchall()


def start(*words):
    """Start the command in a process of its own, with a note of what it imported."""
    code = (
        "import sys\nfrom flowbench.cli import main\nsys.argv[0] = 'flowbench'\n"
        "try: main()\nexcept SystemExit as end: assert end.code in (0, None), end\n"
        "heavy = {'torch', 'sqlalchemy', 'rich', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)


@pytest.mark.parametrize("words", ["--help", "run --help", "methods", "datasets", "--version"])
def test_light_commands_import_nothing_heavy(words):
    done = start(*words.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_completion_imports_nothing_heavy(monkeypatch):
    for words, expected in [
        ("flowbench run l", "lmm"),
        ("flowbench run lmm --dataset mog", "mog128"),
    ]:
        monkeypatch.setenv("_FLOWBENCH_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        code = (
            "import sys\nfrom flowbench.cli import cli\n"
            "try: cli(prog_name='flowbench')\nexcept SystemExit: pass\n"
            "assert 'torch' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_the_light_check_would_notice_torch():
    assert "torch" in start("methods", "edm").stderr


@pytest.mark.parametrize(
    "words, message",
    [
        ("run lmn --dataset digits", "did you mean lmm?"),
        ("run lfm --dataset moons -o times=inf,1", "must be finite"),
        ("run zzz --dataset digits", "there are bot-cfm, cfm, ctm, edm, exact,"),
        (
            "run lmm --dataset moons -o norn=l1",
            "no option of lmm called 'norn': did you mean norm?",
        ),
        (
            "run lmm --dataset moons -o norm=l3",
            "takes squared | l2 | l1 | lpips | johnson, not 'l3'",
        ),
        ("run lmm --dataset moons -o lr=fast", "option lr of lmm takes float, not 'fast'"),
        ("run lmm --dataset moons -o lr=nan", "must be finite"),
        ("run lmm --dataset moons -o pairs=1.5", "option pairs of lmm takes int or none"),
        ("run lmm --dataset moons -o sot=0.5", "add -o sampler=paper"),
        ("run lmm --dataset moons -o sot=2", "are shares of the steps"),
        ("run lmm --dataset moons -o lr", "takes name=value"),
        ("run lmm --dataset moons -o lr=1 -o lr=2", "given twice"),
        ("run lmm --dataset moons -o sampler=paper", "cannot sample with --nfe 8"),
        ("run lmm --dataset moons --nfe auto", "no adaptive solver"),
        ("run cfm --dataset moons -o solver=dopri5", "only --nfe auto"),
        ("run cfm --dataset moons --teacher edm", "takes no --teacher"),
        ("run lmm --dataset moons --teacher nobody", "no method, no file and no run"),
        ("run cfm --dataset moons --nfe 0", "is no whole number from 1 to 10000 or auto"),
        ("run cfm --dataset moons --nfe 1,x", "'x' is no whole number"),
        ("run cfm --dataset moons --seed -1", "is no whole number from 0"),
        ("run cfm --dataset moons --steps 5 --images 10", "two ways to say one thing"),
        ("run cfm --dataset moons --device warp", "device 'warp' cannot be used"),
        ("run cfm --dataset moons --db /no/such/folder/x.db", "the folder /no/such/folder/runs"),
        ("compare", "run `flowbench run ...` first"),
        ("report", "run `flowbench run ...` first"),
        ("show x", "run `flowbench run ...` first"),
        ("methods lm", "did you mean lmm?"),
        ("datasets moon", "did you mean moons?"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(flowbench, database, words, message):
    code, output = flowbench(*words.split())
    assert code == 2
    assert message in output
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert not database.exists()


@pytest.fixture
def small(flowbench):
    """A database with one small run of each method on moons."""
    for method in ("edm", "cfm"):
        assert flowbench("run", method, "--dataset", "moons", *SMALL)[0] == 0
    words = ["run", "lmm", "--dataset", "moons", *SMALL, "-o", "pairs=64", "-o", "pair_steps=3"]
    assert flowbench(*words)[0] == 0


def test_run_compare_report_show(flowbench, small, database):
    code, output = flowbench("compare", "--nfe", "1,4")
    assert code == 0
    assert "floor (n = 200)" in output
    for method in ("edm", "cfm"):
        line = f"not measured: flowbench run {method} --dataset moons --nfe 4 --seed 0"
        assert f"{line} --steps 20 --batch 32 --samples 200" in output
    assert "--batch 32 --samples 200 -o pair_steps=3 -o pairs=64" in output
    code, output = flowbench("compare", "cfm", "edm", "--metric", "w2,fd", "--metric", "S")
    assert code == 0 and "lmm" not in output and "w2 @ 1" in output
    name = rows(database, "select name from runs where method = 'lmm'")[0][0]
    code, output = flowbench("show", name)
    assert code == 0
    known = json.loads(flowbench("show", name, "--format", "json")[1])
    cost = {stage["stage"]: stage for stage in known["cost"]}
    assert "teacher" in cost and cost["pairs"]["images"] == 64
    assert {"network", "training-log"} < {file["role"] for file in known["files"]}


def test_every_format_has_the_same_numbers(flowbench, small):
    table = flowbench("report", "--format", "md")[1]
    records = json.loads(flowbench("report", "--format", "json")[1])["scores"]
    lines = list(csv.DictReader(io.StringIO(flowbench("report", "--format", "csv")[1])))
    assert len(lines) == len(records) > 50
    for line, record in zip(lines, records, strict=True):
        assert line["metric"] == record["metric"]
        assert float(line["mean"]) == pytest.approx(float(record["mean"]), nan_ok=True)
    from flowbench.report.layout import plain

    shown = [r for r in records if r["metric"] != "peak-mib" and r["subject"] == "model"]
    ranked = [r for r in shown if r["goal"]]
    for record in ranked:
        assert plain(float(record["mean"])) in table, record
    best = [plain(float(r["mean"])) for r in ranked if r["best"]]
    assert best and all(f"**{number}**" in table for number in best)
    assert set(re.findall(r"\*\*([\d.]+)\*\*", table)) == set(best)


def test_the_report_goes_to_a_file(flowbench, small, tmp_path):
    code, output = flowbench("report", "--format", "csv", "-o", str(tmp_path / "out.csv"))
    assert code == 0 and "wrote" in output
    assert (tmp_path / "out.csv").read_text() == flowbench("report", "--format", "csv")[1]


def test_the_same_command_again_does_nothing(flowbench, database):
    words = ["run", "cfm", "--dataset", "moons", *SMALL]
    flowbench(*words)
    before = rows(database, "select * from scores order by id")
    code, output = flowbench(*words)
    assert code == 0 and "every score is there already" in output
    assert rows(database, "select * from scores order by id") == before
    assert rows(database, "select count(*) from attempts") == [(1,)]


def test_a_larger_request_measures_only_what_is_missing(flowbench, database):
    words = ["run", "cfm", "--dataset", "moons", *SMALL[:-1]]
    flowbench(*words, "1,2")
    flowbench(*words, "1,2,4")
    query = "select nfe from scores where attempt_id = 2 and subject = 'model'"
    assert set(rows(database, query)) == {(4,)}
    assert rows(database, "select count(*) from runs") == [(1,)]


def test_force_makes_a_new_attempt_and_keeps_the_old(flowbench, database, tmp_path):
    words = ["run", "cfm", "--dataset", "moons", *SMALL]
    flowbench(*words)
    before = rows(database, "select * from scores order by id")
    code, _ = flowbench(*words, "--force")
    assert code == 0
    assert rows(database, "select number, generation, outcome from attempts") == [
        (1, 1, "ok"),
        (2, 2, "ok"),
    ]
    assert rows(database, "select * from scores where attempt_id = 1 order by id") == before
    query = "select value from scores where name = 'w2' and nfe = 2 and attempt_id = "
    assert rows(database, query + "1") == rows(database, query + "2"), "same seed, same numbers"
    assert len(list((tmp_path / "runs").glob("moons-cfm-*-g2"))) == 1


def test_the_teacher_is_an_ordinary_run_that_is_shared(flowbench, database, tmp_path):
    flowbench("run", "edm", "--dataset", "moons", *SMALL)
    folder = next((tmp_path / "runs").glob("moons-edm-*/"))
    before = (folder / "train.pt").stat().st_mtime_ns
    words = ["run", "lmm", "--dataset", "moons", *SMALL, "-o", "pairs=64", "-o", "pair_steps=3"]
    assert flowbench(*words)[0] == 0
    assert (folder / "train.pt").stat().st_mtime_ns == before, "the teacher was trained again"
    charged = rows(database, "select value from scores where name = 'train-images' order by id")
    assert charged == [(640,), (1280,)], "the student pays for its teacher"
    name = rows(database, "select name from runs where method = 'edm'")[0][0]
    assert flowbench(*words, "--teacher", name)[1].count("every score is there already") == 1
    weights = folder / "network.safetensors"
    code, output = flowbench(*words, "--teacher", str(weights))
    assert code == 0, output
    query = "select value from scores where name = 'w2' and nfe = 2 and attempt_id in (2, 3)"
    first, second = rows(database, query)
    assert first == second, "the same weights teach the same"


def test_a_teacher_that_missed_the_modes_is_named(flowbench):
    words = ["run", "lmm", "--dataset", "8gaussians", *SMALL, "-o", "pairs=64"]
    code, output = flowbench(*words, "-o", "pair_steps=3")
    assert code == 0 and "the teacher's samples lie within 3 standard deviations" in output


def test_another_teacher_is_another_run(flowbench, database):
    words = ["run", "lmm", "--dataset", "moons", *SMALL, "-o", "pairs=64", "-o", "pair_steps=3"]
    assert flowbench(*words, "-o", "start=random")[0] == 0
    assert flowbench(*words, "-o", "start=random", "--teacher", "cfm")[0] == 0
    assert rows(database, "select count(*) from runs where method = 'lmm'") == [(2,)]
    assert "teacher=cfm" in flowbench("compare", "--nfe", "1")[1]
    code, output = flowbench(*words, "--teacher", "cfm")
    assert code == 3 and "start=teacher needs an edm teacher of the same network" in output


def test_a_teacher_from_other_data_is_refused(flowbench, tmp_path):
    flowbench("run", "edm", "--dataset", "rose", *SMALL)
    weights = next((tmp_path / "runs").glob("rose-edm-*/network.safetensors"))
    code, output = flowbench("run", "lmm", "--dataset", "moons", *SMALL, "--teacher", str(weights))
    assert code == 2 and "was trained on rose, not moons" in output
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(weights.read_bytes()[:1000])
    code, output = flowbench("run", "lmm", "--dataset", "moons", *SMALL, "--teacher", str(torn))
    assert code == 2 and "cannot be read as safetensors" in output


def test_seeds_are_runs_of_their_own_and_become_a_deviation(flowbench, database):
    assert flowbench("run", "cfm", "--dataset", "moons", *SMALL, "--seed", "0,1,2")[0] == 0
    assert rows(database, "select count(*) from runs") == [(3,)]
    code, output = flowbench("compare", "--nfe", "1")
    assert code == 0 and "cfm (3 seeds)" in output and "±" in output


def test_an_adaptive_solver_reports_what_it_spent(flowbench, database):
    words = ["run", "cfm", "--dataset", "moons", "--steps", "20", "--samples", "100"]
    code, output = flowbench(*words, "--nfe", "auto", "-o", "solver=dopri5", "-o", "tolerance=1e-3")
    assert code == 0 and "auto (" in output
    ((spent,),) = rows(database, "select value from scores where name = 'nfe'")
    assert spent >= 8 and (spent - 2) % 6 == 0


def test_a_failure_keeps_what_was_measured_and_is_shown(flowbench, database, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, RuntimeError("out of luck"))
        words = ["run", "cfm", "--dataset", "moons", *SMALL, "--seed", "0,1"]
        code, output = flowbench(*words)
    assert code == 3
    assert "RuntimeError: out of luck (traceback in" in output and "Traceback" not in output
    query = "select outcome, error_text from attempts"
    assert rows(database, query) == [("failed", "RuntimeError: out of luck")] * 2
    assert rows(database, "select count(*) from scores where nfe = 1 and name = 'w2'") == [(2,)]
    code, output = flowbench("compare")
    assert code == 0 and "cfm, seed 1 (moons-cfm-s1-" in output
    assert "attempt 1: failed: RuntimeError: out of luck" in output
    assert "failed" in flowbench("report", "--format", "md")[1]
    code, output = flowbench("run", "cfm", "--dataset", "moons", *SMALL)
    assert code == 0
    assert "seed 0 (" not in flowbench("compare")[1], "what was mended is no failure any more"


def test_ctrl_c_is_recorded_as_interrupted(flowbench, database, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    code, output = flowbench("run", "cfm", "--dataset", "moons", *SMALL)
    assert code == 4 and "the same command goes on" in output
    assert rows(database, "select outcome from attempts") == [("interrupted",)]


def test_samples_that_are_not_finite_are_numbers_too(flowbench, database, monkeypatch):
    from flowbench_plugins.cfm import CFM

    from flowbench import hookimpl, solvers

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        z = solvers.euler(network, noise, labels, nfe)
        return z / (nfe - 1) if nfe < 2 else z

    monkeypatch.setattr(CFM, "sample", sample)
    code, output = flowbench("run", "cfm", "--dataset", "moons", *SMALL)
    assert code == 3 and "200 of 200 at NFE 1" in output
    query = "select value, kind from scores where name = 'w2' and nfe = 1"
    assert rows(database, query) == [(None, "nan")]
    assert rows(database, "select outcome from attempts") == [("diverged",)]
    assert rows(database, "select kind from scores where name = 'w2' and nfe = 2") == [("finite",)]
    assert "nan" in flowbench("compare")[1]


def test_a_diverging_run_is_recorded(flowbench, database):
    words = ["run", "cfm", "--dataset", "moons", *SMALL, "-o", "lr=1e30"]
    code, output = flowbench(*words)
    assert code == 3 and "the loss became" in output
    assert rows(database, "select outcome, error_type from attempts") == [("diverged", "Diverged")]


def test_a_diverged_run_stays_a_failure_when_it_is_asked_for_again(flowbench, database):
    words = ["run", "cfm", "--dataset", "moons", *SMALL, "-o", "lr=1e30", "--steps", "1"]
    codes = [flowbench(*words)[0] for _ in range(2)]
    assert codes == [3, 3]


def test_a_sampler_that_spends_other_than_asked_fails(flowbench, database, monkeypatch):
    from flowbench_plugins.cfm import CFM

    from flowbench import hookimpl, solvers

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        return solvers.euler(network, noise, labels, nfe + 1)

    monkeypatch.setattr(CFM, "sample", sample)
    code, output = flowbench("run", "cfm", "--dataset", "moons", *SMALL)
    assert code == 3 and "spent 2 evaluations where 1 were asked for" in output


def test_two_at_once_do_not_do_one_run_twice(flowbench, tmp_path):
    from filelock import FileLock

    words = ["run", "cfm", "--dataset", "moons", *SMALL]
    flowbench(*words)
    name = next((tmp_path / "runs").glob("moons-cfm-*/")).name
    with FileLock(tmp_path / "runs" / f"{name}.lock"):
        code, output = flowbench(*words, "--force")
    assert code == 3 and "is being worked on by another process" in output


def test_an_interrupted_force_hides_nothing_and_is_gone_on_with(flowbench, database, monkeypatch):
    words = ["run", "cfm", "--dataset", "moons", *SMALL]
    flowbench(*words)
    before = flowbench("compare")[1]
    with monkeypatch.context() as patch:
        failing(patch, KeyboardInterrupt())
        assert flowbench(*words, "--force")[0] == 4
    assert flowbench("compare")[1].startswith(before.rstrip()), "the numbers, and the interruption"
    assert flowbench(*words, "--force")[0] == 0
    query = "select generation, outcome from attempts"
    assert rows(database, query) == [(1, "ok"), (2, "interrupted"), (2, "ok")]


def test_damaged_samples_and_pairs_are_made_anew(flowbench, database, tmp_path):
    words = ["run", "lmm", "--dataset", "moons", *SMALL, "-o", "pairs=64", "-o", "pair_steps=3"]
    flowbench(*words)
    query = "select name, value from scores where nfe = 1 and name in ('w2', 'fd')"
    before = sorted(rows(database, query))
    runs = tmp_path / "runs"
    for pattern in ("moons-lmm-*/samples-nfe1-*", "pairs-*/*.safetensors"):
        path = next(runs.glob(pattern))
        path.write_bytes(path.read_bytes()[:100])
    next(runs.glob("moons-lmm-*/lines.pt")).unlink()
    database.unlink()
    code, output = flowbench(*words)
    assert code == 0 and output.count("it is made anew") == 2
    assert sorted(rows(database, query)) == before


def test_samples_of_another_network_are_not_reused(flowbench, database, tmp_path):
    words = ["run", "cfm", "--dataset", "moons", *SMALL]
    flowbench(*words)
    folder = next((tmp_path / "runs").glob("moons-cfm-*/"))
    from flowbench.checkpoints import read_tensors, save_tensors

    path = next(folder.glob("samples-nfe1-*"))
    tensors, facts = read_tensors(path)
    save_tensors(path, {"samples": tensors["samples"] + 9}, facts | {"weights": "other"})
    before = rows(database, "select value from scores where name = 'w2' and nfe = 1")
    database.unlink()
    flowbench(*words)
    assert rows(database, "select value from scores where name = 'w2' and nfe = 1") == before


def test_the_width_of_the_student_is_that_of_its_teacher(flowbench, database):
    words = ["run", "lmm", "--dataset", "moons", *SMALL, "-o", "pairs=64", "-o", "pair_steps=3"]
    assert flowbench(*words, "-o", "width=16")[0] == 0


def test_reports_and_sheets_that_cannot_be_written_are_one_line(flowbench, small, tmp_path):
    (tmp_path / "file").write_text("")
    for words in (["report", "--format", "md", "-o", str(tmp_path / "file/x.md")],):
        code, output = flowbench(*words)
        assert code == 2 and "cannot be written" in output and "Traceback" not in output
    code, output = flowbench("compare", "--sheet", str(tmp_path / "x.png"))
    assert code == 2 and "a sheet is for data sets of images" in output


def test_quiet_prints_nothing(flowbench):
    assert flowbench("run", "cfm", "--dataset", "moons", *SMALL, "--quiet") == (0, "")


def test_a_truncated_checkpoint_is_one_line(flowbench, tmp_path):
    words = ["run", "cfm", "--dataset", "moons", *SMALL]
    flowbench(*words)
    path = next((tmp_path / "runs").glob("moons-cfm-*/train.pt"))
    path.write_bytes(path.read_bytes()[:500])
    code, output = flowbench(*words[:-1], "1,2,4")
    assert code == 3 and "is damaged; delete it" in output
    path.unlink()
    assert flowbench(*words[:-1], "1,2,4")[0] == 0


def test_methods_describe_themselves(flowbench):
    code, output = flowbench("methods")
    assert code == 0
    for name, point in plugins.methods().items():
        assert name in output and plugins.summary(point)[:40] in output
    code, output = flowbench("methods", "edm")
    assert code == 0 and "arXiv:2206.00364" in output
    assert "rho = 7.0  (float)\n      curvature of the karras schedule, the paper's value" in output


def test_doctor_names_what_is_there(flowbench):
    code, output = flowbench("doctor")
    assert code == 0 and "torch " in output and "device: " in output
    assert "digits: ok" in output and "imagenet64: not here" in output and "lmm: ok" in output


def test_a_score_may_be_added_by_hand_without_breaking_tables(flowbench, small, database):
    store = Store(f"sqlite:///{database}")
    spec = store.measured("moons")[0].spec
    with pytest.raises(Diverged), store.attempt(spec, {}) as attempt:
        attempt.add(Score("w2", float("inf"), 1, n=200, goal="min", protocol={"other": 1}))
        raise Diverged("by hand")
    code, output = flowbench("compare", "--metric", "w2")
    assert code == 5 and "moons: protocol of w2 differs" in output
    code, output = flowbench("compare", "--metric", "w2", "--allow-mixed")
    assert code == 0 and "inf" in output and "this table's w2: protocol" in output


def test_a_report_goes_where_its_name_says(flowbench, small, tmp_path):
    printed = flowbench("report", "--format", "csv")[1]
    assert flowbench("report", "--format", "csv", "-o", "-") == (0, printed)
    for name, start in [("x.HTM", "<!doctype html>"), ("x.txt", "")]:
        assert flowbench("report", "-o", str(tmp_path / name), "--no-pictures")[0] == 0
        assert (tmp_path / name).read_text().lower().startswith(start)
    for name, message in [("", "needs the name of a file"), ("x", ".html"), ("x.doc", ".html")]:
        code, output = flowbench("report", "-o", name and str(tmp_path / name))
        assert code == 2 and message in output and "Traceback" not in output
        assert not name or not (tmp_path / name).exists()


@pytest.mark.parametrize("words", ["--help", "methods", "doctor"])
def test_a_full_disk_is_one_line(words):
    code = "from flowbench.cli import main; main()"
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-c", code, *words.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


def test_only_what_goes_on_says_so_when_it_is_interrupted(flowbench, monkeypatch):
    from flowbench.cli import tables
    from flowbench.store import Store

    def interrupt(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "opened", interrupt)
    monkeypatch.setattr(Store, "__init__", interrupt)
    assert flowbench("report") == (4, "interrupted\n")
    code, output = flowbench("run", "cfm", "--dataset", "moons", *SMALL)
    assert code == 4 and "interrupted; the same command goes on" in output
