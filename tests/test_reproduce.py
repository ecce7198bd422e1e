"""A stored run done again: equal, within tolerance or different, and the database is only read."""

import dataclasses
import hashlib
import json
import math
import shutil
import sqlite3
import statistics

import pytest
import torch
from small_runs import failing, ran

from flowbench import plugins, reproduction
from flowbench.cli.reproduce import _lines, _place
from flowbench.records import Budget, Measured, Protocol, Score, Spec
from flowbench.reproduction import DIFFERENT, EQUAL, WITHIN, examined, held, verdict
from flowbench.store import Store

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

SIZE = ["--dataset", "moons", "--steps", "20", "--batch", "32", "--samples", "50", "--nfe", "1,2"]
LMM = ["lmm", *SIZE, "-o", "pairs=32", "-o", "pair_steps=3"]

SPEC = Spec("cfm", "moons", 0, Budget(20, 32), {"lr": 1.0})


def row(value, name="w2", seed=0, nfe=1, subject="model", spec=SPEC, **facts):
    """A stored score of the run of a training seed."""
    n = 0 if nfe == -1 and subject == "model" else 50
    score = Score(name, value, nfe, subject, n, protocol=facts)
    own = dataclasses.replace(spec, seed=seed, teacher=f"of seed {seed}")
    return Measured(own.name, own, score, 1, 1, "")


def words(stored, again, others=()):
    return [(c.verdict, c.why) for c in held(stored, again, [*stored, *others])]


SEEDS = [1.0, 1.1, 1.3]
SD = statistics.stdev(SEEDS)


@pytest.mark.parametrize(
    "off, word", [(0, EQUAL), (1.99 * SD, WITHIN), (-1.99 * SD, WITHIN), (2.01 * SD, DIFFERENT)]
)
def test_three_seeds_say_how_far_a_number_may_be_off(off, word):
    others = [row(value, seed=k) for k, value in enumerate(SEEDS)]
    why = "" if word == EQUAL else "2 sd of 3 training seeds"
    assert words([others[0]], [row(1.0 + off)], others) == [(word, why)]


@pytest.mark.parametrize(
    "off, word", [(1e-16, EQUAL), (9e-4, WITHIN), (-9e-4, WITHIN), (1.1e-3, DIFFERENT)]
)
@pytest.mark.parametrize("subject", ["model", "floor"])
def test_fewer_seeds_and_floors_take_a_thousandth(off, word, subject):
    others = [row(value, seed=k) for k, value in enumerate(SEEDS)][: 3 if subject == "floor" else 2]
    others += [row(9.0, seed=5, nfe=2), row(9.0, seed=6, name="fd"), row(9.0, seed=7, ratio=3)]
    others += [row(9.0, seed=8, spec=dataclasses.replace(SPEC, options={"lr": 2.0}))]
    others += [row(9.0, seed=k, subject="floor") for k in range(5)] if subject == "model" else []
    stored, again = row(1.0, subject=subject), row(1.0 + off, subject=subject)
    why = "" if word == EQUAL else "relative 0.001"
    assert words([stored], [again], others) == [(word, why)]


def test_the_last_bit_counts():
    value = 0.1 + 0.2
    assert words([row(value)], [row(0.3)])[0][0] == WITHIN
    assert words([row(value)], [row(value)])[0][0] == EQUAL


@pytest.mark.parametrize(
    "old, new, word",
    [
        (math.nan, math.nan, EQUAL),
        (math.inf, math.inf, EQUAL),
        (math.inf, -math.inf, DIFFERENT),
        (math.nan, 1.0, DIFFERENT),
        (1.0, math.nan, DIFFERENT),
        (math.inf, 1.0, DIFFERENT),
        (0.0, 0.0, EQUAL),
        (0.0, 1e-300, DIFFERENT),
    ],
)
def test_numbers_that_are_not_finite_are_never_near(old, new, word):
    assert words([row(old)], [row(new)])[0][0] == word
    others = [row(math.nan, seed=k) for k in (1, 2, 3)]
    assert words([row(old)], [row(new)], others)[0][0] == word


@pytest.mark.parametrize(
    "name, nfe", [("ms-per-sample", 1), ("peak-mib", 1), ("train-seconds:teacher", -1)]
)
def test_times_and_memory_are_not_judged(name, nfe):
    (found,) = held([row(1.0, name, nfe=nfe)], [row(9.0, name, nfe=nfe)], [])
    assert (found.verdict, found.why, found.again) == ("", "not judged", 9.0)
    assert words([row(1.0, "train-images", nfe=-1)], [row(2.0, "train-images", nfe=-1)]) != [
        ("", "not judged")
    ]


def test_numbers_by_another_protocol_are_not_compared():
    found = words([row(1.0, extractor="a", rows=1)], [row(1.0, extractor="b", rows=1)])
    assert found == [("", "measured in another way today: extractor")]
    assert words([row(1.0)], [row(1.0, nfe=2)]) == [("", "not measured again")]


