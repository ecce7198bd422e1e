"""Results on a network file system, played on a local folder: files that are only appended to."""

import json
import os
import signal
import sqlite3
from contextlib import closing

import pytest
from small_attempts import Start, finish, put

from flowbench.records import Score
from flowbench.store import Store, spool_lines
from flowbench.store.leases import Superseded
from flowbench.store.spool_attempts import append

pytestmark = pytest.mark.usefixtures("spooled")


def scores(store):
    return [(row.spec.seed, row.score.nfe, row.score.value) for row in store.measured()]


def outcomes(store):
    return [tried.outcome for tried in store.tried()]


def stored(folder):
    """How many scores are in the file itself, without the spool."""
    with closing(sqlite3.connect(folder / "results.db")) as connection:
        return connection.execute("select count(*) from scores").fetchone()[0]


def test_the_file_is_only_ever_replaced_as_a_whole(store, spec, tmp_path, folder):
    before = (tmp_path / "results.db").stat().st_ino
    put(store, spec, 1, 2)
    assert scores(store) == [(3, 1, 1.5), (3, 2, 2.5)]
    assert (tmp_path / "results.db").stat().st_ino == before
    assert store.ingest().new == 1
    assert (tmp_path / "results.db").stat().st_ino != before
    assert scores(store) == [(3, 1, 1.5), (3, 2, 2.5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.db", "results.db.spool"]
    assert stored(tmp_path) == 2
    assert folder.places() == [] and folder.places(folder.done) == [(spec.key, 1)]


def test_a_link_to_the_database_leads_to_the_same_spool(store, spec, tmp_path):
    (tmp_path / "link").mkdir()
    link = tmp_path / "link" / "other.db"
    link.symlink_to(tmp_path / "results.db")
    other = Store(f"sqlite:///{link}")
    put(other, spec, 1)
    assert scores(store) == [(3, 1, 1.5)]
    other.ingest(wait=True)
    assert link.is_symlink() and stored(tmp_path) == 1
    assert [path.name for path in link.parent.iterdir()] == ["other.db"]


def test_advice_is_one_line(store):
    assert "PostgreSQL" in store.advice and "\n" not in store.advice


def test_a_last_line_torn_at_any_byte_costs_that_score_and_no_other(store, spec, folder, elsewhere):
    with elsewhere.at_work(store, spec) as attempt:
        for nfe in (1, 2, 3):
            attempt.add(Score("fid", nfe + 0.5, nfe))
        file = folder.file((spec.key, 1))
        content = file.read_bytes()
        last = len(content[: content[:-1].rindex(b"\n") + 1])
        assert len(content) - last > 100
        for length in range(last, len(content)):
            file.write_bytes(content[:length])
            found = folder.read((spec.key, 1))
            assert found is not None and found.size == last
            assert [row["nfe"] for row in found.entry.scores] == [1, 2]
        file.write_bytes(content)
        assert len(folder.read((spec.key, 1)).entry.scores) == 3


@pytest.mark.parametrize("cut", [1, 60, 140])
def test_what_is_left_of_a_torn_file_is_taken_over_and_ingested(
    store, spec, folder, elsewhere, cut
):
    with elsewhere.at_work(store, spec) as attempt:
        for nfe in (1, 2, 3):
            attempt.add(Score("fid", nfe + 0.5, nfe))
        file = folder.file((spec.key, 1))
        os.truncate(file, file.stat().st_size - cut)
        with store.attempt(spec, {}, expired={attempt.id}) as after:
            after.add(Score("fid", 3.5, 3))
    assert outcomes(store) == ["lost", "ok"]
    assert scores(store) == [(3, nfe, nfe + 0.5) for nfe in (1, 2, 3)]
    assert store.ingest().new == 2
    assert scores(store) == [(3, nfe, nfe + 0.5) for nfe in (1, 2, 3)]


def test_a_flipped_bit_costs_its_line_and_is_told(store, spec, folder):
    put(store, spec, 1, 2, 3)
    file = folder.file((spec.key, 1))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], lines[2].replace(b"2.5", b"2.4"), *lines[3:]]))
    assert scores(store) == [(3, 1, 1.5), (3, 3, 3.5)]
    (tried,) = store.tried()
    assert tried.notes == ("1 damaged lines of its spool are left out",)


def test_a_late_write_is_refused_and_does_not_count(store, spec, folder, elsewhere):
    with elsewhere.at_work(store, spec) as late:
        late.add(Score("fid", 1.5, 1))
        with store.attempt(spec, {}, expired={late.id}):
            with pytest.raises(Superseded):
                late.add(Score("fid", 2.5, 2))
            # One that looked before it was taken over, and writes after that.
            row = json.loads(folder.file((spec.key, 1)).read_bytes().splitlines()[1])["row"][1]
            append(folder.file((spec.key, 1)), spool_lines.line("scores", row | {"nfe": 9}))
    late.close()
    for _ in range(2):
        assert outcomes(store) == ["lost", "ok"]
        assert scores(store) == [(3, 1, 1.5)]
        store.ingest()
    with pytest.raises(Superseded):
        late.add(Score("fid", 2.5, 2))
    assert store.beat([late.id]) == {late.id} and not store.conclude(late.id, "failed", "")


RACE = """
import os
from pathlib import Path
from flowbench.store.leases import Held
store = Store(url)
for seed in range(3):
    spec = Spec("lmm", "digits", seed, Budget(10, 2))
    if store.done(spec, 0):
        continue
    try:
        with store.attempt(spec, {}) as attempt:
            witness = Path(url.removeprefix("sqlite:///")).with_name(f"at-{seed}")
            os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
            if not store.done(spec, 0):
                attempt.add(Score("fid", seed + 0.5))
            os.unlink(witness)
    except Held:
        pass
store.ingest()
"""


@pytest.mark.slow
def test_eight_processes_never_hold_one_run_at_once(start: Start, store, tmp_path):
    finish(start(RACE, 8))
    store.ingest(wait=True)
    assert sorted(scores(store)) == [(seed, -1, seed + 0.5) for seed in range(3)]
    assert set(outcomes(store)) == {"ok"}
    assert stored(tmp_path) == 3


ENDLESS = """
import itertools
store = Store(url)
with store.attempt(spec, {}) as attempt:
    for nfe in itertools.count():
        attempt.add(Score("fid", nfe + 0.5, nfe))
        print(nfe, flush=True)
"""


def test_a_killed_writer_keeps_what_it_wrote(start: Start, store):
    (writer,) = start(ENDLESS, 1)
    assert writer.stdout
    said = [int(writer.stdout.readline()) for _ in range(30)]
    seen = len(scores(store))  # while it writes
    assert seen >= 30
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    said += [int(line) for line in rest.splitlines()]
    found = [nfe for _, nfe, _ in scores(store)]
    assert found[: len(said)] == said and len(found) - len(said) in (0, 1)
    assert outcomes(store) == ["running"]
    assert store.ingest().new == 1  # a process of this machine that is gone
    assert outcomes(store) == ["lost"]
    assert [nfe for _, nfe, _ in scores(store)] == found
