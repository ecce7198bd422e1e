"""A real SLURM of one node: `sbatch`, `scancel` and `scontrol requeue`, with equal numbers."""

import subprocess

import launched
import pytest
import slurm_server

FAR = ("--launcher", "slurm,partition=main,time=10m")


@pytest.fixture(scope="module")
def slurm():
    """Runs a command of SLURM."""
    if reason := slurm_server.missing():
        pytest.skip(reason)
    pytest.importorskip("submitit")
    with slurm_server.serving() as configuration, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(configuration))

        def call(*words):
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout

        yield call


def number(slurm, method):
    """The job of a method's run that is running."""
    lines = slurm("squeue", "--noheader", "--states=RUNNING", "--format=%i %j").splitlines()
    found = [line.split()[0] for line in lines if f"moons-{method}-" in line]
    return found[-1]


@pytest.mark.long
def test_a_suite_over_sbatch_is_cancelled_requeued_and_gone_on_with(
    tmp_path, start, undisturbed, slurm
):
    launched.write(tmp_path, launched.SUITE)
    process = start(tmp_path, *FAR, "--max-jobs", "2")
    launched.training(tmp_path, process)
    slurm("scancel", number(slurm, "cfm"))
    output = launched.ended(process, 3)
    assert "CFM on moons, seed 0: its job " in output and "was cancelled (scancel)" in output
    assert output.index("done EDM") < output.index("queued LMM") < output.index("done LMM")
    assert ("cfm", "interrupted") in launched.outcomes(tmp_path)

    process = start(tmp_path, *FAR)
    launched.until(lambda: launched.worker(tmp_path), process)
    slurm("scontrol", "requeue", number(slurm, "cfm"))
    output = launched.ended(process, 0)
    assert "queued EDM" not in output, "only what is missing is submitted"
    # One look may have met its begin and its return to the queue at once.
    assert 1 <= output.count("queued CFM") == output.count("start CFM") <= 2
    of_cfm = [outcome for method, outcome in launched.outcomes(tmp_path) if method == "cfm"]
    assert of_cfm == ["interrupted", "interrupted", "ok"]
    assert launched.scores(tmp_path) == undisturbed


@pytest.mark.slow
def test_what_slurm_refuses_is_one_line(tmp_path, start, slurm):
    launched.write(tmp_path, launched.HEAD + launched.EDM)
    output = launched.ended(start(tmp_path, "--launcher", "slurm,partition=nowhere"), 2)
    assert "SLURM takes no job" in output and "partition" in output
    assert "Traceback" not in output
