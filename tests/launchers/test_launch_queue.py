"""What SLURM is asked and what its answers come to, with a cluster of shell scripts."""

import itertools
import os
import subprocess
from types import SimpleNamespace

import pytest

from flowbench import launchers
from flowbench.launchers import Terms, far, post, queues, slurm
from flowbench.records import FlowbenchError


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A cluster that answers with what a test writes down."""

    def answer(text="", code=0, error="", exit="0:0"):
        scontrol = f"JobId=1 ExitCode={exit} X=1"
        for name, said in (("squeue", text), ("scontrol", scontrol), ("scancel", "")):
            script = f"#!/bin/sh\necho '{said}'\necho '{error}' >&2\n"
            script += f'echo "{name} $*" >> {tmp_path}/calls\nexit {code}\n'
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(queues.Queue, "every", 0.0)
    answer()
    return answer


def test_the_queue_is_asked_once_for_all_and_a_silence_changes_nothing(squeue):
    queue = queues.Queue()
    assert queue.state("1") == "", "not seen yet"
    squeue("1|PENDING|Priority\n2|RUNNING|None")
    assert (queue.state("1"), queue.state("2")) == ("PENDING", "RUNNING")
    squeue("", code=1, error="slurm_load_jobs error: Unable to contact slurm controller")
    assert queue.state("1") == "PENDING", "the controller is away"
    squeue("1|COMPLETED|None")
    assert (queue.state("1"), queue.state("2")) == ("COMPLETED", "GONE")
    squeue("", code=1, error="slurm_load_jobs error: Invalid job id specified")
    assert queue.state("1") == "COMPLETED", "it is not asked again"
    assert queue.state("3") == "GONE"


def test_why_a_job_waits_is_said_once_unless_it_waits_for_its_turn(squeue):
    notes = []
    queue = queues.Queue(notes.append)
    for reason in ("Priority", "Resources", "None"):
        squeue(f"1|PENDING|{reason}")
        queue.state("1")
    squeue("1|RUNNING|PartitionTimeLimit")
    queue.state("1")
    assert notes == []
    squeue("1|PENDING|PartitionTimeLimit\n2|PENDING|PartitionTimeLimit")
    for number in "1212":
        queue.state(number)
    squeue("1|PENDING|QOSMaxJobsPerUserLimit\n2|PENDING|launch failed requeued held")
    queue.state("1")
    limit, most, held = notes
    assert limit == (
        "SLURM lets job 1 wait (PartitionTimeLimit): ask for less, such as --launcher slurm,time=2h"
    )
    assert most == "SLURM lets job 1 wait (QOSMaxJobsPerUserLimit)"
    assert held.endswith(
        "job 2 wait (launch failed requeued held): scontrol release 2 lets it go on"
    )


def test_a_queue_where_nothing_changes_is_asked_less_often(monkeypatch):
    asked, now = [], [1000.0]

    def call(*words):
        asked.append((now[0], words[0]))
        out = "1|RUNNING|None" if now[0] < 1400 else "1|COMPLETED|None"
        return subprocess.CompletedProcess(words, 0, out, "")

    monkeypatch.setattr(queues, "_call", call)
    monkeypatch.setattr(queues, "time", SimpleNamespace(monotonic=lambda: now[0]))
    queue = queues.Queue()

    def looks(seconds):
        before, end = len(asked), now[0] + seconds
        while now[0] < end:
            queue.state("1")
            now[0] += 1.0
        return [at for at, word in asked[before:] if word == "squeue"]

    often = looks(300)
    assert len(often) <= 14 and often[1] - often[0] == queues.LOOK, "300 s"
    assert all(b - a <= queues.SELDOM for a, b in itertools.pairwise(often))
    queue.cancel("1", kill=False)
    assert len(looks(queues.LOOK + 1)) >= 1, "it ends soon"
    now[0] = 1500.0
    assert queue.state("1") == "COMPLETED"


def given(tmp_path):
    """A job of SLURM without a result."""
    paths = SimpleNamespace(result_pickle=tmp_path / "result.pkl", stderr=tmp_path / "err")
    found = slurm.Job(post.Box(tmp_path / "post"))
    found.queue, found.given = queues.Queue(), SimpleNamespace(paths=paths, job_id="1")
    found.log = paths.stderr
    return found


@pytest.mark.parametrize(
    "state, exit, outcome, fault, words",
    [
        ("CANCELLED", "0:15", "interrupted", False, "was cancelled (scancel)"),
        ("NODE_FAIL", "0:0", "lost", True, "ended as NODE_FAIL"),
        ("OUT_OF_MEMORY", "0:125", "lost", True, "OUT_OF_MEMORY: ask for more, such as"),
        ("FAILED", "137:0", "lost", True, "was killed by SIGKILL"),
        ("FAILED", "139:0", "failed", False, "was killed by SIGSEGV"),
        ("FAILED", "143:0", "interrupted", True, "was asked to end from outside"),
        ("FAILED", "7:0", "failed", False, "err, which ends with: srun: fatal: no such thing"),
        ("FAILED", "0:53", "failed", False, "the node of its job 1 does not see"),
    ],
)
def test_how_a_job_ended_without_a_word(tmp_path, squeue, state, exit, outcome, fault, words):
    squeue(f"1|{state}|None", exit=exit)
    (tmp_path / "err").write_text("at first\nsrun: fatal: no such thing\n\n")
    job = given(tmp_path)
    assert job.over()
    death = job.death()
    assert (death.outcome, death.fault) == (outcome, fault) and words in death.words


def test_a_job_that_waits_again_is_queued(tmp_path, squeue):
    job = given(tmp_path)
    job.queued = False
    squeue("1|PENDING|Resources")
    assert not job.over() and job.queued
    post.send(str(tmp_path / "post"), post.Begun("host"))
    assert list(job.read()) == [] and not job.queued, "that look was before its begin"
    squeue("1|RUNNING|None")
    assert not job.over() and not job.queued
    squeue("1|PENDING|BeginTime")
    assert not job.over() and job.queued


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """An engine over a cluster that takes the jobs with these numbers, and refuses others."""
    pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("")
    (tmp_path / "srun").chmod(0o755)
    script = tmp_path / "sbatch"
    script.write_text(
        f"#!/bin/sh\ncd {tmp_path}; echo x >> asked; cat $1 > last; env > environment\n"
        "[ -f dies ] && exit 7; [ -f interrupts ] && kill -INT $PPID\n"
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


def test_an_sbatch_that_dies_without_a_word_is_one_line(sbatch, tmp_path):
    (tmp_path / "dies").touch()
    with pytest.raises(FlowbenchError, match=r"SLURM takes no job: .*exit status 7"):
        sbatch.start({}, "name")


def test_a_job_that_is_handed_over_at_a_ctrl_c_is_cancelled_with_the_others(
    sbatch, tmp_path, squeue, monkeypatch
):
    monkeypatch.setattr(far, "GRACE", 0.0)
    squeue("1|PENDING|None")
    (tmp_path / "interrupts").touch()
    with pytest.raises(KeyboardInterrupt):
        sbatch.start({}, "name")  # its crew never gets to see it
    sbatch.stop([])
    assert "scancel 1\n" in (tmp_path / "calls").read_text()


def test_what_the_job_of_the_driver_asked_for_is_not_for_its_jobs(sbatch, tmp_path, monkeypatch):
    """Two limits of memory, say, exclude each other; but where SLURM is stays known."""
    monkeypatch.setenv("SLURM_CONF", "/where/slurm.conf")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for inside in (False, True):
        monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
        if inside:
            monkeypatch.setenv("SLURM_JOB_ID", "7")
        sbatch.start({}, "name")
        names = dict(line.partition("=")[::2] for line in _lines(tmp_path / "environment"))
        assert names["SLURM_CONF"] == "/where/slurm.conf"
        assert ("SLURM_MEM_PER_CPU" in names) != inside and "SLURM_JOB_ID" not in names
        assert os.environ["SLURM_MEM_PER_CPU"] == "100"


def _lines(path):
    return path.read_text().splitlines()


def test_where_logs_are_is_said_once(sbatch, tmp_path):
    notes = []
    object.__setattr__(sbatch._terms, "note", notes.append)
    for name in ("one", "two"):
        sbatch.start({}, name)
    (folder,) = (tmp_path / "runs/.jobs").iterdir()
    assert notes == [f"logs of the jobs, by their numbers: {folder}"]


def test_a_process_that_has_just_ended_is_no_error():
    stand = queues.Stand()
    with subprocess.Popen(["true"]) as process:
        process.wait()
    stand.jobs[str(process.pid)] = SimpleNamespace(state="RUNNING")  # as of a moment ago
    stand.cancel(str(process.pid), kill=False)
    stand.cancel(str(process.pid), kill=True)
