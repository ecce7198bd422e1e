"""Whole runs on 1, 2 and 4 ranks: equal samples and scores, one rank that writes and speaks."""

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import several_ranks as several
import torch

from flowbench import ranks, sampling
from flowbench.planning import Setup
from flowbench.records import ADAPTIVE

COST = ("seconds", "ms-per", "peak-mib")  # what is measured anew each time
QUERY = """select runs.name, scores.subject, scores.name, nfe, n, value from scores
    join attempts on attempts.id = attempt_id join runs on runs.id = run_id"""
TINY = ["--steps", "3", "--batch", "32", "--nfe", "1,2", "--micro-batch", "8", "--threads", "1"]
LMM = ["lmm", "--dataset", "moons", *TINY, "--samples", "50", "-o", "pairs=60", "--seed", "0,1"]
CFM = ["cfm", "--dataset", "moons", *TINY, "--samples", "40"]
EDM = ["edm", "--dataset", "digits", *TINY, "--samples", "40"]


def ran(*words):
    """Exit code and output of a command, with small shards of samples."""
    from click.testing import CliRunner

    from flowbench.cli import cli

    sampling.SHARD = 24
    result = CliRunner().invoke(cli, ["run", *words])
    return result.exit_code, result.output


def scores(path):
    """What a database holds, but for what is measured anew each time."""
    with sqlite3.connect(path) as connection:
        rows = {tuple(row[:-1]): row[-1] for row in connection.execute(QUERY)}
    return {key: value for key, value in rows.items() if not any(word in key[2] for word in COST)}


def made(folder, world, words):
    """The scores of a command on so many ranks."""
    place = ["--db", str(folder / f"{world}.db"), "--runs", str(folder / f"runs-{world}")]
    answers = several.launch(world, ran, *words, *place)
    assert [code for code, _ in answers] == [0] * world, answers
    assert not any(output for _, output in answers[1:]), "only the first speaks"
    return scores(folder / f"{world}.db")


@pytest.mark.slow
@pytest.mark.parametrize("words", [LMM, EDM], ids=["lmm", "edm"])
def test_1_2_and_4_ranks_give_equal_scores(tmp_path, words):
    alone = made(tmp_path, 1, words)
    assert len(alone) > 10
    assert made(tmp_path, 2, words) == alone
    assert made(tmp_path, 4, words) == alone
    samples = [sorted(tmp_path.glob(f"runs-{n}/*/samples-*.safetensors")) for n in (1, 2, 4)]
    assert len(samples[0]) in (2, 4)
    contents = [[path.read_bytes() for path in some] for some in samples]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.slow
def test_torchrun_starts_them_and_the_same_command_finds_nothing_left(tmp_path):
    place = ["--db", str(tmp_path / "r.db"), "--runs", str(tmp_path / "runs")]
    words = ["run", *CFM, *place]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "flowbench", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "cfm" in done.stdout and done.stdout.count("floor (n") == 1
    code, output = ran(*words[1:])
    assert code == 0 and "every score is there already" in output
    with sqlite3.connect(tmp_path / "r.db") as connection:
        (device,) = connection.execute("select device from environments").fetchone()
    assert device.startswith("2 x ")


METHODS = {
    **{name: {} for name in ("edm", "cfm", "bot-cfm", "ict", "shortcut", "mean-flow", "ctm")},
    "rect-flow": {"pairs": 40},
    "lfm": {"blocks": 2, "push": 1},  # which takes no --nfe 1
    "lmm": {"pairs": 40},
}


def trained(folder, world):
    """The weights of every method on moons after two steps, whatever else it needs."""
    from flowbench import planning, runner
    from flowbench.planning import Request, Setup

    found, setup = {}, Setup(folder=folder / str(world), micro_batch=8)
    for name, options in METHODS.items():
        options = {"width": 16, **options}
        request = Request(name, "moons", steps=2, batch=16, options=options, nfe=(2,))
        plan = planning.plan(request, setup)
        network = runner.train(plan, setup, plan.folder(setup)).network
        found[name] = [weight.detach() for weight in network.parameters()]
    return found


@pytest.mark.slow
def test_every_method_trains_to_the_same_bits(tmp_path):
    alone = trained(tmp_path, 1)
    for found in several.run(2, trained, tmp_path, 2):
        different = [
            name
            for name, weights in alone.items()
            if not all(map(torch.equal, weights, found[name]))
        ]
        assert not different


