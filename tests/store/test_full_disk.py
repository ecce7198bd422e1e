"""A disk that is full or may not be written: one line, nothing half, and going on later."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flowbench.records import FlowbenchError, Score, Spec
from flowbench.store import Attempt, Store

FULL = "has no space left on its disk"
NO_ROOM = r"has no space left|fails, or is full"
READ_ONLY = r"is read-only|cannot be opened"
OLD = Path(__file__).parent / "old" / "schema-0001.db"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        made = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"only root can mount a small file system: {error}")
    if made.returncode:
        pytest.skip(f"only root can mount a small file system: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(attempt: Attempt, names: str) -> tuple[int, str]:
    """Add scores until that fails; how many were stored, and what was said."""
    for number in range(100_000):
        try:
            attempt.add(Score(f"{names}{number}", 1.0, 1, protocol={"much": "x" * 5000}))
        except FlowbenchError as error:
            return number, str(error)
    raise AssertionError("it was never full")


def intact(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        checks = ("integrity_check", "foreign_key_check")
        found = [connection.execute(f"pragma {check}").fetchall() for check in checks]
    return found == [[("ok",)], []]


def test_a_full_disk_is_one_line_and_the_attempt_goes_on(small: Path, spec: Spec) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * 400_000)
    store = Store(f"sqlite:///{small / 'results.db'}")
    with store.attempt(spec, {}) as attempt:
        stored, said = fill(attempt, "a")
        assert FULL in said and "\n" not in said and str(small) in said
        assert len(store.measured()) == stored > 0
        ballast.unlink()
        attempt.add(Score("later", 2.0))
    assert [t.outcome for t in store.tried()] == ["ok"]
    assert len(store.measured()) == stored + 1
    store.close()
    assert intact(small / "results.db")


def test_a_run_on_a_full_disk_is_gone_on_with_by_the_next(small: Path, spec: Spec) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * 400_000)
    store = Store(f"sqlite:///{small / 'results.db'}")
    with pytest.raises(FlowbenchError, match=FULL) as raised, store.attempt(spec, {}) as attempt:
        stored, _ = fill(attempt, "a")
        while True:  # and the outcome cannot be stored either
            attempt.note("x" * 300)
    assert not raised.value.__notes__ or FULL in raised.value.__notes__[0]
    store.close()
    ballast.unlink()
    store = Store(f"sqlite:///{small / 'results.db'}")
    with store.attempt(spec, {}) as attempt:
        assert len(store.done(spec, 0)) == stored
        attempt.add(Score("later", 2.0))
    assert [t.outcome for t in store.tried()][1:] == ["ok"]
    assert store.tried()[0].outcome in ("lost", "failed")
    store.close()


def test_no_space_for_a_database_at_all(small: Path, spec: Spec) -> None:
    (small / "ballast").write_bytes(b"x" * 1_040_000)
    with pytest.raises(FlowbenchError, match=NO_ROOM) as raised:
        Store(f"sqlite:///{small / 'results.db'}")
    assert "\n" not in str(raised.value)
    (small / "ballast").unlink()
    store = Store(f"sqlite:///{small / 'results.db'}")
    with store.attempt(spec, {}):
        pass
    store.close()


def test_no_space_for_the_backup_of_an_upgrade(small: Path) -> None:
    path = small / "results.db"
    path.write_bytes(OLD.read_bytes())
    (small / "ballast").write_bytes(b"x" * (1_048_576 - 65_536 - 3 * 4096))
    with pytest.raises(FlowbenchError, match=NO_ROOM):
        Store(f"sqlite:///{path}")
    assert not list(small.glob("*.bak*"))
    (small / "ballast").unlink()
    store = Store(f"sqlite:///{path}")
    assert len(store.tried()) == 5 and list(small.glob("*.bak-0001"))
    store.close()


def test_a_limit_of_the_database_itself_is_told_as_a_full_disk(
    store: Store, spec: Spec, tmp_path: Path
) -> None:
    with store.attempt(spec, {}) as attempt:
        with store._database.transaction() as connection:
            pages = connection.exec_driver_sql("pragma page_count").scalar_one()
            connection.exec_driver_sql(f"pragma max_page_count={pages + 3}")
        stored, said = fill(attempt, "a")
        assert FULL in said
        with store._database.transaction() as connection:
            connection.exec_driver_sql("pragma max_page_count=1000000")
        attempt.add(Score("later", 2.0))
    assert len(store.measured()) == stored + 1
    assert intact(tmp_path / "results.db")


LIMITED = """
import resource, signal
from flowbench.records import FlowbenchError
store = Store(url)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with store.attempt(spec, {}) as attempt:
    try:
        for nfe in range(1000):
            attempt.add(Score("fid", 1.0, nfe, protocol={"much": "x" * 5000}))
    except FlowbenchError as error:
        print(nfe, error, flush=True)
        raise SystemExit(0)
"""


def test_a_quota_is_one_line(start, store: Store, tmp_path: Path) -> None:
    (process,) = start(LIMITED, 1)
    said, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 1) and "Traceback" not in said, errors
    stored, _, words = said.partition(" ")
    assert FULL in words or "fails, or is full" in words, said
    assert len(store.measured()) == int(stored) > 0
    with store.attempt(store.tried()[0].spec, {}) as attempt:
        attempt.add(Score("later", 1.0))
    assert intact(tmp_path / "results.db")


def remount(place: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place)], check=True)


def test_a_file_system_that_becomes_read_only(small: Path, spec: Spec) -> None:
    path = small / "results.db"
    store = Store(f"sqlite:///{path}")
    with store.attempt(spec, {}) as attempt:
        attempt.add(Score("fid", 1.0))
        store.close()  # between two writes nothing is open for long
        remount(small, "ro")
        before = path.read_bytes()
        for write in (lambda: attempt.add(Score("kid", 1.0)), lambda: store.beat([attempt.id])):
            with pytest.raises(FlowbenchError, match=READ_ONLY) as raised:
                write()
            assert "\n" not in str(raised.value)
        reader = Store.open_existing(f"sqlite:///{path}")
        assert [m.score.value for m in reader.measured()] == [1.0]
        reader.close()
        with pytest.raises(FlowbenchError, match=READ_ONLY):
            Store(f"sqlite:///{small / 'another.db'}")
        assert path.read_bytes() == before
        remount(small, "rw")
        attempt.add(Score("kid", 1.0))
    assert [t.outcome for t in store.tried()] == ["ok"] and len(store.measured()) == 2
    store.close()


def test_an_older_database_on_a_read_only_file_system_is_read(small: Path) -> None:
    path = small / "results.db"
    path.write_bytes(OLD.read_bytes())
    remount(small, "ro")
    store = Store.open_existing(f"sqlite:///{path}")
    assert len(store.tried()) == 5 and len(store.measured()) == 7
    store.close()
    with pytest.raises(FlowbenchError, match=READ_ONLY):
        Store(f"sqlite:///{path}")
    assert [p.name for p in small.iterdir()] == ["results.db"]
    assert path.read_bytes() == OLD.read_bytes()
