"""The same seed gives the same bits on a CPU: in batches of any size, by any number of workers."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from flowbench import plugins, runner, sampling
from flowbench.planning import Request, Setup, plan
from flowbench.sampling import Sampler

ROOT = Path(__file__).parent.parent
OPTIONS = {
    "ctm": {"start": "random"},
    "lfm": {"blocks": 2},
    "lmm": {"pairs": 64, "pair_steps": 2},
    "rect-flow": {"pairs": 64, "pair_steps": 2},
}
METHODS = sorted(set(plugins.methods()) - {"exact"})
# Costs of a run, which no seed decides.
MEASURED = ("ms-per-sample", "peak-mib", "train-seconds")


def sampler(folder, method, dataset="moons", **setup):
    """A network that was trained a little, and what draws from it."""
    known = plugins.method_class(method).__dataclass_fields__
    options = OPTIONS.get(method, {}) | ({"width": 16} if "width" in known else {})
    request = Request(method, dataset, steps=2, batch=16, samples=60, nfe=(2,), options=options)
    setup = Setup(folder=folder, **setup)
    planned = plan(request, setup)
    network = runner.train(planned, setup, planned.folder(setup)).network
    return Sampler(planned, setup, folder, runner.hooks(planned), network)


def drawn(made, batch):
    """All samples, so many at once."""
    made.batch = batch
    return made._shards([range(60)], 2)[0][0]


@pytest.mark.parametrize("method", METHODS)
def test_samples_are_the_same_bits_in_batches_of_any_size(tmp_path, method):
    made = sampler(tmp_path, method, "digits" if method == "edm" else "moons")
    whole = drawn(made, 500)
    for batch in (37, 16, 7, 1):
        assert torch.equal(drawn(made, batch), whole), batch


def test_a_method_whose_samples_hang_on_their_batch_would_be_noticed(tmp_path):
    made, call = sampler(tmp_path, "cfm"), Sampler.call

    class Centred(Sampler):
        def call(self, noise, indices, nfe):
            samples, spent = call(self, noise, indices, nfe)
            return samples - samples.mean(0), spent

    made = Centred(made.plan, made.setup, made.folder, made.hook, made.network)
    assert not torch.equal(drawn(made, 7), drawn(made, 500))


def test_a_device_that_holds_fewer_samples_at_once_makes_the_same(tmp_path, monkeypatch):
    said: list[str] = []
    made, call = sampler(tmp_path, "cfm", note=said.append), Sampler.call
    whole = drawn(made, 500)

    def cramped(self, noise, indices, nfe):
        if len(noise) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, noise, indices, nfe)

    monkeypatch.setattr(Sampler, "call", cramped)
    assert torch.equal(drawn(made, 500), whole)
    assert said and made.batch <= 20


def test_rows_are_filled_up_but_not_for_a_solver_that_adapts(tmp_path, monkeypatch):
    rows, call = [], Sampler.call

    def counted(self, noise, indices, nfe):
        rows.append(len(noise))
        return call(self, noise, indices, nfe)

    monkeypatch.setattr(Sampler, "call", counted)
    made = sampler(tmp_path, "cfm")
    drawn(made, 37)
    assert rows == [40, 24]
    assert sampling.ROWS == 8


SUITE = """
[suite]
title = "Three"
dataset = "moons"
nfe = [1]
steps = 20
batch = 32
samples = 100
seeds = [0, 1]

[[method]]
label = "CFM"
method = "cfm"

[[method]]
label = "LMM"
method = "lmm"
options = { pairs = 64, pair_steps = 2 }
"""


def scores(database):
    """Every number that a seed decides, by the run that made it."""
    words = """select runs.name, scores.subject, scores.name, nfe, n, value from scores
               join attempts on attempts.id = attempt_id join runs on runs.id = run_id"""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(words).fetchall()
    found = sorted(row for row in rows if not row[2].startswith(MEASURED))
    assert len({row[:5] for row in found}) == len(found) > 0
    return found


@pytest.mark.slow
def test_a_suite_makes_the_same_bits_with_any_number_of_workers(flowbench, tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    made = {}
    for jobs in ("1", "2", "4"):
        database = tmp_path / jobs / "results.db"
        database.parent.mkdir()
        words = ("run", "--suite", str(tmp_path / "suite.toml"), "--db", str(database))
        code, output = flowbench(*words, "--jobs", jobs, "--device", "cpu", "--quiet")
        assert code == 0, output
        made[jobs] = scores(database)
    assert made["1"] == made["2"] == made["4"]


@pytest.mark.slow
def test_every_built_in_of_the_smoke_suite_is_reproduced_to_the_last_bit(flowbench, database):
    path = str(ROOT / "benchmarks/smoke.toml")
    code, output = flowbench("run", "--suite", path, "--device", "cpu")
    assert code == 0, output
    code, output = flowbench("compare", "--suite", path, "--strict")
    assert code == 0, output
    with closing(sqlite3.connect(database)) as connection:
        runs = dict(connection.execute("select name, method from runs where dataset = 'moons'"))
    assert set(runs.values()) == set(METHODS)
    for name in runs:
        code, output = flowbench("reproduce", name, "--device", "cpu", "--quiet")
        assert (code, output.splitlines()[-1].count("equal")) == (0, 1), output


def test_deterministic_mode_is_on_in_a_run_and_off_after_it(flowbench, database, monkeypatch):
    seen, examined = [], runner.Examination

    class Watched(examined):
        def costs(self, *arguments):
            seen.append(torch.are_deterministic_algorithms_enabled())
            seen.append(torch.backends.cudnn.deterministic)
            return super().costs(*arguments)

    monkeypatch.setattr(runner, "Examination", Watched)
    words = ("run", "cfm", "--dataset", "moons", "--steps", "4", "--samples", "20", "--nfe", "1")
    assert flowbench(*words, "--deterministic", "--device", "cpu", "--quiet")[0] == 0
    assert seen == [True, True] and not torch.are_deterministic_algorithms_enabled()
    with closing(sqlite3.connect(database)) as connection:
        (facts,) = connection.execute("select json from environments").fetchone()
    assert '"deterministic": true' in facts
    assert flowbench(*words, "--device", "cpu", "--force", "--quiet")[0] == 0
    assert seen[2:] == [False, False]


@pytest.mark.parametrize("method", METHODS)
def test_every_built_in_has_deterministic_kernels_and_the_same_bits_on_a_cpu(tmp_path, method):
    from flowbench import determinism

    usual = drawn(sampler(tmp_path / "usual", method), 500)
    with determinism.mode(True):
        assert torch.equal(drawn(sampler(tmp_path / "mode", method), 500), usual)
