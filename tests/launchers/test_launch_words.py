"""What `flowbench run --launcher` understands, and what it says to the rest, without any engine."""

import importlib.util
import sys

import launched
import pytest

from flowbench import launchers
from flowbench.launchers.slurm import resources
from flowbench.records import FlowbenchError


@pytest.fixture
def suite(tmp_path):
    return str(launched.write(tmp_path, launched.HEAD + launched.EDM))


@pytest.mark.parametrize(
    "word, message",
    [
        ("slrm", "no launcher 'slrm': did you mean slurm?"),
        ("slurm,gpu=1", "no option of launcher slurm called 'gpu': did you mean gpus?"),
        ("slurm,gpus=many", "option gpus of launcher slurm takes int"),
        ("slurm,gpus=-1", "gpus and cpus are not negative"),
        ("slurm,time=soon", "'soon' is no time: write seconds, or 30s, 5m, 2h"),
        ("slurm,time=30s", "is less than a minute"),
        ("slurm,memory=32", "'32' is no memory: write it as 32G or 500M"),
        ("slurm,partition", "write NAME=VALUE instead of 'partition'"),
        ("ray,memory=G", "'G' is no memory"),
        ("ray,gpus=1.5", "--launcher ray,gpus=1.5: take a share, or whole ones"),
        ("ray,cpus=0.00001", "at most four decimals"),
        ("local,jobs=2", "no option of launcher local called 'jobs'"),
    ],
)
def test_a_word_that_is_none_is_one_line(flowbench, suite, database, word, message):
    code, output = flowbench("run", "--suite", suite, "--launcher", word)
    assert code == 2 and message in output and "Traceback" not in output
    assert not database.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--jobs", "3", "--launcher", "slurm"], "with --launcher slurm, write --max-jobs 3."),
        (["--jobs", "3", "--launcher", "ray"], "with --launcher ray, write --max-jobs 3."),
        (["--max-jobs", "3"], "on this machine, write --jobs 3."),
        (["--max-jobs", "3", "--launcher", "local"], "on this machine, write --jobs 3."),
    ],
)
def test_the_wrong_number_of_jobs_says_what_to_type(flowbench, suite, words, message):
    code, output = flowbench("run", "--suite", suite, *words)
    assert code == 2 and message in output


def test_a_single_method_takes_no_launcher(flowbench):
    words = ("run", "cfm", "--dataset", "moons", "--launcher", "slurm")
    code, output = flowbench(*words)
    assert code == 2 and "--launcher and --max-jobs belong to --suite." in output


@pytest.mark.parametrize("name, package", [("slurm", "submitit"), ("ray", "ray")])
def test_a_package_that_is_not_here_is_one_line(flowbench, suite, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, output = flowbench("run", "--suite", suite, "--launcher", name)
    assert code == 2 and f"pip install {package}" in output and "Traceback" not in output


def test_without_slurm_one_line_says_so(flowbench, suite, monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, output = flowbench("run", "--suite", suite, "--launcher", "slurm")
    assert code == 2 and "there is no SLURM here" in output


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not here")
def test_an_address_where_nobody_listens_is_one_line_at_once(flowbench, suite):
    code, output = flowbench("run", "--suite", suite, "--launcher", "ray,address=127.0.0.1:1")
    assert code == 2 and "there is no Ray cluster at 127.0.0.1:1: start one" in output


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not here")
def test_an_error_in_a_worker_of_ray_is_named_by_its_last_line(tmp_path):
    from ray.exceptions import RayTaskError

    from flowbench.launchers import post
    from flowbench.launchers.ray import Job

    trace = "ray::run() (pid=7)\n  File x\nModuleNotFoundError: No module named 'flowbench'"
    job = Job(post.Box(tmp_path / "post"))
    job._result = None, RayTaskError("run", trace, ModuleNotFoundError("x"))
    death = job.death()
    assert death.words.endswith("ModuleNotFoundError: No module named 'flowbench'")
    assert not death.fault, "it would come again"


def test_a_plan_of_other_machines_asks_none_of_them(flowbench, suite):
    words = ("--launcher", "slurm,gpus=1", "--max-jobs", "7", "--device", "cuda:3", "--dry-run")
    code, output = flowbench("run", "--suite", suite, *words)
    assert code == 0 and "1 of 1 runs to do, 7 at a time" in output


def test_resources_become_what_slurm_calls_them():
    asked = launchers.parse("slurm,partition=gpu,gpus=2,cpus=8,memory=32G,time=2h,account=me")
    assert asked.seconds == 7200
    assert resources(asked) == {
        "partition": "gpu",
        "account": "me",
        "cpus_per_task": 8,
        "gpus_per_node": 2,
        "additional_parameters": {"requeue": True, "mem": "32G"},
    }
    assert launchers.parse("ray,gpus=0.5,memory=2G").resources == {
        "CPU": 1.0,
        "GPU": 0.5,
        "memory": 2 * 2**30,
    }


def test_the_number_of_threads_is_one_on_a_processor_of_any_launcher():
    from flowbench.cli.launching import Launch

    far = Launch(launchers.parse("slurm"), 5, "auto")
    near = Launch(launchers.parse("local"), None, "auto")
    assert far.threads("cpu", 5) == near.threads("cpu", 5) == 1
    assert Launch(launchers.parse("ray,gpus=1"), 5, "auto").threads("cpu", 5) == 0
    with pytest.raises(FlowbenchError, match="no launcher"):
        launchers.parse("")
