"""The benchmark of ourselves: its arithmetic, that its loops are equal, and that it runs."""

import copy
import json
import tempfile
from dataclasses import replace
from itertools import chain, count, repeat
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.speed import __main__ as command
from benchmarks.speed import growth, harness, loops, networks, tables
from benchmarks.speed.harness import LeftOut, Result, Times
from flowbench import training as fits
from flowbench.records import Budget, digest
from flowbench.training import Run


def test_times():
    times = Times((4.0, 1.0, 2.0, 3.0, 10.0))
    assert (times.median, times.least, times.spread) == (3.0, 1.0, 2 / 3)
    assert Times((2.0,)).spread == 0


class Clock:
    """A clock that only work moves, each call by the next of its numbers."""

    def __init__(self, ours, theirs):
        self.now, self.steps, self.calls = 0.0, {"A": iter(ours), "B": iter(theirs)}, ""

    def __call__(self):
        return self.now, self.now / 2

    def work(self, name):
        def call():
            self.calls += name
            self.now += next(self.steps[name])

        return call


def test_turns_are_abba_and_the_warm_up_is_in_no_number():
    clock = Clock([100, 1, 2, 3, 4], [200, 2, 4, 9, 8])
    ours, theirs = harness.alternate(clock.work("A"), clock.work("B"), 4, clock=clock)
    assert clock.calls == "AB" + "ABBAABBA"
    assert (ours.seconds, theirs.seconds) == ((1, 2, 3, 4), (2, 4, 9, 8))
    assert ours.cpu == (0.5, 1, 1.5, 2)
    assert Result("", "", ours, theirs).ratio == 2  # the median of the pairs 2, 2, 3, 2


def test_slow_work_ends_after_three_repeats():
    clock = Clock(repeat(10.0), repeat(10.0))
    ours, _ = harness.alternate(clock.work("A"), clock.work("B"), 50, seconds=30, clock=clock)
    assert len(ours.seconds) == 3
    clock = Clock(chain([9.0], count(1)), [])
    assert harness.repeat(clock.work("A"), 3, clock=clock).seconds == (1, 2, 3)


@pytest.mark.parametrize(
    ("goal", "ratio", "verdict"),
    [
        ("at most 0.50", 0.5, True),
        ("at most 0.49", 0.5, False),
        ("at most 5 %", 0.5, False),
        ("at most 50 % of that step", 0.5, True),
        ("at least 2 times as fast", 2, True),
        ("at least 2.1 times as fast", 2, False),
        ("at most 1 s", 0.5, True),
        ("at most 999 ms", 0.5, False),
        ("", 2, None),
        ("as fast as light", 2, None),
    ],
)
def test_goals(goal, ratio, verdict):
    result = Result("case", "other", Times((1.0,)), Times((2.0,)), goal=goal)
    assert (result.ratio, result.verdict) == (ratio, verdict)
    assert replace(result, met=False).verdict is False
    alone = replace(result, theirs=None)
    assert alone.ratio is None and alone.verdict in (None, verdict)


def outcome(**given):
    facts = {"count": 10, "sizes": [1, 2]}
    results = {
        "training": [
            Result("step", "bare loop", Times((1.0, 2.0)), Times((2.0, 2.0)), goal="at most 1.03"),
            Result("start", "", Times((0.1,)), unit="ms", goal="at most 0.2 s"),
        ],
        "sampling": [Result("x", "y", Times((2.0,)), Times((1.0,)), "images/s", facts=facts)],
    }
    left = {"sampling": [LeftOut("against torchcfm", "package torchcfm is not installed")]}
    return tables.Outcome({**tables.machine("cpu", True), **given}, results, left)


def test_what_is_written_is_read(tmp_path):
    made = outcome()
    tables.write(made, tmp_path)
    kept = tables.read(tmp_path / "speed.json")
    assert tables.markdown(kept) == tables.markdown(made) == (tmp_path / "results.md").read_text()
    assert kept.results["training"][0].theirs.seconds == (2.0, 2.0)
    raw = json.loads((tmp_path / "speed.json").read_text())
    assert (
        raw["results"]["training"][0] | {"ratio": 0.75, "verdict": True}
        == (raw["results"]["training"][0])
    )


