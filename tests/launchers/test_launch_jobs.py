"""The driver's side of jobs: their messages, the queue's answers, and how an end is read."""

import os
import pickle
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowbench import launchers
from flowbench.execution import Ended, Opened
from flowbench.launchers import Terms, errand, far, post, queues, slurm
from flowbench.records import FlowbenchError
from flowbench.training import Progress


def test_messages_come_whole_in_their_order_and_once(tmp_path):
    path = tmp_path / "post"
    box = post.Box(path)
    assert list(box.new()) == [], "no job has written yet"
    post.send(str(path), post.Begun("host"))
    post.send(str(path), Opened(7))
    whole = path.read_bytes()
    post.send(str(path), Ended("why"))
    longer = path.read_bytes()
    path.write_bytes(longer[:-1])
    assert list(box.new()) == [post.Begun("host"), Opened(7)] and list(box.new()) == []
    path.write_bytes(longer)
    assert list(box.new()) == [Ended("why")] and list(box.new()) == []
    assert len(whole) < len(longer)


class Job(far.Job):
    """A job whose end a test decides."""

    done = False

    def over(self):
        return self.done


def test_a_last_word_is_heard_only_once_the_engine_has_ended_the_job(tmp_path):
    """Else its files would be removed under it."""
    path = tmp_path / "post"
    job = Job(post.Box(path))
    assert job.queued and job.alive
    post.send(str(path), post.Begun("host"))
    post.send(str(path), Progress("train", 1, 2, 0.5))
    post.send(str(path), Ended("bad luck"))
    assert list(job.read()) == [Progress("train", 1, 2, 0.5)] and not job.queued and job.alive
    job.done = True
    assert list(job.read()) == [Ended("bad luck")] and not job.alive


def test_one_that_was_asked_to_end_is_queued_again(tmp_path):
    path = tmp_path / "post"
    job = Job(post.Box(path))
    for message, queued in ((post.Begun("a"), False), (post.Paused(), True)):
        post.send(str(path), message)
        assert list(job.read()) == [] and job.queued == queued


def test_a_late_file_system_is_waited_for(tmp_path, monkeypatch):
    job = Job(post.Box(tmp_path / "post"))
    job.done = True
    monkeypatch.setattr(far, "LAG", 1000.0)
    assert job.alive, "its last word may still come"
    monkeypatch.setattr(far, "LAG", 0.0)
    assert not job.alive


def test_a_password_is_in_no_name_and_in_no_file_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWBENCH_DB", "postgresql://me:s3cret@host/db")
    monkeypatch.setenv("FLOWBENCH_LEASE", "60")
    office = far.Office(Terms(tmp_path), 0)
    packed = office.errand({"url": "postgresql://me:s3cret@host/db"}, "name")
    assert "s3cret" not in repr(packed) and "s3cret" not in packed.post
    assert packed.environment["FLOWBENCH_LEASE"] == "60"
    assert "FLOWBENCH_DB" not in packed.environment
    assert stat.S_IMODE(os.stat(office.folder).st_mode) == 0o700
    assert pickle.loads(pickle.loads(pickle.dumps(packed)).job)["url"].endswith("@host/db")