def drawn(nfe, samples=1300):
    """Which indices a sampler asks for together on this rank, and what it gets."""
    from types import SimpleNamespace as Some

    calls = []

    def sample(noise, labels, meter, **given):
        calls.append(len(noise))
        meter["nfe"] = nfe or 7.0 + len(noise)
        return 2 * noise

    data = Some(shape=(2,), classes=0, kind="vector", device="cpu")
    protocol, spec = Some(samples=samples, seed=0), Some(method="stub")
    sampling.SHARD = 600
    with tempfile.TemporaryDirectory() as folder:
        folder = ranks.told(folder)
        plan, hook = Some(data=data, protocol=protocol, spec=spec), Some(sample=sample)
        sampler = sampling.Sampler(plan, Setup(), Path(folder), hook, torch.nn.Linear(1, 1), 250)
        sampler.weights = "the same"
        made, facts = sampler.samples(nfe)
        ranks.wait()
    return calls, made, facts["nfe"]


@pytest.mark.parametrize("nfe", [2, ADAPTIVE])
def test_batches_of_samples_are_those_of_one_process(nfe, monkeypatch):
    monkeypatch.setattr(sampling, "SHARD", sampling.SHARD)
    calls, made, spent = drawn(nfe)
    assert set(calls) == ({256, 104} if nfe == 2 else {250, 100}), "filled to a multiple of 8"
    shared = several.run(3, drawn, nfe)
    assert sorted(n for own, *_ in shared for n in own) == sorted(calls)
    assert all(own for own, *_ in shared), "every rank has drawn some"
    for _, other, counted in shared:
        assert torch.equal(other, made) and counted == spent


def failing(folder, broken):
    """A run of two seeds in which something goes wrong, as `broken` says."""
    from flowbench import runner
    from flowbench.records import Diverged

    train = runner.train

    def wrong(plan, setup, place):
        if plan.spec.seed == 0 and broken == "all":
            raise Diverged("the loss became nan")
        if plan.spec.seed == 0 and (broken, ranks.own()) in (("first", 0), ("second", 1)):
            raise ValueError("a mistake of one rank")
        return train(plan, setup, place)

    runner.train = wrong
    return ran(*CFM, "--seed", "0,1", "--db", str(folder / "r.db"), "--runs", str(folder / "runs"))


def outcomes(folder):
    with sqlite3.connect(folder / "r.db") as connection:
        return [row[0] for row in connection.execute("select outcome from attempts order by id")]


def test_what_all_meet_ends_one_run_and_they_go_on_with_the_next(tmp_path):
    (code, output), (other, _) = several.launch(2, failing, tmp_path, "all")
    assert code == 3 and "the loss became nan" in output and other == 0
    assert outcomes(tmp_path) == ["diverged", "ok"]


def test_what_one_meets_alone_ends_the_launch(tmp_path):
    (code, output), (other, said) = several.launch(2, failing, tmp_path, "first")
    assert code == 3 and "a mistake of one rank" in output
    assert other == 3 and "another process of this run has ended" in said
    assert outcomes(tmp_path) == ["failed"], "the next seed was not begun without the others"


def test_the_mistake_of_another_rank_is_one_line_too(tmp_path):
    (code, output), (other, said) = several.launch(2, failing, tmp_path, "second")
    assert code == 3 and "another process of this run has ended" in output
    assert other == 3 and "rank 1: " in said and "ValueError: a mistake of one rank" in said
    assert "Traceback" not in said and said.count("\n") == 1
    (log,) = (tmp_path / "runs").glob("*.error-1.log")
    assert "Traceback" in log.read_text()
    assert outcomes(tmp_path) == ["failed"]


def test_variables_that_are_not_torchruns_are_named_and_nobody_is_waited_for(
    flowbench, monkeypatch
):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    words = ["cfm", "--dataset", "moons", *TINY[:4], "--nfe", "1", "--samples", "10"]
    code, output = flowbench("run", *words)
    assert code == 0 and "not by torchrun: this process runs alone" in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "s.toml"], "torchrun is for one run METHOD, without --suite"),
        (["cfm", "--dataset", "moons", "--timeout", "5m"], "without --timeout"),
        (["cfm", "--dataset", "moons", "--smoke"], "without --smoke"),
        (["cfm", "--dataset", "moons", "--dry-run"], "without --dry-run or --explain"),
        (["cfm", "--dataset", "moons", "--device", "cuda:1"], "give --device cuda, not cuda:1"),
    ],
)
def test_words_that_several_processes_do_not_take(flowbench, monkeypatch, words, said):
    place = (("MASTER_ADDR", "127.0.0.1"), ("TORCHELASTIC_RUN_ID", "tests"))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), *place):
        monkeypatch.setenv(name, value)
    code, output = flowbench("run", *words)
    assert code == 2 and said in output
