"""What a run will take: counted by a clock that the test turns, from history, and printed."""

import dataclasses
import math
import re
from types import SimpleNamespace

import pytest
import torch
from failing_method import line_of, write
from small_runs import ran

from flowbench import estimate, meters, nets, planning, rehearsal, short_run
from flowbench.planning import Request, Setup
from flowbench.rehearsal import Rehearsed
from flowbench.short_run import ShortRun, Timed
from flowbench.store import Store
from flowbench.training import Budget, Progress

SIZE = ["--dataset", "moons", "--steps", "20", "--batch", "32", "--samples", "50", "--nfe", "1"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless somebody adds seconds to `now`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(short_run, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


class Costly:
    """A source whose batches take `fixed` seconds and `each` for every row."""

    def __init__(self, clock, fixed, each):
        self.clock, self.fixed, self.each, self.sizes = clock, fixed, each, []

    def __len__(self):
        return 100

    def prepare(self):
        pass

    def draw(self, rows):
        self.sizes.append(len(rows))
        self.clock.now += self.fixed + self.each * len(rows)
        return (rows,)


def test_a_step_is_timed_at_its_full_batch_where_that_is_fast(clock):
    source, run = Costly(clock, 0.001, 0.0001), ShortRun(Budget(1000, 100), patience=1.0)
    for _ in run.batches(source):
        pass
    (found,) = run.found
    assert (found.stage, found.count, found.rows) == ("train", 1000, 100)
    assert found.seconds == pytest.approx(0.011) and found.total == pytest.approx(11.0)
    assert clock.now < 1.2 and source.sizes[:2] == [8, 8] and source.sizes[-1] == 100


def test_a_slow_step_is_told_by_few_rows(clock):
    source, run = Costly(clock, 0.0, 0.5), ShortRun(Budget(1000, 800), patience=1.0)
    for _ in run.batches(source):
        pass
    (found,) = run.found
    assert set(source.sizes) == {8} and found.rows == 8
    assert found.seconds == pytest.approx(400.0)
    assert len(source.sizes) <= 4


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_no_stage_takes_more_steps_than_its_budget(clock, steps):
    source, run = Costly(clock, 0.001, 0.0), ShortRun(Budget(steps, 100), patience=1.0)
    assert sum(1 for _ in run.batches(source)) == steps
    assert run.found[0].count == steps


def test_stages_are_timed_one_by_one(clock):
    run = ShortRun(Budget(100, 8), patience=1.0)
    for name, share, cost in (("first", 0.75, 0.01), ("second", 0.25, 0.04)):
        for _ in run.stage(name, share).batches(Costly(clock, cost, 0.0)):
            pass
    assert [(part.stage, part.count) for part in run.found] == [("first", 75), ("second", 25)]
    assert [part.total for part in run.found] == pytest.approx([0.75, 1.0])


def test_what_a_source_prepares_is_told_by_its_beginning(clock):
    whole = ShortRun(Budget(10, 8), patience=1.0)
    source, run = Costly(clock, 0.01, 0.0), whole.stage("block-2")

    def prepare():
        for step in range(1, 101):
            clock.now += 0.5
            whole.watch(Progress("push-1", step, 100))

    source.prepare = prepare
    next(run.batches(source))
    assert (run.found[0].stage, run.found[0].total) == ("push-1", pytest.approx(50.0))
    assert clock.now < 3


def test_pairs_are_timed_by_few_and_then_stood_in_for(clock):
    data = planning.load_data("moons", "cpu", None)
    run = ShortRun(Budget(10, 8), patience=1.0)
    asked = []

    def sample(states, labels):
        asked.append(len(states))
        clock.now += 0.1 + 0.002 * len(states)
        return 2 * states

    pairs = short_run.Pairs(sample, dict, data, 40_000, run)
    noise, x, _ = next(run.batches(pairs))
    timed = run.found[0]
    assert (timed.stage, timed.count) == ("pairs", 40_000)
    assert timed.seconds == pytest.approx((0.1 + 0.002 * 125) / 125), "made 125 together"
    assert sum(asked) < 100 and noise.shape == x.shape == (8, 2)


def test_a_teacher_that_is_too_slow_makes_no_pair(clock):
    data = planning.load_data("moons", "cpu", None)
    run = ShortRun(Budget(10, 8), evaluation=1.0)

    def sample(states, labels):
        raise AssertionError("this would take long")

    pairs = short_run.Pairs(sample, dict, data, 40_000, run)
    next(run.batches(pairs))
    assert math.isnan(run.found[0].seconds)


@pytest.mark.parametrize("method", ["lmm", "lfm", "bot-cfm", "rect-flow"])
def test_a_rehearsal_leaves_no_trace(method, tmp_path):
    setup = Setup(folder=tmp_path / "runs")
    request = Request(method, "moons", steps=40, batch=16, nfe=(4,), options={})
    plan = planning.plan(request, setup)
    before, others = torch.get_rng_state(), sorted(tmp_path.rglob("*"))
    found = rehearsal.rehearse(plan, setup, patience=0.05)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(tmp_path.rglob("*")) == others
    assert (found.above is not None) == (plan.teacher is not None)
    assert sum(part.count for part in found.parts if part.rows) >= 40, "all stages of the budget"
    assert found.evaluation > 0


def test_memory_is_that_of_the_network_as_it_is_called():
    plan = planning.plan(Request("cfm", "moons", batch=64), Setup())
    net = nets.default(plan.data)
    need = meters.training_bytes(net, (2,), 64)
    frozen = nets.default(plan.data).requires_grad_(False)
    for network in (net, frozen):  # what training returns has no gradients
        said = estimate.memory(network, plan, Setup())
        assert said.startswith(f"training needs about {need.sentence(64)}; ")
    assert "at micro-batch 16)" in estimate.memory(net, plan, Setup(micro_batch=16))
    jumps = planning.plan(Request("ctm", "moons"), Setup()).method.network(plan.data)
    assert "training needs about" in estimate.memory(jumps, plan, Setup())
    assert estimate.memory(torch.nn.Bilinear(2, 2, 2), plan, Setup()) == ""


def test_earlier_runs_know_better_than_a_few_steps(database, tmp_path):
    ran(tmp_path, ["cfm", *SIZE])
    store, setup = Store(f"sqlite:///{database}"), Setup(folder=tmp_path / "runs")
    (spent,) = [m.score.value for m in store.measured("moons") if m.score.name == "train-seconds"]
    plan = planning.plan(Request("cfm", "moons", 7, steps=60, batch=32, samples=50), setup)
    parts = estimate.durations(plan, None, store, {plan.spec.key})
    assert parts[0].part == "training" and parts[0].seconds == pytest.approx(3 * spent)
    assert "earlier runs of cfm" in parts[0].ground
    assert [part.part for part in estimate.durations(plan, None, store, set())] == [
        "samples and scores"
    ]
    other = planning.plan(Request("edm", "moons", 7), setup)
    (unknown,) = estimate.durations(other, None, store, {other.spec.key})
    assert math.isnan(unknown.seconds) and estimate.total([unknown, *parts]) > 0


def test_what_was_tried_adds_up_for_the_teacher_too():
    plan = planning.plan(Request("lmm", "moons", samples=100, nfe=(1, 4)), Setup())
    plan = dataclasses.replace(plan, nfe=(1, 4, 0))
    net = torch.nn.Identity()
    above = Rehearsed(net, (Timed("train", 4000, 0.01, 9, 256),), 1.0)
    own = (Timed("pairs", 40_000, math.nan), Timed("lines", 4000, 0.5, 2, 8))
    found = Rehearsed(net, own, 0.001, above)
    keys = {plan.spec.key, plan.teacher.spec.key}
    parts = estimate.durations(plan, found, None, keys)
    assert [(part.part, part.seconds) for part in parts] == [
        ("teacher's train", 40.0),
        ("pairs", pytest.approx(math.nan, nan_ok=True)),
        ("lines", 2000.0),
        ("samples", pytest.approx(0.5)),
        ("samples, NFE auto", pytest.approx(math.nan, nan_ok=True)),
    ]
    assert estimate.total(parts) == pytest.approx(2040.5)
    assert "of 8 rows, not 256" in parts[2].ground
    there = estimate.durations(plan, found, None, {plan.spec.key})
    assert [part.part for part in there][:1] == ["pairs"], "the teacher is there"


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_all_and_writes_nothing(flowbench, database, tmp_path):
    code, output = flowbench("run", "lmm", *SIZE, "--dry-run", "-o", "pairs=64", "--seed", "0,1")
    assert code == 0, output
    assert not database.exists() and not (tmp_path / "runs").exists()
    for words in (
        "network            new   not there",
        "data      moons: 100000 rows of 2, 20000 held out",
        "pairs=64 pair_steps=none",
        "budget    20 steps of 32, 640 examples",
        "teacher   edm (moons-edm-s0-",
        "samples   50 at NFE 1, on cpu",
        "metrics   fd, sw2, w2",
        "training needs about",
        "teacher's train: ",
        "runs      2; ",
    ):
        assert words in output, words
    plan = planning.plan(Request("lmm", "moons"), Setup())
    parameters = meters.parameters(plan.method.network(plan.data))
    assert f"{parameters:,} parameters" in output
    assert re.search(r"  pairs: \S+ m?s \(64 x ", output)
    assert re.search(r"  lines: \S+ m?s \(20 steps x \S+ ms, by \d+ steps here\)", output)


def test_a_dry_run_of_what_is_done_takes_nothing(flowbench, tmp_path):
    ran(tmp_path, ["cfm", *SIZE])
    before = everything(tmp_path)
    code, output = flowbench("run", "cfm", *SIZE, "--dry-run")
    assert code == 0 and "none: every score is stored" in output
    code, output = flowbench("run", "cfm", *SIZE[:-1], "2", "--dry-run")
    assert code == 0 and "network         used" in output and "training: " not in output
    assert {p: t for p, t in everything(tmp_path).items() if p in before} == before
    assert not [p for p in everything(tmp_path).keys() - before.keys() if "cache" not in p.parts]


def test_a_method_that_fails_is_planned_all_the_same(flowbench, tmp_path, monkeypatch):
    write(tmp_path, monkeypatch)
    code, output = flowbench("run", "mine", *SIZE, "--dry-run", "-o", "wrong=train")
    assert code == 0 and "Traceback" not in output
    assert f"cannot be tried: my_method.py:{line_of('return 1 / 0')} in zero" in output
    assert "no earlier run is like it" in output