def test_the_verdict_is_the_worst_word():
    rows = [row(1.0, name=name) for name in ("a", "b", "c", "ms-per-sample")]
    again = [
        row(value, name=r.score.name) for r, value in zip(rows, (1, 1.0005, 2, 9), strict=True)
    ]
    assert verdict(held(rows, again, rows)) == DIFFERENT
    assert verdict(held(rows[:2], again, rows)) == WITHIN
    assert verdict(held(rows[:1], again, rows)) == EQUAL
    assert verdict(held(rows[3:], again, rows)) == ""


def test_how_a_run_was_examined_is_read_from_its_scores():
    reference = {"data": "d", "split": "train", "rows": 40}
    scores = [
        Score("w2", 1.0, 4, n=50, seed=1),
        Score("fid", 1.0, 1, n=50, seed=1, protocol={"reference": reference}),
        Score("w2", 1.0, 0, n=90, protocol={"reference": ["train", 7]}),
        Score("ms-per-sample", 1.0, 16),
        Score("w2", 1.0, 32, "floor", n=33),
        Score("S", 1.0),
    ]
    assert examined(scores) == {Protocol(50, 1, 40): (1, 4), Protocol(90, 0, None): (0,)}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder with a small run of cfm and of lmm on moons; the teacher of that is not stored."""
    return ran(tmp_path_factory.mktemp("made"), ["cfm", *SIZE], LMM)


@pytest.fixture
def made(once, tmp_path):
    """A copy of it, where FLOWBENCH_DB is."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results.db"


def change(path, statement):
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement).rowcount


def state(path):
    """All rows of a database, and the files beside it."""
    with sqlite3.connect(path) as connection:
        tables = [n for (n,) in connection.execute("select name from sqlite_master where sql > ''")]
        rows = [
            connection.execute(f"select * from {n}").fetchall() for n in tables if "ix" not in n
        ]
    runs = path.parent / "runs"
    files = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in runs.rglob("*") if p.is_file()}
    return repr(rows), files


@pytest.mark.parametrize("method", ["cfm", "lmm"])
def test_an_equal_run_is_equal_and_the_database_only_read(flowbench, made, method):
    before = state(made)
    code, output = flowbench("reproduce", f"moons-{method}")
    assert code == 0, output
    last = output.splitlines()[-1]
    assert last.startswith("equal: all ") and "agree to the last bit" in last
    assert "code of the method and data are the same" in output
    assert "not judged:\n  ms-per-sample @ 1" in output
    assert ("teacher edm: train: 20/20" in output) == (method == "lmm"), "its teacher, too"
    assert state(made) == before


def test_a_number_that_was_tampered_with_is_different(flowbench, made):
    change(made, "update scores set value = value + 0.1 where name = 'w2' and nfe = 2")
    change(made, "update scores set value = 2 * value where name = 'peak-mib'")
    code, output = flowbench("reproduce", "moons-cfm", "--quiet")
    assert code == 6
    (line,) = [line for line in output.splitlines() if line.startswith("Error")]
    assert "different: 1 of " in line and "(w2 @ 2)" in line


def test_a_number_that_moved_a_little_is_within_tolerance(flowbench, made):
    change(made, "update scores set value = value * 1.00001 where name = 'w2' and nfe = 2")
    code, output = flowbench("reproduce", "moons-cfm")
    assert code == 0 and output.splitlines()[-1].startswith("within tolerance: ")
    assert "relative 0.001" in output and "w2 @ 2" in output


def test_every_noise_stream_is_done_again(flowbench, made):
    assert flowbench("run", "cfm", *SIZE, "--sample-seed", "3", "--quiet")[0] == 0
    change(made, "update scores set value = value + 1 where name = 'w2' and seed = 3 and nfe = 1")
    code, output = flowbench("reproduce", "moons-cfm", "--quiet")
    assert code == 6 and "different: 1 of" in output and "(w2 @ 1 stream 3)" in output


def test_another_machine_is_said_before_the_numbers(flowbench, made):
    ((text,),) = sqlite3.connect(made).execute("select json from environments limit 1").fetchall()
    facts = json.dumps(json.loads(text) | {"torch": "0.0.1", "device": "an abacus"})
    change(made, f"update environments set json = '{facts}'")
    code, output = flowbench("reproduce", "moons-cfm")
    assert code == 0 and f"torch: stored 0.0.1, today {torch.__version__}" in output
    assert output.index("device: stored an abacus") < output.index("equal")