def test_what_is_kept_of_jobs_that_failed_is_their_log(tmp_path):
    office = far.Office(Terms(tmp_path), 0)
    office.errand({}, "name")
    office.jobs.append(SimpleNamespace(ended=Ended("why")))
    for name in ("1_submitted.pkl", "1-name.post", "1_0_log.err"):
        (office.folder / name).write_text("")
    office.clear()
    assert [path.name for path in office.folder.iterdir()] == ["1_0_log.err"]
    office.jobs[0].ended = Ended()
    office.clear()
    assert not (tmp_path / ".jobs").exists()


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A cluster that answers with what a test writes down."""

    def answer(text="", code=0, error="", exit="0:0"):
        for name, said in (("squeue", text), ("scontrol", f"JobId=1 ExitCode={exit} X=1")):
            script = f"#!/bin/sh\necho '{said}'\necho '{error}' >&2\nexit {code}\n"
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(queues.Queue, "every", 0.0)
    answer()
    return answer


def test_the_queue_is_asked_once_for_all_and_a_silence_changes_nothing(squeue):
    queue = queues.Queue()
    assert queue.state("1") == "", "not seen yet"
    squeue("1|PENDING\n2|RUNNING")
    assert (queue.state("1"), queue.state("2")) == ("PENDING", "RUNNING")
    squeue("", code=1, error="slurm_load_jobs error: Unable to contact slurm controller")
    assert queue.state("1") == "PENDING", "the controller is away"
    squeue("1|COMPLETED")
    assert (queue.state("1"), queue.state("2")) == ("COMPLETED", "GONE")
    squeue("", code=1, error="slurm_load_jobs error: Invalid job id specified")
    assert queue.state("1") == "COMPLETED", "it is not asked again"
    assert queue.state("3") == "GONE"


def given(tmp_path):
    """A job of SLURM without a result."""
    paths = SimpleNamespace(result_pickle=tmp_path / "result.pkl", stderr=tmp_path / "err")
    found = slurm.Job(post.Box(tmp_path / "post"))
    found.queue, found.given = queues.Queue(), SimpleNamespace(paths=paths, job_id="1")
    return found


@pytest.mark.parametrize(
    "state, exit, outcome, fault, words",
    [
        ("CANCELLED", "0:15", "interrupted", False, "was cancelled (scancel)"),
        ("NODE_FAIL", "0:0", "lost", True, "ended as NODE_FAIL"),
        ("OUT_OF_MEMORY", "0:125", "lost", True, "ended as OUT_OF_MEMORY"),
        ("FAILED", "137:0", "lost", True, "was killed by SIGKILL"),
        ("FAILED", "139:0", "failed", False, "was killed by SIGSEGV"),
        ("FAILED", "143:0", "interrupted", True, "was asked to end from outside"),
        ("FAILED", "7:0", "failed", False, "ended with exit code 7"),
    ],
)
def test_how_a_job_ended_without_a_word(tmp_path, squeue, state, exit, outcome, fault, words):
    squeue(f"1|{state}", exit=exit)
    job = given(tmp_path)
    assert job.over()
    death = job.death()
    assert (death.outcome, death.fault) == (outcome, fault) and words in death.words


def test_a_job_that_waits_again_is_queued(tmp_path, squeue):
    job = given(tmp_path)
    job.queued = False
    squeue("1|PENDING")
    assert not job.over() and job.queued


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """An engine over a cluster that takes the jobs with these numbers, and refuses others."""
    pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("")
    (tmp_path / "srun").chmod(0o755)
    script = tmp_path / "sbatch"
    script.write_text(
        f"#!/bin/sh\ncd {tmp_path}; echo x >> asked; cat $1 > last\n"
        'n=$(wc -l < asked); [ -f "no$n" ] || { echo "Submitted batch job $n"; exit 0; }\n'
        "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    words = "slurm,partition=x,memory=2G,time=2h"
    with slurm.opened(launchers.parse(words), Terms(tmp_path / "runs")) as engine:
        yield engine


def test_the_first_job_that_slurm_refuses_ends_the_command(sbatch, tmp_path):
    (tmp_path / "no1").touch()
    with pytest.raises(FlowbenchError, match=r"SLURM takes no job: .*invalid partition"):
        sbatch.start({}, "name")


def test_a_later_one_is_a_fault_that_may_pass(sbatch, tmp_path, squeue):
    (tmp_path / "no2").touch()
    assert sbatch.start({}, "one").given.job_id == "1"
    script = (tmp_path / "last").read_text()
    for words in ("partition=x", "mem=2G", "time=120", "signal=USR2@120", "requeue", "fb-one"):
        assert f"#SBATCH --{words}" in script or words in script.split("job-name=")[1], words
    refused = sbatch.start({}, "two")
    assert not refused.alive
    (last,) = refused.read()
    assert last.kind == "fault" and "invalid partition" in last.failure


def test_a_checkpoint_is_the_same_errand(tmp_path):
    pytest.importorskip("submitit")
    packed = far.Office(Terms(tmp_path), 0).errand({}, "name")
    assert packed.checkpoint().function is packed
    assert isinstance(packed, errand.Errand) and Path(packed.post).parent.parent.name == ".jobs"
