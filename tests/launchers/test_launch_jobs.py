"""The driver's side of jobs: their messages, their files, and what their crew makes of them."""

import base64
import os
import pickle
import signal
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowbench import workers
from flowbench.execution import Ended, Opened
from flowbench.launchers import Terms, errand, far, post
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


def test_a_damaged_message_is_passed_over_and_the_next_is_heard(tmp_path):
    path = tmp_path / "post"
    box = post.Box(path)
    post.send(str(path), post.Begun("host"))
    path.write_bytes(path.read_bytes()[:-9])  # the disk was full for a moment
    post.send(str(path), Opened(7))
    assert list(box.new()) == [Opened(7)]
    with path.open("ab") as file:
        file.write(bytes(64))  # as a network file system may show what is not there yet
        file.write(b"\n" + base64.b64encode(b"no pickle") + b"\n")
    post.send(str(path), Ended("why"))
    assert list(box.new()) == [Ended("why")]


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


class Queueing:
    """An engine whose job says all at once, after a while in its queue."""

    def start(self, task, name):
        self.job = Job(post.Box(task.box))
        return self.job

    def wait(self, jobs, seconds):
        for message in (post.Begun("a"), Progress("train", 1, 2, 0.5), "a note", Ended()):
            post.send(str(self.job.box.path), message)
        self.job.done = True

    def stop(self, jobs):
        assert not jobs


def test_a_job_that_has_begun_is_shown_as_running_before_its_progress(tmp_path):
    plan = SimpleNamespace(spec=SimpleNamespace(name="name"))
    task = SimpleNamespace(plan=plan, key="key", teachers=[], shared=set(), box=tmp_path / "post")
    task.seconds, seen = 1.0, []

    def watch(status, note):
        seen.append((status.word, note, status.progress is not None))

    workers.Crew(Queueing(), lambda task: task, 1, watch).run([workers.Status(task)])
    assert seen == [
        ("queued", "", False),
        ("running", "", False),
        ("running", "", True),
        ("running", "a note", True),
        ("done", "", True),
    ]


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


def test_no_two_drivers_share_a_folder(tmp_path):
    before = os.umask(0)
    try:
        found = [far.Office(Terms(tmp_path), 0).folder for _ in range(2)]
    finally:
        os.umask(before)
    assert found[0] != found[1], "of the same second and process"
    assert {stat.S_IMODE(os.stat(each).st_mode) for each in found} == {0o700}


def test_what_is_kept_is_the_log_of_each_job_that_failed(tmp_path):
    office = far.Office(Terms(tmp_path), 0)
    office.errand({}, "name")
    ends = (Ended("why"), Ended(), None, None)
    for number, end in enumerate(ends, 1):
        log = office.folder / f"{number}_0_log.err"
        office.jobs.append(SimpleNamespace(ended=end, log=log, stopped=number == 4))
        for name in ("submitted.pkl", "submission.sh", "0_log.err", "0_log.out"):
            (office.folder / f"{number}_{name}").write_text("")
    (office.folder / "1-name.post").write_text("")
    office.clear()
    kept = sorted(path.name for path in office.folder.iterdir())
    assert kept == ["1_0_log.err", "1_0_log.out", "3_0_log.err", "3_0_log.out"]
    office.jobs = office.jobs[1:2]
    office.clear()
    assert not (tmp_path / ".jobs").exists()


def test_a_first_ctrl_c_waits_until_the_engine_was_asked_and_a_second_does_not():
    done = []
    with pytest.raises(KeyboardInterrupt), far.unbroken():
        signal.raise_signal(signal.SIGINT)
        mask = subprocess.run(["grep", "SigBlk", "/proc/self/status"], capture_output=True).stdout
        done.append(int(mask.split()[1], 16) >> (signal.SIGINT - 1) & 1)
    assert done == [1], "a program that was started meanwhile heard it"
    with pytest.raises(KeyboardInterrupt), far.unbroken():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # another thread hears it
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(2)
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_checkpoint_is_the_same_errand(tmp_path):
    pytest.importorskip("submitit")
    packed = far.Office(Terms(tmp_path), 0).errand({}, "name")
    assert packed.checkpoint().function is packed
    assert isinstance(packed, errand.Errand) and Path(packed.post).parent.parent.name == ".jobs"
