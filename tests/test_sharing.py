"""Runs that differ only in how they sample share one trained network."""

import pytest

from flowbench import planning, runner
from flowbench.checkpoints import read_tensors, save_tensors
from flowbench.plans import Request, Setup

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

TINY = {"steps": 4, "batch": 16, "samples": 8, "nfe": (1, 2)}
SMALL = {"pairs": "32", "pair_steps": "3", "width": "8"}


def plan(method, setup, **options):
    return planning.plan(Request(method, "digits", options=SMALL | options, **TINY), setup)


def ctm(setup, **options):
    request = Request("ctm", "digits", options={"width": "8"} | options, **TINY)
    return planning.plan(request, setup)


def done(plan, setup):
    return list(runner.run(plan, setup, runner.expected(plan, setup)))


@pytest.fixture
def stages(tmp_path):
    """A setup, and the stages of training that it has seen."""
    seen = []
    return Setup(folder=tmp_path, watch=lambda progress: seen.append(progress.stage)), seen


def test_a_run_with_other_sampling_trains_nothing_anew(stages):
    setup, seen = stages
    first, second = plan("lmm", setup), plan("lmm", setup, sampler="paper")
    assert first.trained is None and second.trained.spec.key == first.spec.key
    assert first.spec.key != second.spec.key
    found = done(first, setup)
    assert "lines" in seen
    seen.clear()
    other = done(second, setup)
    assert not {"lines", "pairs"} & set(seen)
    networks = [
        next(made for made in run if getattr(made, "role", "") == "network")
        for run in (found, other)
    ]
    assert networks[0].sha256 == networks[1].sha256

    def score(run, name, nfe):
        return [s.value for s in run if getattr(s, "name", "") == name and s.nfe == nfe]

    assert score(found, "fd-clf", 1) == score(other, "fd-clf", 1)  # one step is one step
    assert score(found, "fd-clf", 2) != score(other, "fd-clf", 2)
    assert score(found, "train-seconds", -1) == score(other, "train-seconds", -1)


def test_the_order_does_not_matter(stages):
    setup, seen = stages
    second = plan("lmm", setup, sampler="paper")
    done(second, setup)
    seen.clear()
    done(plan("lmm", setup), setup)
    assert "lines" not in seen


def test_what_is_forced_is_trained_anew(stages):
    setup, seen = stages
    second = plan("lmm", setup, sampler="paper")
    done(second, setup)
    seen.clear()
    list(runner.run(second, setup, runner.expected(second, setup), generation=2))
    assert "lines" in seen


def test_options_with_a_part_in_training_are_not_shared(stages):
    setup, _ = stages
    assert plan("lmm", setup, grid="20").trained is None
    assert plan("lmm", setup, sampler="paper", sot="0.5").trained is None
    assert ctm(setup, grid="20").trained is None


def test_sampling_of_ctm_is_shared(stages):
    setup, _ = stages
    assert ctm(setup, gamma="0.5", levels="2.5").trained.spec.key == ctm(setup).spec.key


def test_a_teacher_that_is_used_again_keeps_its_file(flowbench, tmp_path):
    """Its hash is in the database, whatever a later version writes beside the weights."""
    words = ["--dataset", "moons", "--steps", "5", "--batch", "8", "--samples", "20", "--nfe", "1"]
    assert flowbench("run", "edm", *words)[0] == 0
    (file,) = (tmp_path / "runs").glob("moons-edm-*/network.safetensors")
    tensors, facts = read_tensors(file)
    save_tensors(file, tensors, {**facts, "spec": {}})
    before = file.read_bytes()
    assert flowbench("run", "lmm", *words, "-o", "pairs=16")[0] == 0
    assert file.read_bytes() == before
    name = next(iter(tensors))
    save_tensors(file, tensors | {name: tensors[name] + 1}, facts)
    assert flowbench("run", "lmm", *words, "-o", "pairs=8")[0] == 0
    assert not (read_tensors(file)[0][name] - tensors[name]).any(), (
        "another network is written anew"
    )
