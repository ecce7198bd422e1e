"""Observers hear of each event once, over all attempts, and can harm neither run nor number."""

import json
import math
import pickle
import random
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowbench import execution, hookimpl, journal, observation, planning, plugins, training_log
from flowbench.events import Begun, Ended, Point
from flowbench.plans import Plan, Request, Setup
from flowbench.records import Budget, Diverged, FlowbenchError, Protocol, RunFailed, Score, Spec
from flowbench.store import Store
from flowbench.testing import toy
from flowbench.training import Run, fit

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

STEPS = 40
SPEC = Spec("cfm", "moons", 0, Budget(STEPS, 4))
PLAN: Any = Plan(SPEC, Protocol(50), (1,), method=None, data=None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Listener:
    """Keeps what it hears."""

    heard: list = field(default_factory=list)

    @hookimpl
    def observe(self, event):
        self.heard.append(event)

    def points(self):
        return [(p.stage, p.step, p.images, p.loss) for p in self.heard if isinstance(p, Point)]

    def scores(self):
        return [event for event in self.heard if isinstance(event, Score)]


@dataclass(frozen=True)
class Broken:
    """Fails at its `at`-th event."""

    at: int = 1
    kind: type[BaseException] = ValueError
    calls: list = field(default_factory=list)

    @hookimpl
    def observe(self, spec, event, folder):
        self.calls.append(event)
        if len(self.calls) >= self.at:
            raise self.kind("no\x1broom\nleft")


class Gambler:
    """Draws from every generator that a run may draw from."""

    @hookimpl
    def observe(self, event):
        torch.randn(3), np.random.rand(), random.random()


class Gone(BaseException):
    """Stands for a process that is killed."""


def observer(instance, name="listener"):
    return observation.Observer(name, name, plugins.manager(instance).hook.observe)


@pytest.fixture
def setup(tmp_path):
    return Setup(folder=tmp_path / "runs")


def attempt(setup, instances, number=1, stop=None, every=0.0, past=(), **settings):
    """Train the toy network once, until `stop`; the observers hear of it."""
    observers = [observer(i, type(i).__name__.lower()) for i in instances]
    begun = Begun(number, settings.pop("generation", 1))
    with observation.observed(PLAN, setup, observers, begun, past) as heard:
        folder = PLAN.folder(setup, begun.generation)
        run = Run(Budget(STEPS, 4), folder, every=every, observe=heard.observe, **settings)
        return trained(run, stop)


def trained(run, stop=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Dropout(0.1), nn.Linear(4, 64))
    steps = []

    def loss(x, y):
        steps.append(1)
        if len(steps) == stop:
            raise Gone
        return (net(x + torch.randn_like(x)) - x.flatten(1)).square().mean()

    return fit(net, loss, toy().train, run)


def continuous(setup):
    listener = Listener()
    attempt(replace(setup, folder=setup.folder / "continuous"), [listener])
    return listener.points()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("every", [0.0, math.inf], ids=["near checkpoint", "no checkpoint"])
def test_a_resumed_curve_has_each_step_once_and_equals_the_continuous_one(setup, every):
    listener = Listener()
    with pytest.raises(Gone):
        attempt(setup, [listener], stop=25, every=every)
    attempt(setup, [listener], number=2)
    assert listener.points() == continuous(setup)
    assert [step for _, step, _, _ in listener.points()] == [*range(1, STEPS + 1)]
    assert [e for e in listener.heard if not isinstance(e, Point)] == [
        *[Begun(1), Ended("interrupted"), Begun(2), Ended("ok")]
    ]


def test_without_its_ledger_an_observer_would_hear_a_point_twice(setup):
    listener = Listener()
    with pytest.raises(Gone):
        attempt(setup, [listener], stop=25)
    (PLAN.folder(setup) / observation.LEDGERS / "listener.json").unlink()
    attempt(setup, [listener], number=2)
    assert len(listener.points()) > STEPS


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"steps": [], "scores": []}', "\xff"])
def test_a_ledger_that_cannot_be_read_is_an_empty_one(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    ledger = observation.Ledger(path)
    assert not ledger.holds(Point("train", 1, 4, 0.5, 1.0))
    ledger.add(Point("train", 1, 4, 0.5, 1.0))
    assert observation.Ledger(path).holds(Point("train", 1, 4, 0.5, 1.0))


def test_an_observer_that_comes_late_hears_the_whole_curve_and_every_score(setup):
    early, late = Listener(), Broken(at=10**6)
    with pytest.raises(Gone):
        attempt(setup, [early], stop=25)
    past = [Score("parameters", 3.0), Score("fd", 0.5, 1, n=50)]
    attempt(setup, [early, late], number=2, past=past)
    points = [event for event in late.calls if isinstance(event, Point)]
    assert [p.step for p in points] == [*range(1, STEPS + 1)]
    assert [event for event in late.calls if isinstance(event, Score)] == past
    attempt(setup, [early, late], number=3, past=past)
    assert early.scores() == past, "a third time, nothing is handed over again"
    assert len([event for event in late.calls if isinstance(event, Point)]) == STEPS


def test_scores_that_differ_in_anything_are_not_the_same(tmp_path):
    ledger, score = observation.Ledger(tmp_path / "a.json"), Score("fd", 0.5, 1, n=50)
    ledger.add(score)
    assert ledger.holds(score._replace(value=0.7))
    others = [{"nfe": 2}, {"n": 51}, {"seed": 1}, {"subject": "floor"}, {"protocol": {"a": 1}}]
    assert not any(ledger.holds(score._replace(**other)) for other in others)


def test_what_an_observer_lost_when_it_was_killed_comes_again(setup):
    """Between an observer and its ledger, an event is handed over twice and never lost."""
    for killed in (False, True):
        listener, seen = Listener(), []
        inner = observation.Ledger.add

        def add(ledger, event, seen=seen, inner=inner):
            seen.append(event)
            if len(seen) == 20:
                raise Gone
            inner(ledger, event)

        own = replace(setup, folder=setup.folder / str(killed))
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(Gone) if killed else nullcontext(),
        ):
            if killed:
                patch.setattr(observation.Ledger, "add", add)
            attempt(own, [listener])
        attempt(own, [listener], number=2)
        steps = [step for _, step, _, _ in listener.points()]
        assert sorted(set(steps)) == [*range(1, STEPS + 1)]
        assert len(steps) - STEPS == (1 if killed else 0)


