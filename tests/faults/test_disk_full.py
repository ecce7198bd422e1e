"""A disk without room: one line that names the file, nothing lost, and the same command goes on."""

import errno
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_extractor import Fake, features_of
from fault_tools import (
    AGAIN,
    JOB,
    SHORT,
    FullDisk,
    FullFor,
    mounted,
    one_line,
    outcomes,
    query,
    scores,
)
from picture_files import images, write_zip

from flowbench.cli import cli
from flowbench.data.archive import by_path
from flowbench.data.base import Split
from flowbench.metrics import references
from flowbench.records import RunFailed

CURE = f"No space left on device: free some space, {AGAIN}"


# Every kind of file that the job writes, and which of them finds no room.
WRITES = {
    "moons-edm-*/train.pt": 7,
    "moons-edm-*/network.safetensors": 1,
    "pairs-*/*.safetensors": 1,
    "moons-lmm-*/lines.pt": 20,
    "moons-lmm-*/network.safetensors": 1,
    "moons-lmm-*/samples-nfe1-*": 1,
    "moons-lmm-*/samples-nfe2-*": 1,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The scores of the job where nothing happens."""
    database = tmp_path_factory.mktemp("undisturbed") / "results.db"
    result = CliRunner().invoke(cli, [*JOB, "--db", str(database)])
    assert result.exit_code == 0, result.output
    return scores(database)


def test_each_file_that_finds_no_room_is_named_and_nothing_is_lost(
    undisturbed, flowbench, database, monkeypatch
):
    """The same command again and again, and the disk full at another kind of file each time."""
    for pattern, first in WRITES.items():
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", FullFor(pattern, first))
            code, output = flowbench(*JOB)
        assert code == 3, pattern
        line = one_line(output)
        assert line.endswith(CURE)
        path = Path(line.split(" cannot be written")[0].rpartition(": ")[2])
        assert path.match(pattern)
        assert not list(path.parent.glob("*.part")), "what was half-written is gone"
    assert flowbench(*JOB)[0] == 0
    assert scores(database) == undisturbed
    found = query(database, "select outcome, error_type from attempts")
    assert found == [("failed", "Unwritten")] * len(WRITES) + [("ok", None)]


@pytest.mark.parametrize("kind", [errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_a_quota_a_limit_and_a_broken_disk_have_a_cure_too(flowbench, monkeypatch, kind):
    monkeypatch.setattr(os, "fsync", FullDisk(1, kind))
    code, output = flowbench(*SHORT)
    line = one_line(output)
    assert code == 3 and f"train.pt cannot be written: {os.strerror(kind)}: " in line
    assert line.endswith(AGAIN)


@pytest.mark.parametrize("left", [0, 150, 400])
def test_a_disk_that_is_really_full(undisturbed, flowbench, tmp_path, left):
    """All of a run on one small disk that has `left` KiB: database, checkpoints, pairs, samples."""
    disk = tmp_path / "disk"
    with mounted(disk, "size=6m") as real:
        if not real:
            pytest.skip("only root can mount a small disk; the other tests need none")
        free = os.statvfs(disk)
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - left * 1024))
        words = [*JOB, "--db", str(disk / "results.db")]
        code, output = flowbench(*words)
        assert code in (2, 3), output
        assert "space" in one_line(output)
        ballast.unlink()
        assert flowbench(*words)[0] == 0
        assert scores(disk / "results.db") == undisturbed
        last = outcomes(disk / "results.db")
        assert last[-1] == "ok" and set(last[:-1]) <= {"failed", "lost"}


def test_a_training_log_without_room_fails_in_a_line_and_goes_on(
    undisturbed, flowbench, database, monkeypatch
):
    """A log is not synced, so that the disk is full where its file is opened."""
    before = Path.open

    def full(path, *words, **options):
        if path.name == "training.jsonl" and words[:1] == ("a",):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return before(path, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        code, output = flowbench(*JOB)
    assert code == 3 and f"training.jsonl cannot be written: {CURE}" in one_line(output)
    assert flowbench(*JOB)[0] == 0 and scores(database) == undisturbed


@pytest.mark.parametrize("name", ["report.md", "table.csv"])
def test_a_report_without_room_leaves_the_old_one(flowbench, database, tmp_path, monkeypatch, name):
    assert flowbench(*SHORT)[0] == 0
    target = tmp_path / name
    target.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(1))
        code, output = flowbench("report", "-o", str(target))
    assert code == 3 and f"{name} cannot be written: {CURE}" in one_line(output)
    assert target.read_text() == "before" and not list(tmp_path.glob("*.part"))
    assert flowbench("report", "-o", str(target))[0] == 0 and target.read_text() != "before"


def test_an_export_without_room_leaves_the_old_one(flowbench, tmp_path, monkeypatch):
    assert flowbench(*SHORT)[0] == 0
    target = tmp_path / "bundle.zip"
    assert flowbench("export", "--bundle", str(target))[0] == 0
    before = target.read_bytes()

    def full(*words, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("zipfile.ZipFile.open", full)
        code, output = flowbench("export", "--bundle", str(target))
    assert code in (2, 3) and "cannot be written: No space left on device" in one_line(output)
    assert target.read_bytes() == before and not list(tmp_path.glob(".*.part"))


def test_a_cache_without_room_is_one_line_and_the_decoding_goes_on(tmp_path, monkeypatch):
    from flowbench.data import rows

    pixels = images(7)
    write_zip(tmp_path / "a.zip", pixels)
    monkeypatch.setattr(rows, "CHUNK", 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(5))  # each chunk syncs its rows, then their number
        with pytest.raises(RunFailed, match="free some space"):
            by_path(tmp_path / "a.zip")
    steps = []
    again = by_path(tmp_path / "a.zip", lambda progress: steps.append(progress.step))
    assert steps[0] == 6, "four rows were there"
    assert (again.train == pixels).all()


def test_a_reference_without_room_is_one_line_and_goes_on(monkeypatch):
    split = Split(torch.from_numpy(images(9)), None, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(2))  # the first is that of the only shard
        with pytest.raises(RunFailed, match=r"reference\.safetensors cannot be written: No space"):
            references.build(split, "data", "train", Fake())
    again = Fake()
    found = references.build(split, "data", "train", again)
    assert again.images == 0, "the shard was there"
    exact = features_of(split.values)
    assert torch.allclose(found.pool.mean, exact.mean(0), rtol=1e-5)
