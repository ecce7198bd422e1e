"""Jobs by submitit on this machine: the same numbers, each cell once, pre-empted or not."""

import os
import signal

import launched
import pytest

FAR = ("--launcher", "slurm,executor=local,time=10m")
BAD = '[[method]]\nlabel = "bad"\nmethod = "edm"\noptions = {{ lr = {} }}\n'


def order(output, *lines):
    """Whether these beginnings of lines come in this order."""
    places = [output.index(line) for line in lines]
    return places == sorted(places)


@pytest.mark.slow
def test_the_same_numbers_with_teachers_first_and_a_failure_that_stops_nobody(
    tmp_path, start, undisturbed
):
    pair = launched.HEAD + launched.LMM + launched.EDM
    path = launched.write(tmp_path, pair + BAD.format("1e30"))
    output = launched.ended(start(tmp_path, *FAR, "--max-jobs", "1"), 3)
    assert "1 of 3 runs failed: bad on moons, seed 0" in output
    assert order(output, "done EDM", "queued LMM", "start LMM", "done LMM")
    first = output[: min(output.index("done "), output.index("failed "))]
    assert first.count("queued ") == 1, "more than --max-jobs were handed over"
    wanted = [score for score in undisturbed if score not in launched.of(undisturbed, "cfm")]
    assert wanted and [s for s in launched.scores(tmp_path) if s in undisturbed] == wanted
    path.write_text(pair)
    assert "queued" not in launched.ended(start(tmp_path, *FAR), 0), "all is there"
    assert not list((tmp_path / "runs/.jobs").rglob("*.pkl")), "a pickle knows the database"


@pytest.mark.slow
def test_a_job_that_is_pre_empted_is_queued_again_and_one_that_is_cancelled_gone_on_with(
    tmp_path, start, undisturbed
):
    launched.write(tmp_path, launched.HEAD + launched.CFM)
    process = start(tmp_path, *FAR)
    launched.training(tmp_path, process)
    os.kill(launched.worker(tmp_path), signal.SIGUSR2)
    launched.until(lambda: len(launched.outcomes(tmp_path)) == 2, process)
    process.send_signal(signal.SIGINT)
    output = launched.ended(process, 4)
    assert "the same command goes on" in output
    assert output.count("queued CFM") == 2 and output.count("start CFM") == 2
    assert launched.outcomes(tmp_path) == [("cfm", "interrupted")] * 2
    output = launched.ended(start(tmp_path, *FAR), 0)
    assert launched.outcomes(tmp_path)[2:] == [("cfm", "ok")]
    assert launched.scores(tmp_path) == launched.of(undisturbed, "cfm")


@pytest.mark.slow
def test_the_jobs_of_a_killed_driver_go_on_and_the_next_one_makes_nothing_twice(
    tmp_path, start, undisturbed
):
    launched.write(tmp_path, launched.HEAD + launched.CFM)
    killed = start(tmp_path, *FAR)
    launched.training(tmp_path, killed)
    killed.kill()
    output = launched.ended(start(tmp_path, *FAR), 0)
    assert order(output, "elsewhere CFM", "done CFM") and "queued" not in output
    assert launched.outcomes(tmp_path) == [("cfm", "ok")]
    assert launched.scores(tmp_path) == launched.of(undisturbed, "cfm")
