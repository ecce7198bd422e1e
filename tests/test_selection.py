"""The filters of compare and report: each keeps what it says and nothing else."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from stored_rows import DATA, put, score, spec

from flowbench.comparison.selection import Filter, attempts, pair, select, since
from flowbench.records import Budget, FlowbenchError, Measured, Tried

BACKBONE = {"network": {"name": "ddpmpp", "precision": "bfloat16"}, "augment": "flip"}
LMM = {"norm": "l2", "lr": 1e-4, "indices": [0, 1], "adversarial": True, "guidance": None}


@pytest.fixture
def stored(database):
    """Runs that differ in everything that a filter may name."""
    teacher = spec("edm", seed=0)
    runs = [
        *(spec("cfm", seed=seed, options={"lr": 0.001}) for seed in range(3)),
        teacher,
        spec("lmm", options=LMM, changed={"norm": "l2"}, teacher=teacher.key),
        spec("ctm", setting=BACKBONE, changed={"preset": "paper", "augment": "flip"}),
        spec("lfm", budget=Budget(1000, 64), setting={"unconditional": True}),
        spec("cfm", dataset="moons", data="m" * 64),
    ]
    for value, run in enumerate(runs):
        numbers = [score(value, n=n, seed=stream) for n in (100, 600) for stream in (0, 1)]
        put(database, run, *numbers, score(0.5, "S", nfe=-1, n=0))
    return database


def rows(flowbench, *words):
    """(data set, label) and the records of the scores that are left."""
    code, output = flowbench("report", "--format", "json", *words)
    assert code == 0, output
    found = json.loads(output)["scores"]
    return {(r["dataset"], r["label"]) for r in found}, found


def failing(flowbench, *words, command="compare"):
    """The one line of a mistake."""
    code, output = flowbench(command, *words)
    assert code == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith("Error")]
    assert "Traceback" not in output
    return line


def digits(*labels):
    return {("digits", label) for label in labels}


ALL = digits("cfm", "edm", "lmm norm=l2", "ctm augment=flip preset=paper", "lfm")


def test_nothing_asked_for_is_everything(flowbench, stored):
    assert rows(flowbench)[0] == ALL | {("moons", "cfm")}


@pytest.mark.parametrize(
    "words, labels",
    [
        (["--dataset", "digits"], ALL),
        (["--dataset", "moons"], {("moons", "cfm")}),
        (["--method", "edm"], digits("edm")),
        (["edm"], digits("edm")),
        (["edm", "--method", "lfm"], digits("edm", "lfm")),
        (["edm", "edm", "--method", "edm"], digits("edm")),
        (["--seed", "1,2"], digits("cfm")),
        (["--seed", "0", "--method", "cfm"], {("digits", "cfm"), ("moons", "cfm")}),
        (["--where", "budget=1000x64"], digits("lfm")),
        (["--where", "budget=1000 x 64"], digits("lfm")),
        (["--where", "steps=1000"], digits("lfm")),
        (["--where", "batch=64"], digits("lfm")),
        (["--where", "conditioning=none"], digits("lfm")),
        (["--where", "unconditional=true"], digits("lfm")),
        (["--where", "teacher=edm"], digits("lmm norm=l2")),
        (["--where", "adversarial=yes"], digits("lmm norm=l2")),
        (["--where", "norm=l2"], digits("lmm norm=l2")),
        (["--where", "norm=L2"], digits("lmm norm=l2")),
        (["--where", "lr=1e-4"], digits("lmm norm=l2")),
        (["--where", "lr=0.0001"], digits("lmm norm=l2")),
        (["--where", "lr=1e-3"], digits("cfm")),
        (["--where", "indices=0,1"], digits("lmm norm=l2")),
        (["--where", "variant=lmm norm=l2"], digits("lmm norm=l2")),
        (["--where", "preset=paper"], digits("ctm augment=flip preset=paper")),
        (["--where", "augment=flip"], digits("ctm augment=flip preset=paper")),
        (["--where", "network=ddpmpp"], digits("ctm augment=flip preset=paper")),
        (["--where", "precision=bf16"], digits("ctm augment=flip preset=paper")),
        (["--where", "data=mmmm"], {("moons", "cfm")}),
        (["--where", f"data={DATA}"], ALL),
        (["--where", "seed=2"], digits("cfm")),
        (["--where", "origin=here"], ALL | {("moons", "cfm")}),
        (["--where", "teacher=none", "--where", "network=small", "cfm"], None),
        (["--where", "n=100", "--where", "steps=10", "--seed", "0", "edm"], digits("edm")),
    ],
)
def test_a_filter_keeps_what_it_says(flowbench, stored, words, labels):
    labels = {("digits", "cfm"), ("moons", "cfm")} if labels is None else labels
    assert rows(flowbench, *words)[0] == labels
    assert flowbench("compare", "--allow-mixed", *words)[0] == 0


def test_n_and_stream_keep_only_such_samples(flowbench, stored):
    found = rows(flowbench, "--where", "n=600", "--where", "stream=1", "cfm")[1]
    assert {r["n"] for r in found} == {600}
    assert {r["sampling_seeds"] for r in found if r["metric"] == "fd"} == {1}
    assert {r["metric"] for r in found} == {"fd", "S"}, "facts of a run belong to every n"


def test_seeds_are_left_out_before_the_mean(flowbench, stored):
    found = rows(flowbench, "--seed", "1,2", "--where", "n=100")[1]
    assert [(r["mean"], r["seeds"]) for r in found if r["metric"] == "fd"] == [(1.5, 2)]


def test_a_teacher_is_named_by_its_method_though_it_is_not_shown(flowbench, stored):
    for words in (["lmm"], ["--where", "norm=l2"], ["--seed", "0"], ["lmm", "--dataset", "digits"]):
        teachers = {r["label"]: r["teacher"] for r in rows(flowbench, *words)[1]}
        assert teachers["lmm norm=l2"] == "edm", words
    assert rows(flowbench, "lmm", "--where", "teacher=edm")[0] == digits("lmm norm=l2")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--dataset", "digit"], "no data set 'digit': did you mean digits?"),
        (["--method", "cfn"], "no method 'cfn': did you mean cfm?"),
        (["lnm"], "no method 'lnm': did you mean lmm?"),
        (["cfm", "lnm"], "no method 'lnm': did you mean lmm?"),
        (["--seed", "x"], "'x' is no whole number from 0"),
        (["--since", "yesterday"], "--since takes a date (2026-11-20), a time in ISO 8601, or an"),
        (["--since", "2026-13-01"], 'not "2026-13-01"'),
        (["--since", "0001-01-01"], 'not "0001-01-01"'),
        (["--since", "999999w"], 'not "999999w"'),
        (["--since", "7 d"], 'not "7 d"'),
        (["--since", "-7d"], 'not "-7d"'),
        (["--where", "n"], '--where takes NAME=VALUE, such as n=600 or teacher=edm, not "n"'),
        (["--where", "=600"], 'not "=600"'),
        (["--where", ""], "--where takes NAME=VALUE"),
        (["--where", "bugdet=1"], "no field of --where 'bugdet': did you mean budget?"),
        (["--where", "teachr=edm"], "no field of --where 'teachr': did you mean teacher?"),
        (["--where", "n=1", "--where", "nrm=l2"], "no field of --where 'nrm': did you mean norm?"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_mistake_is_one_line_that_helps(flowbench, stored, command, words, message):
    assert message in failing(flowbench, *words, command=command)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--where", "n=7"], "fit --where n=7"),
        (["--where", "teacher=ctm"], "fit --where teacher=ctm"),
        (["--where", "data="], "fit --where data="),
        (["--seed", "77", "edm"], "fit --seed 77"),
        (["--seed", "77", "--where", "budget=10x2"], "fit --where budget=10x2 --seed 77"),
        (["--dataset", "rose"], "measure some with: flowbench run METHOD --dataset rose"),
        (["--dataset", "moons", "edm"], "measure some with: flowbench run edm --dataset moons"),
    ],
)
def test_a_filter_that_leaves_nothing_says_which_or_what_to_run(flowbench, stored, words, said):
    assert failing(flowbench, *words).endswith(said)


def test_failures_are_filtered_as_well(flowbench, stored):
    put(stored, spec("lfm", seed=5), error=FlowbenchError("out of memory"))
    reason = "lfm, seed 5"
    assert reason in flowbench("compare", "--where", "n=100", "--allow-mixed")[1]
    for words in (["--where", "norm=l2"], ["--where", "budget=1000x64"], ["cfm"], ["--seed", "0"]):
        assert reason not in flowbench("compare", "--allow-mixed", *words)[1], words
    assert "fit --where teacher=ctm" in failing(flowbench, "--where", "teacher=ctm")


def test_since_keeps_attempts_that_began_later(flowbench, stored):
    put(stored, spec("cfm", seed=9, options={"lr": 0.001}), score(9.0))
    assert rows(flowbench, "--since", "1h")[0] == ALL | {("moons", "cfm")}
    today = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    assert len(rows(flowbench, "--since", today)[0]) == 6
    assert "fit --since 2999-01-01T00:00:00" in failing(flowbench, "--since", "2999-01-01")
    assert "fit --since 20" in failing(flowbench, "--since", "0m")


def test_since_reads_dates_times_and_ages():
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert since("90m", now) == "2026-11-20T10:30:00.000+00:00"
    assert since("36h", now) == "2026-11-19T00:00:00.000+00:00"
    assert since("7d", now) == "2026-11-13T12:00:00.000+00:00"
    assert since("2w", now) == "2026-11-06T12:00:00.000+00:00"
    assert since("2026-11-20T10:00:00+02:00") == "2026-11-20T08:00:00.000+00:00"
    assert since("2026-11-20T10:00Z") == "2026-11-20T10:00:00.000+00:00"


def test_a_date_begins_at_midnight_here(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert since("2026-11-20") == "2026-11-19T15:00:00.000+00:00"
        with pytest.raises(FlowbenchError):
            since("0001-01-01")
        monkeypatch.setenv("TZ", "America/New_York")
        time.tzset()
        with pytest.raises(FlowbenchError):
            since("9999-12-31T23:59")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_pairs_are_read_at_the_first_sign():
    assert pair(" a = b=c ") == ("a", "b=c")


def record(run, id=1, origin="", **more):
    return Measured(run.name, run, score(1.0, **more), id, 1, "", origin)


def tried(run, id=1, started="2026-11-20T10:00:00.000+00:00", outcome="ok", origin=""):
    return Tried(id, run.name, run, 1, 1, outcome, "", started, "", "", origin)


def test_merged_results_are_told_by_the_start_of_their_origin():
    run = spec()
    found = [record(run, origin=origin) for origin in ("", "abc123", "abd")]
    for wanted, origins in [("ab", ["abc123", "abd"]), ("abc", ["abc123"]), ("here", [""])]:
        left = select(found, [], Filter(where=[("origin", wanted)]))
        assert [row.origin for row in left] == origins
    some = [tried(run, origin=origin) for origin in ("", "abc123")]
    assert [t.origin for t in attempts(some, Filter(where=[("origin", "abc")]))] == ["abc123"]


def test_the_scores_of_an_old_attempt_are_left_out_though_the_run_has_a_new_one():
    run = spec()
    found = [record(run, 1), record(run, 2, name="w2")]
    times = [tried(run, 1, "2026-11-01"), tried(run, 2, "2026-11-20")]
    left = select(found, times, Filter(since="2026-11-10"))
    assert [row.score.name for row in left] == ["w2"]
    assert [t.id for t in attempts(times, Filter(since="2026-11-10"))] == [2]


def test_versions_and_hashes_are_words_and_not_numbers():
    runs = [spec(version="1.1"), spec(version="1.10", seed=1), spec(code="1e5", seed=2)]
    found = [record(run) for run in runs]

    def left(name, value):
        return [row.spec.seed for row in select(found, [], Filter(where=[(name, value)]))]

    assert left("version", "1.1") == [0] and left("version", "1.10") == [1]
    assert left("code", "1e5") == [2] and left("code", "100000") == []
    assert left("n", "100") == [0, 1, 2] and left("n", "100.0") == []


def test_floors_and_facts_go_with_their_runs():
    kept, other = spec("cfm"), spec("edm")
    found = [
        record(run, **more)
        for run in (kept, other)
        for more in ({"n": 100}, {"n": 50}, {"n": 80, "subject": "floor"}, {"n": 0})
    ]
    left = select(found, [], Filter(where=[("n", "100"), ("variant", "cfm")]))
    assert [(row.spec.method, row.score.subject, row.score.n) for row in left] == [
        ("cfm", "model", 100),
        ("cfm", "floor", 80),
        ("cfm", "model", 0),
    ]


def test_a_data_frame_names_the_teachers_that_it_leaves_out(stored):
    import flowbench

    frame = flowbench.results(str(stored), methods="lmm")
    assert set(frame["teacher"]) == {"edm"}
    assert len(flowbench.results(str(stored), where={"teacher": "edm"})) == len(frame)