def test_it_runs_on_as_many_threads_as_the_run_had(flowbench, made, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with reproduction.threads([{"threads": 2}, {"threads": 2}]):
        assert seen == [2]
    assert seen == [2, 7]
    for other in ([{"threads": 1}, {"threads": 2}], [{"threads": 3}], [{}], []):
        seen.clear()
        with reproduction.threads(other):
            assert seen == []


def test_other_code_is_one_line_that_names_it(flowbench, made, monkeypatch):
    monkeypatch.setattr(plugins, "code_hash", lambda cls: "ee" * 32)
    code, output = flowbench("reproduce", "moons-cfm")
    assert code == 2 and "Traceback" not in output
    assert "cannot be made with today's code and data: code " in output
    assert "today eeeeeeeeeeeeeeee..." in output


def test_what_is_kept_is_gone_on_with(flowbench, made, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    with monkeypatch.context() as patch:
        failing(patch, KeyboardInterrupt())
        code, output = flowbench("reproduce", "moons-cfm", "--runs", str(folder))
    assert code == 4 and "the same command goes on" in output
    (kept,) = folder.glob("moons-cfm-*/train.pt")
    before = kept.stat().st_mtime_ns
    code, output = flowbench("reproduce", "moons-cfm", "--runs", str(folder))
    assert code == 0 and "equal: all " in output
    assert kept.stat().st_mtime_ns == before, "trained once"
    tried = Store(f"sqlite:///{folder / 'reproduction.db'}").tried()
    assert [attempt.outcome for attempt in tried] == ["interrupted", "ok"]
    code, output = flowbench("reproduce", "moons-cfm", "--runs", str(folder))
    assert code == 0 and "equal: all " in output


def test_without_a_folder_an_interruption_says_that_nothing_is_kept(flowbench, made, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    code, output = flowbench("reproduce", "moons-cfm")
    assert code == 4 and "nothing is kept without --runs DIR" in output
    assert "the same command goes on" not in output


def test_a_run_that_cannot_be_finished_again_is_a_failure(flowbench, made, monkeypatch):
    failing(monkeypatch, RuntimeError("out of luck"))
    code, output = flowbench("reproduce", "moons-cfm")
    assert code == 3 and "cannot be made again: " in output
    assert "RuntimeError: out of luck (traceback in" in output


def test_a_run_that_diverges_again_is_compared_as_far_as_it_went(flowbench, made, monkeypatch):
    from flowbench_plugins.cfm import CFM

    from flowbench import hookimpl, solvers

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        z = solvers.euler(network, noise, labels, nfe)
        return z / (nfe - 1) if nfe < 2 else z

    monkeypatch.setattr(CFM, "sample", sample)
    assert flowbench("run", "cfm", *SIZE, "-o", "lr=1e-3", "--quiet")[0] == 3
    store = Store(f"sqlite:///{made}")
    (name,) = {t.run for t in store.tried("moons", ["cfm"]) if t.outcome == "diverged"}
    code, output = flowbench("reproduce", name)
    assert code == 0 and "equal: all " in output


def test_a_run_without_numbers_is_one_line(flowbench, database):
    assert flowbench("run", "cfm", *SIZE, "-o", "lr=1e30", "--quiet")[0] == 3
    code, output = flowbench("reproduce", "moons-cfm", "--quiet")
    assert code == 2 and "has no number that could be compared" in output


@pytest.mark.parametrize("place", ["", "runs"])
def test_a_folder_with_other_things_is_refused(flowbench, made, place):
    before = state(made)
    code, output = flowbench("reproduce", "moons-cfm", "--runs", str(made.parent / place))
    assert code == 2 and "holds other files: give --runs a new folder" in output
    assert state(made) == before


def test_the_database_of_a_reproduction_is_not_written_by_its_own(flowbench, made, tmp_path):
    folder = tmp_path / "again"
    folder.mkdir()
    own = shutil.copy(made, folder / "reproduction.db")
    code, output = flowbench("reproduce", "moons-cfm", "--db", str(own), "--runs", str(folder))
    assert code == 2 and "give --runs another folder" in output


def test_mistakes_are_one_line(flowbench, made):
    for asked, message in [
        (["reproduce", "moons-nobody"], 'no run is called "moons-nobody"'),
        (["reproduce", "moons-cfm", "--device", "warp"], "device 'warp' cannot be used"),
        (["reproduce", "moons-cfm", "--runs", str(made)], "is a file"),
    ]:
        code, output = flowbench(*asked)
        assert code == 2 and message in output and "Traceback" not in output


def test_places_tell_apart_what_has_several_n_and_streams():
    scores = [
        Score("fd", 1.0, nfe, subject, n, seed)
        for subject, nfe in (("model", 1), ("floor", -1))
        for n in (50, 90)
        for seed in (0, 1)
    ]
    lines = list(_lines(held(*[[Measured("x", SPEC, s, 1, 1, "") for s in scores]] * 2, [])))
    places = [" ".join(line.split()) for line in lines]
    each = "n=50, {}n=50 stream 1, {}n=90, {}n=90 stream 1 equal"
    assert places[0] == "fd @ 1 " + each.format(*["1 "] * 3)
    assert places[1] == (
        "floor of fd n=50 stream 0, n=50 stream 1, n=90 stream 0, n=90 stream 1 equal"
    )


def test_places_of_one_n_and_stream_are_short():
    scores = [Score("fd", 1.0, 1, n=50), Score("fd", 1.0, 2, n=50), Score("S", 1.0, n=50)]
    scores.append(Score("fd", 1.0, subject="floor", n=40))
    assert [_place(score, scores) for score in scores] == ["@ 1", "@ 2", "", ""]