def test_an_observer_that_fails_is_told_of_once_and_left_out(setup):
    notes, broken, listener = [], Broken(at=5), Listener()
    setup = replace(setup, note=notes.append)
    after = attempt(setup, [broken, listener])
    assert notes == ["broken failed and hears no more of this run: ValueError: no?room?left"]
    assert len(broken.calls) == 5 and len(listener.points()) == STEPS
    without = trained(Run(Budget(STEPS, 4)))
    assert same(after.parameters(), without.parameters())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Gone])
def test_an_interruption_is_no_failure_of_the_observer(setup, kind):
    with pytest.raises(kind):
        attempt(setup, [Broken(at=3, kind=kind)])


def test_an_observer_that_ends_the_process_ends_only_itself(setup):
    attempt(setup, [Broken(kind=SystemExit)])


def test_an_observer_that_draws_random_numbers_changes_nothing(setup):
    random.seed(1), np.random.seed(1)
    before = random.getstate(), np.random.get_state()[2]
    after = attempt(setup, [Gambler()])
    assert same(after.parameters(), trained(Run(Budget(STEPS, 4))).parameters())
    assert (random.getstate(), np.random.get_state()[2]) == before


def test_the_guard_of_the_random_state_is_needed(setup, monkeypatch):
    monkeypatch.setattr(observation, "undisturbed", lambda device: nullcontext())
    after = attempt(setup, [Gambler()])
    assert not same(after.parameters(), trained(Run(Budget(STEPS, 4))).parameters())