def test_what_did_not_run_is_kept_on_the_same_machine_only(tmp_path):
    tables.write(outcome(), tmp_path)
    some = replace(outcome(), results={"training": []}, left_out={})
    tables.write(some, tmp_path)
    assert set(tables.read(tmp_path / "speed.json").results) == {"training", "sampling"}
    tables.write(replace(some, machine={**some.machine, "torch": "0"}), tmp_path)
    assert set(tables.read(tmp_path / "speed.json").results) == {"training"}


def test_the_table_fits_a_terminal():
    text = tables.terminal(outcome())
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    assert "0.75 x" in text and "100 ms" in text and "5 images/s" in text
    assert "left out: sampling: against torchcfm: package torchcfm is not installed" in text


def test_exponents():
    times = [Times((3 * size**1.7,)) for size in (2, 4, 8)]
    assert growth.exponent((2, 4, 8), times) == pytest.approx(1.7)
    found = growth.measured(growth.Growth("x", (1, 2), lambda n: lambda: None, -100), 1)
    assert found.verdict is False


def flow_loss(net, x):
    noise = torch.randn_like(x)
    return (net(noise + x, torch.rand(len(x)), None) - x).square().mean()


@pytest.mark.parametrize("make", [networks.vectors, networks.images])
def test_the_bare_loop_does_what_ours_does_bit_by_bit(make):
    case = make(True, "cpu")
    ours, steps = copy.deepcopy(case.network), 4
    source = loops.Turns(case, loops.Bare(case, flow_loss, steps), 100)
    source.theirs = [(0.0, 0.0)] * 100  # nobody else has a turn
    run = Run(Budget(steps, case.batch))
    given = {"lr": loops.LR, "ema": loops.EMA}
    average = fits.fit(ours, lambda x, y: flow_loss(ours, x), source, run, **given)
    seed = int(digest([run.seed, run.name])[:12], 16)
    torch.manual_seed(seed)
    bare = loops.Bare(case, flow_loss, steps, seed)
    for _ in range(steps):
        bare.step()
    for mine, theirs in ((ours, bare.net), (average, bare.average)):
        assert all(map(torch.equal, mine.state_dict().values(), theirs.state_dict().values()))
    assert not torch.equal(next(ours.parameters()), next(case.network.parameters()))


def test_both_train_in_turns():
    case = networks.vectors(True, "cpu")
    order = []

    class Other(loops.Bare):
        def step(self):
            order.append("theirs")
            return super().step()

    def loss(net, x):
        order.append("ours")
        return flow_loss(net, x)

    train = loops.fitting(case, loss)
    found = loops.compare(case, train, lambda steps: Other(case, flow_loss, steps), 0.01)
    assert len(found.ours.seconds) == len(found.theirs.seconds) == 4
    ours = "".join(word[0] for word in order[5:])  # behind the estimate of a step
    assert ours.startswith("tootto" if found.block == 1 else "t" * found.block)


def test_missing_packages_and_failures_are_named(monkeypatch):
    assert harness.missing("torch", "no_such_package") == harness.absent("no_such_package")
    assert harness.missing("torch") is None

    def module(error):
        def measure(quick):
            yield Result("first", "", Times((1.0,)))
            raise error

        monkeypatch.setattr(
            command, "import_module", lambda name: type("M", (), {"measure": measure})
        )
        return list(command.measured("any", True, "cpu"))[1]

    gone = module(ModuleNotFoundError("No module named 'torchcfm'", name="torchcfm"))
    assert gone.reason == harness.absent("torchcfm")
    broken = module(ModuleNotFoundError("no", name="flowbench.nothing"))
    assert broken.reason.startswith("FAILED")
    assert module(ValueError("one\ntwo")).reason == "FAILED with ValueError: one"


def test_an_unknown_name_says_what_there_is():
    result = CliRunner().invoke(command.main, ["nothing"])
    assert result.exit_code == 2 and "there are training, sampling" in result.output


@pytest.mark.slow
def test_a_quick_run_of_all_prints_what_it_writes():
    with tempfile.TemporaryDirectory() as folder:
        result = CliRunner().invoke(command.main, ["--quick", "-o", folder])
        assert result.exit_code == 0, result.output
        kept = tables.read(Path(folder) / "speed.json")
        assert list(kept.results) == command.names()
        assert tables.terminal(kept) in result.output
        assert all(kept.results[name] or kept.left_out[name] for name in kept.results)
        for some in kept.results.values():
            assert all(min(each.ours.seconds) > 0 for each in some)
