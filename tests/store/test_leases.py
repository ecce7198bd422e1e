"""Who holds a run: dead at once, dead after a lease, alive; and late writes are refused."""

import os
import subprocess
import time
from dataclasses import replace
from datetime import datetime

import pytest
from other_workers import Worker

from flowbench import process_table
from flowbench.records import FlowbenchError, Score, Spec
from flowbench.store import Store, leases
from flowbench.store.leases import Held, Holder, Superseded, Watch

HERE = leases.host()
ELSEWHERE = Holder(1, 1, "key", 0, False, None, 7, "2026-01-01", "boot-7", "another-host")
NOBODY = 4_194_999  # beyond the highest number of a process


def outcomes(store: Store) -> list[str]:
    return [tried.outcome for tried in store.tried()]


def go_on(store: Store, spec: Spec, **options) -> None:
    """What a second worker does."""
    with store.attempt(spec, {}, **options) as attempt:
        attempt.add(Score("fid", 2.0))


class Clock:
    """The monotonic clock in the hand of a test."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.now = 1000.0
        patch.setattr(leases.time, "monotonic", lambda: self.now)

    def watch(self, watch: Watch, holder: Holder, seconds: float, step: float = 6.0) -> bool:
        """Whether it is dead after so long, looked at in steps."""
        found = watch.expired(holder)
        for _ in range(round(seconds / step)):
            self.now += step
            found = watch.expired(holder)
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_dead_process_is_taken_over_at_once(store: Store, spec: Spec) -> None:
    with Worker(HERE, NOBODY).at_work(store, spec):
        assert store.holders([spec.key])[spec.key].alive is False
        go_on(store, spec)
    assert outcomes(store) == ["lost", "ok"]


def test_a_process_that_was_killed_is_taken_over_at_once(store: Store, spec: Spec, sleeper) -> None:
    with Worker(HERE, sleeper.pid).at_work(store, spec):
        with pytest.raises(Held):
            go_on(store, spec)
        sleeper.kill()
        state = process_table.state(sleeper.pid)
        while state and state[0] != "Z":  # nobody has asked for its exit code yet
            time.sleep(0.001)
            state = process_table.state(sleeper.pid)
        go_on(store, spec)
    assert outcomes(store) == ["lost", "ok"]


def test_a_process_that_lives_holds_its_run(store: Store, spec: Spec, sleeper) -> None:
    with Worker(HERE, sleeper.pid).at_work(store, spec):
        holder = store.holders([spec.key])[spec.key]
        assert (holder.here, holder.alive, holder.pid) == (True, True, sleeper.pid)
        words = (
            rf"{spec.name} is being worked on by another process \(since .*, process {holder.pid}"
        )
        with pytest.raises(Held, match=words):
            go_on(store, spec)
        go_on(store, replace(spec, seed=4))  # another run is free
    assert [(t.spec.seed, t.outcome) for t in store.tried()] == [(3, "ok"), (4, "ok")]


def test_a_number_that_another_process_has_now_is_no_life(
    store: Store, spec: Spec, sleeper
) -> None:
    reborn = Worker(HERE, sleeper.pid, f"{leases._place()}-1")
    assert reborn.birth != leases.birth(sleeper.pid)
    with reborn.at_work(store, spec):
        go_on(store, spec)
    assert outcomes(store) == ["lost", "ok"]


@pytest.mark.parametrize("born", ["another-boot-5", f"{leases._place()}x-5"])
def test_another_boot_or_container_may_be_another_machine(
    store: Store, spec: Spec, born: str
) -> None:
    with Worker(HERE, NOBODY, born).at_work(store, spec):
        holder = store.holders([spec.key])[spec.key]
        assert (holder.here, holder.alive) == (False, None)
        with pytest.raises(Held, match=f"host {HERE}"):
            go_on(store, spec)


@pytest.mark.parametrize("pid", ["NOBODY", "living"])
def test_an_attempt_of_an_older_flowbench_counts_by_its_number(
    store: Store, spec: Spec, sleeper, clock: Clock, pid: str
) -> None:
    number = NOBODY if pid == "NOBODY" else sleeper.pid
    with Worker(HERE, number, "").at_work(store, spec):
        holder = store.holders([spec.key])[spec.key]
        assert clock.watch(Watch(), holder, 600) == (pid == "NOBODY")


def test_another_machine_holds_its_run_until_it_is_expired(
    store: Store, spec: Spec, elsewhere: Worker
) -> None:
    with elsewhere.at_work(store, spec) as late:
        for expired in ((), {late.id + 1}):
            with pytest.raises(Held, match=r"host another-host\)"):
                go_on(store, spec, expired=expired)
        assert outcomes(store) == ["running"]
        go_on(store, spec, expired={late.id})
    assert outcomes(store) == ["lost", "ok"]
    assert [found.score.value for found in store.measured()] == [2.0]


def test_a_holder_is_dead_after_a_lease_without_beats(clock: Clock) -> None:
    assert clock.watch(Watch(), ELSEWHERE, 54) is False
    assert clock.watch(Watch(), ELSEWHERE, 60) is True


def test_every_beat_begins_a_lease(clock: Clock) -> None:
    watch = Watch()
    for beats in range(5):
        assert clock.watch(watch, replace(ELSEWHERE, beats=beats), 54) is False
    assert clock.watch(watch, replace(ELSEWHERE, beats=4), 12) is True
    assert clock.watch(watch, replace(ELSEWHERE, attempt=2, beats=4), 54) is False


def test_an_observer_that_was_stopped_has_seen_nothing(clock: Clock) -> None:
    watch = Watch()
    watch.expired(ELSEWHERE)
    clock.now += 7200
    assert watch.expired(ELSEWHERE) is False
    assert clock.watch(watch, ELSEWHERE, 30) is True


def test_a_stalled_process_is_dead_after_a_lease_though_it_is_here(clock: Clock) -> None:
    here = replace(ELSEWHERE, here=True, alive=True)
    assert clock.watch(Watch(), here, 54) is False
    assert clock.watch(Watch(), here, 60) is True
    assert Watch().expired(replace(here, alive=False)) is True


@pytest.mark.parametrize("hours", [-9000, 9000])
def test_a_clock_that_jumps_changes_nothing(
    store: Store, spec: Spec, elsewhere: Worker, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    watch, shift = Watch(), hours * 3600
    with elsewhere.at_work(store, spec) as attempt:
        assert watch.expired(store.holders([spec.key])[spec.key]) is False
        true = time.time
        monkeypatch.setattr(time, "time", lambda: true() + shift)
        monkeypatch.setattr("flowbench.store.claims.datetime", Jumped(shift))
        assert watch.expired(store.holders([spec.key])[spec.key]) is False
        with pytest.raises(Held):
            go_on(store, spec)
        attempt.add(Score("fid", 1.0))
        assert store.beat([attempt.id]) == set()
        go_on(store, replace(spec, seed=4))
    assert outcomes(store) == ["ok", "ok"]
    years = {tried.started[:4] for tried in store.tried()}
    assert len(years) == 2, "the clock did not jump"


class Jumped:
    """A wall clock that goes wrong."""

    def __init__(self, shift: float):
        self.shift = shift

    def now(self, zone) -> datetime:
        return datetime.fromtimestamp(datetime.now().timestamp() + self.shift, zone)


@pytest.mark.parametrize("outcome", ["lost", "timeout", "failed", "interrupted"])
def test_the_verdict_of_a_supervisor_stays(store: Store, spec: Spec, outcome: str) -> None:
    with store.attempt(spec, {}) as attempt:
        assert store.conclude(attempt.id, outcome, "took more than 2 s\0\udcff")
        with pytest.raises(Superseded, match=outcome):
            attempt.add(Score("fid", 1.0))
        assert not store.conclude(attempt.id, "failed", "again")
    (tried,) = store.tried()
    assert (tried.outcome, tried.error) == (outcome, "took more than 2 s?")
    assert tried.ended and store.measured() == []
    assert not store.conclude(99, "failed", "there is none")


@pytest.mark.parametrize("outcome", ["running", "odd", ""])
def test_a_verdict_is_a_known_outcome(store: Store, spec: Spec, outcome: str) -> None:
    with store.attempt(spec, {}) as attempt, pytest.raises(FlowbenchError, match="no outcome"):
        store.conclude(attempt.id, outcome, "")
    assert outcomes(store) == ["ok"]


@pytest.mark.parametrize("words", ["soon", "0", "-1", "nan", "inf", "1e9"])
def test_a_lease_is_a_number_of_seconds(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWBENCH_LEASE", words)
    with pytest.raises(FlowbenchError, match=f"FLOWBENCH_LEASE='{words}' is no number of seconds"):
        leases.lease()


def test_the_lease_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWBENCH_LEASE", raising=False)
    assert (leases.lease(), leases.beat()) == (60, 6)
    monkeypatch.setenv("FLOWBENCH_LEASE", "1.5")
    assert (leases.lease(), leases.beat()) == (1.5, 0.15)


def test_a_process_of_somebody_else_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(process_table, "state", lambda pid: [])  # and the system hides it
    assert leases.look(HERE, 1, f"{leases._place()}-1") == (True, True)


def test_a_birth_tells_processes_apart(sleeper: subprocess.Popen) -> None:
    mine, other = leases.birth(os.getpid()), leases.birth(sleeper.pid)
    assert mine == leases.birth(os.getpid()) != other
    assert mine.rpartition("-")[0] == other.rpartition("-")[0] == leases._place()
    assert leases.birth(NOBODY) == ""
