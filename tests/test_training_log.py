"""The training log: every loss counted once, exact over interruptions, no part in training."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import nn

from flowbench import training_log
from flowbench.events import Point
from flowbench.records import Budget, Diverged
from flowbench.testing import Killed, Stop, toy
from flowbench.training import Run, fit
from flowbench.training_log import FILE, read

LONG = Budget(steps=450, batch=4)  # a point for every three steps


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.1), nn.Linear(8, 64))


def trained(run):
    model = net()
    return fit(model, loss_of(model), toy().train, run)


def loss_of(model):
    return lambda x, y: (model(x + torch.randn_like(x)) - x.flatten(1)).square().mean()


def untimed(points):
    return [(p.stage, p.step, p.images, p.loss) for p in points]


@dataclass
class Lost(Run):
    """A run whose process is lost at step `stop`; the last checkpoint is that of step `kept`."""

    kept: int = 0
    stop: int = 0
    every: float = math.inf

    def log(self, loss, rival=False):
        super().log(loss, rival)
        self.step = getattr(self, "step", 0) + 1
        self.every = 0.0 if self.step == self.kept else math.inf
        if self.step == self.stop:
            raise Stop


def counted(run, values):
    """Spend a run on losses that are known."""
    for value, _ in zip(values, run.batches(toy().train), strict=True):
        run.log(torch.tensor(value))


def test_a_point_is_the_mean_of_the_losses_since_the_point_before(tmp_path):
    values = [float(k * k) for k in range(LONG.steps)]
    counted(Run(LONG, tmp_path), values)
    points = read(tmp_path / FILE)
    assert [p.step for p in points] == list(range(3, 451, 3))
    assert [p.images for p in points] == [4 * p.step for p in points]
    for point in points:
        mean = sum(values[point.step - 3 : point.step]) / 3
        assert point.loss == pytest.approx(mean, rel=1e-12)
    assert all(a.seconds <= b.seconds for a, b in pairwise(points))


@pytest.mark.parametrize("steps, points", [(1, 1), (7, 7), (200, 200), (201, 101), (2000, 200)])
def test_a_stage_has_at_most_200_points_and_one_at_its_end(tmp_path, steps, points):
    counted(Run(Budget(steps, 1), tmp_path), [1.0] * steps)
    found = read(tmp_path / FILE)
    assert len(found) == points and found[-1].step == steps


def test_the_log_has_no_part_in_training(tmp_path):
    with_log, without = trained(Run(LONG, tmp_path)), trained(Run(LONG))
    assert read(tmp_path / FILE)
    for a, b in zip(with_log.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kept, stop", [(100, 100), (100, 101), (100, 250), (99, 103), (0, 50)])
def test_an_interrupted_log_equals_that_of_an_undisturbed_run(tmp_path, kept, stop):
    with pytest.raises(Stop):
        trained(Lost(LONG, tmp_path / "a", kept=kept, stop=stop))
    trained(Run(LONG, tmp_path / "a"))
    trained(Run(LONG, tmp_path / "b"))
    found, expected = read(tmp_path / "a" / FILE), read(tmp_path / "b" / FILE)
    assert untimed(found) == untimed(expected) and len(found) == 150
    seconds = [p.seconds for p in found]
    assert seconds == sorted(seconds)


def test_a_forgotten_part_of_a_mean_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log.Log, "state", {"sum": 0.0, "count": 0})
    with pytest.raises(Stop):
        trained(Lost(LONG, tmp_path / "a", kept=100, stop=250))
    trained(Run(LONG, tmp_path / "a"))
    trained(Run(LONG, tmp_path / "b"))
    assert untimed(read(tmp_path / "a" / FILE)) != untimed(read(tmp_path / "b" / FILE))


def test_a_finished_stage_keeps_its_log_as_it_is(tmp_path):
    trained(Run(Budget(9, 4), tmp_path))
    before = (tmp_path / FILE).read_bytes()
    trained(Run(Budget(9, 4), tmp_path))
    assert (tmp_path / FILE).read_bytes() == before


def test_stages_share_a_file_and_one_begins_anew_alone(tmp_path):
    run = Run(Budget(20, 4), tmp_path)
    first, second = run.stage("first", 0.5), run.stage("second", 0.5, 0.5)
    counted(first, [1.0] * 10)
    with pytest.raises(Stop):
        lost = Lost(Budget(10, 4), tmp_path, name="second", stop=5)
        for _ in lost.batches(toy().train):
            lost.log(torch.tensor(9.0))
    counted(second, [2.0] * 10)
    points = read(tmp_path / FILE)
    assert [p.stage for p in points] == ["first"] * 10 + ["second"] * 10
    assert {p.loss for p in points if p.stage == "second"} == {2.0}


def test_a_torn_line_is_ignored_and_gone_after_the_next_start(tmp_path):
    with pytest.raises(Stop):
        trained(Killed(Budget(9, 4), tmp_path, every=0))
    path = tmp_path / FILE
    with path.open("a") as file:
        file.write('{"stage": "train", "ste')
    assert [p.step for p in read(path)] == [1, 2, 3]
    trained(Run(Budget(9, 4), tmp_path))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [*range(1, 10)]


def test_a_checkpoint_from_before_there_was_a_log_goes_on(tmp_path):
    from flowbench.checkpoints import load_state, save_state

    with pytest.raises(Stop):
        trained(Killed(Budget(9, 4), tmp_path, every=0))
    state = load_state(tmp_path / "train.pt")
    del state["losses"]
    save_state(tmp_path / "train.pt", state)
    (tmp_path / FILE).unlink()
    trained(Run(Budget(9, 4), tmp_path))
    assert [p.step for p in read(tmp_path / FILE)] == [*range(4, 10)]


def test_the_losses_of_a_rival_are_left_out(tmp_path):
    run = Run(Budget(8, 4), tmp_path)
    for step, _ in enumerate(run.batches(toy().train)):
        run.log(torch.tensor(100.0 if step % 2 else 1.0), rival=bool(step % 2))
    points = read(tmp_path / FILE)
    assert {p.loss for p in points} == {1.0} and [p.step for p in points] == [1, 3, 5, 7]


def test_a_loss_that_is_not_finite_is_a_gap(tmp_path):
    with pytest.raises(Diverged):
        counted(Run(Budget(2, 4), tmp_path), [1.0, math.inf])
    text = (tmp_path / FILE).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert math.isnan(read(tmp_path / FILE)[-1].loss)


def test_nothing_is_kept_without_a_folder_or_a_loss(tmp_path):
    counted(Run(Budget(3, 4)), [1.0] * 3)
    assert len(list(Run(Budget(3, 4), tmp_path / "a").batches(toy().train))) == 3
    assert not (tmp_path / "a" / FILE).exists() and not (tmp_path / FILE).exists()


GOOD = '{"stage": "train", "step": 3, "images": 12, "loss": 0.5, "seconds": 1.0}'


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"3",
        GOOD[:-9].encode(),
        GOOD.replace("3,", '"3",').encode(),
        GOOD.replace("3,", "true,").encode(),
        GOOD.replace("0.5", '"low"').encode(),
        GOOD.replace("0.5", "1" + "0" * 400).encode(),
        GOOD.replace("0.5", "[" * 100_000).encode(),
        GOOD.replace('"train"', '{"a": 1}').encode(),
    ],
)
def test_lines_that_are_no_points_are_left_out(tmp_path, line):
    path = tmp_path / FILE
    path.write_bytes(GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode() + b"\n")
    assert read(path) == [Point("train", 3, 12, 0.5, 1.0)] * 2


def test_no_file_has_no_points(tmp_path):
    assert read(tmp_path / "nothing.jsonl") == [] == read(tmp_path)


def test_reading_takes_no_torch():
    code = "import sys; import flowbench.training_log; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


SMALL = ["--dataset", "moons", "--steps", "20", "--batch", "32", "--samples", "50", "--nfe", "1"]
SMALL += ["--quiet"]


def test_a_run_keeps_its_log_as_a_file(flowbench, database, tmp_path):
    from flowbench.checkpoints import file_hash
    from flowbench.store import Store

    words = ["run", "lmm", *SMALL, "-o", "pairs=32", "-o", "pair_steps=3", "-o", "sot=0.5"]
    words += ["-o", "sampler=paper"]
    assert flowbench(*words)[0] == 0
    store = Store(f"sqlite:///{database}")
    spec = store.find("moons-lmm")
    (log,) = [file for file in store.artifacts(spec.name) if file.role == "training-log"]
    assert file_hash(tmp_path / "runs" / log.path) == log.sha256
    points = read(tmp_path / "runs" / log.path)
    assert [p.stage for p in points] == ["lines"] * 10 + ["sot"] * 10
    assert len(read(next((tmp_path / "runs").glob("moons-edm-*/")) / FILE)) == 20, "its teacher's"


def test_a_chain_keeps_the_losses_of_every_block(tmp_path):
    from flowbench_plugins.lfm import LFM

    from flowbench import meters, plugins

    run, data = Run(Budget(16, 8), tmp_path), toy("vector")
    hook = plugins.manager(LFM(width=8), meters).hook
    hook.train(data=data, run=run, teacher=None, meter={})
    stages = [p.stage for p in read(tmp_path / FILE)]
    assert list(dict.fromkeys(stages)) == ["block-1", "block-2", "block-3", "block-4"]
    assert 8 * len(stages) == sum(run.bill[stage]["images"] for stage in set(stages))