def test_what_observers_take_is_no_time_of_training(setup, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    class Slow:
        @hookimpl
        def observe(self, event):
            clock[0] += 1000.0

    bill: dict = {}
    listener = Listener()
    attempt(setup, [Slow(), listener], bill=bill, every=math.inf)
    assert bill["train"]["seconds"] == 0.0 and clock[0] > 1000.0 * STEPS
    assert {p.seconds for p in listener.heard if isinstance(p, Point)} == {0.0}


@pytest.mark.parametrize(
    "error, ended",
    [
        (Diverged("the loss became nan"), Ended("diverged", "the loss became nan")),
        (RunFailed("no room"), Ended("failed", "no room")),
        (ValueError("a\x1bb"), Ended("failed", "ValueError: a?b")),
        (KeyboardInterrupt(), Ended("interrupted")),
    ],
)
def test_an_end_has_the_words_of_the_database(setup, error, ended):
    listener = Listener()
    with (
        pytest.raises(type(error)),
        observation.observed(PLAN, setup, [observer(listener)], Begun(1)),
    ):
        raise error
    assert listener.heard == [Begun(1), ended]


def test_each_generation_is_heard_of_anew(setup):
    listener = Listener()
    attempt(setup, [listener])
    attempt(setup, [listener], number=2, generation=2)
    assert len(listener.points()) == 2 * STEPS
    folders = [PLAN.folder(setup, generation) for generation in (1, 2)]
    begun = [next(journal.read(folder / journal.FILE)) for folder in folders]
    assert [(line["attempt"], line["generation"]) for line in begun] == [(1, 1), (2, 2)]


def test_words_of_observers_become_instances(monkeypatch):
    given = []
    monkeypatch.setattr(plugins, "observer", lambda *words: given.append(words) or Listener())
    found = observation.asked(["a", "b,x=1,y=u=v", "a", "b,x=2"])
    assert given == [("a", {}), ("b", {"x": "1", "y": "u=v"}), ("b", {"x": "2"})]
    assert len({o.key for o in found}) == 3, "each has a ledger of its own"


@pytest.mark.parametrize("word", ["tensorbord", "tensorboard,folder", "tensorboard,place=x", ""])
def test_a_wrong_word_is_refused_in_one_line_before_anything_is_trained(setup, tmp_path, word):
    with pytest.raises(FlowbenchError) as caught:
        observation.asked([word])
    assert "\n" not in str(caught.value)
    plan = planning.plan(Request("cfm", "moons", steps=1, batch=2, samples=2), setup)
    store = Store(f"sqlite:///{tmp_path}/r.db")
    failure = execution.execute(store, plan, replace(setup, track=(word,)))
    assert failure == str(caught.value)
    assert store.tried("moons") == [] and not setup.folder.exists()


def test_a_key_that_is_no_name_of_a_file_stays_in_the_folder(setup):
    own = observation.Observer("x", "../../x/y", plugins.manager(Listener()).hook.observe)
    with observation.observed(PLAN, setup, [own], Begun(1), [Score("a", 1.0)]):
        pass
    assert (PLAN.folder(setup) / observation.LEDGERS / ".._.._x_y.json").is_file()


@pytest.fixture
def small(setup):
    words = {"steps": 20, "batch": 32, "samples": 50, "nfe": (1,), "options": {"width": 8}}
    return planning.plan(Request("cfm", "moons", **words), setup)


def timeless(store, run):
    """The scores of a run that are neither times nor memory."""
    rows = [row.score for row in store.measured("moons") if row.run == run]
    return [s for s in rows if "seconds" not in s.name and s.name not in ("ms-per-sample",
            "peak-mib")]  # fmt: skip


def test_a_run_with_bad_observers_has_the_same_scores_bit_by_bit(
    setup, small, tmp_path, monkeypatch
):
    found = {"gambler": Gambler(), "broken": Broken(at=7)}
    monkeypatch.setattr(plugins, "observer", lambda name, words: found[name])
    rows = {}
    for track in ((), ("gambler", "broken")):
        store = Store(f"sqlite:///{tmp_path}/{len(track)}.db")
        own = replace(setup, folder=tmp_path / f"runs-{len(track)}", track=track)
        assert execution.execute(store, small, own) == ""
        rows[track] = timeless(store, small.spec.name)
    assert rows[()] == rows["gambler", "broken"] and len(rows[()]) > 5
    assert len(found["broken"].calls) == 7


def test_the_journal_of_a_run_holds_all_that_happened(setup, small, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/r.db")
    assert execution.execute(store, small, setup) == ""
    folder = small.folder(setup)
    lines = list(journal.read(folder / journal.FILE))
    assert [lines[0]["event"], lines[-1]["event"]] == ["begun", "ended"]
    assert lines[0]["run"] == small.spec.name and lines[-1]["outcome"] == "ok"
    times = [line["time"] for line in lines]
    assert times == sorted(times) and all(time.endswith("+00:00") for time in times)
    points = [(x["step"], x["loss"]) for x in lines if x["event"] == "point"]
    log = training_log.read(folder / training_log.FILE)
    assert points == [(p.step, p.loss) for p in log] and len(points) == 20
    scores = {(x["name"], x["nfe"], x["subject"]): x["value"] for x in lines if "subject" in x}
    stored = [row.score for row in store.measured("moons")]
    assert scores == {(s.name, s.nfe, s.subject): s.value for s in stored}
    before = (folder / journal.FILE).read_bytes()
    assert execution.execute(store, small, setup) == ""
    assert (folder / journal.FILE).read_bytes() == before, "nothing was done"


def test_a_teacher_is_heard_of_as_a_stage(setup, tmp_path, monkeypatch):
    listener = Listener()
    monkeypatch.setattr(plugins, "observer", lambda name, words: listener)
    words = {"steps": 6, "batch": 8, "samples": 20, "nfe": (1,), "options": {"width": 8}}
    plan = planning.plan(Request("ctm", "moons", **words), setup)
    store = Store(f"sqlite:///{tmp_path}/r.db")
    assert execution.execute(store, plan, replace(setup, track=("listener",))) == ""
    steps = {stage: [s for n, s, _, _ in listener.points() if n == stage]
             for stage, *_ in listener.points()}  # fmt: skip
    assert steps == {"teacher edm: train": [*range(1, 7)], "train": [*range(1, 7)]}


def test_numbers_that_are_not_finite_are_null_in_the_journal(tmp_path):
    for value in (math.nan, math.inf, -math.inf):
        journal.observe(SPEC, Score("fd", value, 1), tmp_path)
        journal.observe(SPEC, Point("train", 1, 4, value, 0.5), tmp_path)
    text = (tmp_path / journal.FILE).read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [line.get("value", line.get("loss")) for line in lines] == [None] * 6


def test_a_torn_line_of_the_journal_costs_no_other(tmp_path):
    path = tmp_path / journal.FILE
    journal.observe(SPEC, Begun(1), tmp_path)
    path.write_bytes(path.read_bytes() + b'{"event": "poi')
    for event in (Begun(2), Ended("ok")):
        journal.observe(SPEC, event, tmp_path)
    path.write_bytes(path.read_bytes() + b"[3]\nnull\n" + b"[" * 9999 + b"\n\xff\n")
    assert [x["event"] for x in journal.read(path)] == ["begun", "begun", "ended"]


def test_the_lines_of_the_journal_are_in_the_order_of_time(setup):
    attempt(setup, [])
    lines = list(journal.read(PLAN.folder(setup) / journal.FILE))
    assert all(a["time"] <= b["time"] for a, b in pairwise(lines)) and len(lines) == STEPS + 2


def test_a_setup_travels_without_what_belongs_to_its_process(setup):
    own = replace(setup, track=("tensorboard",))
    travels = {n: v for n, v in vars(own).items() if n not in ("watch", "note", "observe")}
    assert Setup(**pickle.loads(pickle.dumps(travels))).track == ("tensorboard",)


def test_the_journal_takes_no_torch():
    code = "import sys; import flowbench.journal; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
