"""Many real processes at one database: nothing is lost, nothing is locked."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from small_attempts import Start, finish

from flowbench.records import Score, Spec
from flowbench.store import Store

WRITE = """
store = Store(url)
with store.attempt(spec, {"python": "3.11"}) as attempt:
    for nfe in range(20):
        attempt.add(Score("fid", nfe + 0.5, nfe))
"""

# One after the other, because nobody gets what another one holds.
SAME_RUN = """
import time
from flowbench.store.leases import Held
store = Store(url)
while True:
    try:
        with store.attempt(Spec("lmm", "digits", 0, Budget(10, 2)), {}) as attempt:
            for nfe in range(20):
                attempt.add(Score("fid", nfe + 0.5, nfe))
            break
    except Held:
        time.sleep(0.02)
"""

ENDLESS = """
import itertools
store = Store(url)
with store.attempt(spec, {}) as attempt:
    for nfe in itertools.count():
        attempt.add(Score("fid", nfe + 0.5, nfe))
        print(nfe, flush=True)
"""


def check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("pragma foreign_key_check").fetchall() == []


def test_two_processes_write_at_once(start: Start, store: Store, tmp_path: Path) -> None:
    finish(start(WRITE, 2))
    found = {(each.spec.seed, each.score.nfe, each.score.value) for each in store.measured()}
    assert found == {(seed, nfe, nfe + 0.5) for seed in range(2) for nfe in range(20)}
    assert [tried.outcome for tried in store.tried()] == ["ok", "ok"]
    check(tmp_path / "results.db")


def test_attempts_at_one_run_get_their_own_numbers(start: Start, store: Store) -> None:
    finish(start(SAME_RUN, 2))
    assert [tried.number for tried in store.tried()] == [1, 2]
    assert len(store.measured()) == 20


def test_first_contact_of_eight_processes(start: Start, url: str, tmp_path: Path) -> None:
    finish(start(WRITE, 8))
    store = Store(url)
    assert len(store.measured()) == 8 * 20
    assert len(store.tried()) == 8
    store.close()
    check(tmp_path / "results.db")


@pytest.mark.slow
def test_sixteen_writers_and_a_reader(
    start: Start, store: Store, spec: Spec, tmp_path: Path
) -> None:
    with store.attempt(spec, {}) as attempt:
        attempt.add(Score("fid", 1.0))
    with store._database.transaction() as reader:
        count = "select count(*) from scores"
        assert reader.exec_driver_sql(count).scalar_one() == 1
        finish(start(WRITE, 16))
        # The reader still sees the moment at which it began.
        assert reader.exec_driver_sql(count).scalar_one() == 1
    assert len(store.measured()) == 1 + 16 * 20
    check(tmp_path / "results.db")


def test_a_killed_writer_keeps_what_it_committed(
    start: Start, store: Store, tmp_path: Path
) -> None:
    (writer,) = start(ENDLESS, 1)
    assert writer.stdout
    said = [int(writer.stdout.readline()) for _ in range(30)]
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    said += [int(line) for line in rest.splitlines()]

    found = [each.score.nfe for each in store.measured()]
    assert found[: len(said)] == said, "what was said is there"
    assert found == list(range(len(found))), "and nothing behind a gap"
    assert store.tried()[0].outcome == "running"
    with store.attempt(store.tried()[0].spec, {}):
        pass
    assert [tried.outcome for tried in store.tried()] == ["lost", "ok"]
    check(tmp_path / "results.db")
