"""A signal waits for the end of a step, a beat is missed quietly, times are taken alone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from flowbench import heartbeat, interruption, timing
from flowbench.interruption import asked, terminable
from flowbench.records import FlowbenchError
from flowbench.store.leases import Superseded


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_end_of_the_step_at_hand(number):
    steps = []
    with pytest.raises(KeyboardInterrupt), terminable():
        while not asked():
            steps.append("begun")
            if len(steps) == 3:
                ask(number)
            steps[-1] = "ended"
        assert steps == ["ended"] * 3
        steps.append("saved")
        raise KeyboardInterrupt  # as training does
    assert steps == ["ended"] * 3 + ["saved"]


def test_the_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), terminable():
        assert not asked()
        ask()
        ask()
        pytest.fail("it went on")


def test_a_step_that_takes_long_is_not_waited_for():
    with pytest.raises(KeyboardInterrupt), terminable():
        assert not asked()
        ask()
        begun = time.monotonic()
        try:
            time.sleep(60)
        finally:
            assert 0.5 < time.monotonic() - begun < 30
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_where_no_steps_are_taken_a_signal_ends_it_at_once():
    with pytest.raises(KeyboardInterrupt), terminable():
        ask()
        pytest.fail("it went on")


def test_signals_are_as_before_afterwards_and_what_was_ignored_stays_so():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminable():
            ask(signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before[1])
    assert [signal.getsignal(number) for number in numbers] == before
    assert not asked(), "outside, nobody is asked"


class Beats:
    """A store that is away for two beats, and then says that the attempt is another's."""

    def __init__(self, answers):
        self.answers, self.ids = iter(answers), []

    def beat(self, ids):
        self.ids.append(set(ids))
        answer = next(self.answers, set())
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setenv("FLOWBENCH_LEASE", "0.2")


def test_beats_go_on_while_the_database_is_away():
    store = Beats([FlowbenchError("locked"), OSError("gone"), set()])
    with heartbeat.beating(store, 7):
        while len(store.ids) < 4:
            time.sleep(0.01)
    assert set(map(tuple, store.ids)) == {(7,)}
    count = len(store.ids)
    time.sleep(0.1)
    assert len(store.ids) == count, "it beats after the end"


def test_an_attempt_that_is_anothers_is_interrupted_without_saving():
    store = Beats([set(), {7}])
    with pytest.raises(Superseded), terminable(), heartbeat.beating(store, 7):
        while not asked():
            time.sleep(0.01)
        pytest.fail("it was asked to save")


def test_an_interruption_by_the_user_stays_one():
    with pytest.raises(KeyboardInterrupt), terminable(), heartbeat.beating(Beats([]), 7):
        ask()
        time.sleep(5)


HOLD = """
import sys, time
from flowbench import timing
with timing.alone(sys.argv[1], lambda text: print(text, flush=True)):
    begun = time.monotonic()
    print("holds", flush=True)
    time.sleep(float(sys.argv[2]))
    print(begun, time.monotonic(), flush=True)
"""


@pytest.fixture
def hold():
    """Start processes that time something on a device."""
    started = []

    def start(device, seconds):
        words = [sys.executable, "-c", HOLD, device, str(seconds)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_two_processes_never_time_one_device_at_once(hold):
    device = f"cpu-{os.getpid()}"
    lines = [process.communicate()[0].splitlines() for process in [hold(device, 0.5) for _ in "ab"]]
    (first, second) = sorted(tuple(map(float, each[-1].split())) for each in lines)
    assert first[1] <= second[0]
    waited = [
        each for each in lines if each[0].startswith("waiting for another process that times")
    ]
    assert len(waited) <= 1 and all(each[-2] == "holds" for each in lines)


def test_another_device_is_free_and_a_killed_process_frees_its_own(hold):
    device, notes = f"cpu-{os.getpid()}-killed", []
    holder = hold(device, 600)
    assert holder.stdout.readline() == "holds\n"
    with timing.alone(f"{device}-other", notes.append):
        assert notes == []

    def kill(note):
        notes.append(note)
        holder.kill()

    with timing.alone(device, kill):
        assert notes == [f"waiting for another process that times its samples on {device}"]


def test_the_lock_is_in_a_folder_of_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "SHARED", (str(tmp_path / "no"), str(tmp_path)))
    name = f"flowbench-{os.getuid()}"
    (tmp_path / "theirs").mkdir()
    with timing.alone("cpu"):
        assert (tmp_path / name / "timing-cpu.lock").exists()
    assert (tmp_path / name).stat().st_mode & 0o077 == 0
    (tmp_path / name / "timing-cpu.lock").unlink(missing_ok=True)
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to(tmp_path / "theirs")
    monkeypatch.setattr(timing.tempfile, "gettempdir", lambda: str(tmp_path))
    with timing.alone("cpu"):
        assert not list((tmp_path / "theirs").iterdir()), "a link was followed"
    assert interruption.CURRENT.get() is None
