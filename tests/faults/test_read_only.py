"""Folders that cannot be written to: one line that names them, and nothing is changed."""

import errno
import os

import pytest
from fault_tools import (
    AGAIN,
    SHORT,
    FullFor,
    one_line,
    outcomes,
    query,
    read_only,
)
from picture_files import images, write_zip


@pytest.fixture
def closed(tmp_path):
    """A folder that cannot be written to, whoever the tests run as."""
    folder = tmp_path / "closed"
    folder.mkdir()
    with read_only(folder) as done:
        if not done:
            pytest.skip("root may write everywhere, and cannot mount here")
        yield folder


def test_the_folder_of_runs(flowbench, database, closed):
    code, output = flowbench(*SHORT, "--runs", str(closed))
    line = one_line(output)
    assert code == 3 and str(closed) in line and line.endswith(AGAIN)
    assert query(database, "select count(*) from attempts") == [(0,)], "nothing was begun"
    code, output = flowbench(*SHORT, "--runs", str(closed / "new"))
    assert code == 2 and f"the folder {closed / 'new'} cannot be made" in one_line(output)
    assert not list(closed.iterdir())
    assert flowbench(*SHORT)[0] == 0


def test_the_folder_of_the_database(flowbench, tmp_path, closed):
    runs = tmp_path / "elsewhere"
    code, output = flowbench(*SHORT, "--db", str(closed / "results.db"), "--runs", str(runs))
    assert code in (2, 3) and str(closed / "results.db") in one_line(output)
    assert not list(closed.iterdir())


def test_results_in_a_read_only_folder_can_be_looked_at_and_not_added_to(flowbench, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    words = ["--db", str(folder / "results.db")]
    assert flowbench(*SHORT, *words)[0] == 0
    expected = flowbench("compare", *words)
    with read_only(folder) as done:
        if not done:
            pytest.skip("root may write everywhere, and cannot mount here")
        names = sorted(os.listdir(folder))
        assert flowbench("compare", *words) == expected
        code, output = flowbench(*SHORT, "--seed", "1", *words, "--runs", str(tmp_path / "other"))
        assert code in (2, 3) and "results.db" in one_line(output)
        assert sorted(os.listdir(folder)) == names
    assert flowbench("compare", *words) == expected


def test_the_cache(flowbench, tmp_path, closed, monkeypatch):
    write_zip(tmp_path / "birds.zip", images(20), [0, 1] * 10)
    words = ["run", "cfm", "--dataset", str(tmp_path / "birds.zip"), "--steps", "2", "--batch", "4"]
    words += ["--samples", "8", "--nfe", "1", "--network", "small", "-o", "width=8", "--quiet"]
    monkeypatch.setenv("FLOWBENCH_CACHE", str(closed / "cache"))
    code, output = flowbench(*words)
    line = one_line(output)
    assert code == 3 and str(closed / "cache") in line and "FLOWBENCH_CACHE" in line
    assert line.endswith(AGAIN)


def test_the_place_of_a_report(flowbench, closed):
    assert flowbench(*SHORT)[0] == 0
    code, output = flowbench("report", "-o", str(closed / "r.md"))
    assert code in (2, 3) and f"{closed / 'r.md'} cannot be" in one_line(output)
    code, output = flowbench("export", "--bundle", str(closed / "r.zip"))
    assert code in (2, 3) and f"{closed / 'r.zip'} cannot be" in one_line(output)
    assert not list(closed.iterdir())


@pytest.mark.parametrize("kind", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_disk_that_becomes_read_only_in_the_middle(flowbench, database, monkeypatch, kind):
    """As Linux does with a disk that has errors; simulated, so that it is proved everywhere."""

    class Closed(FullFor):
        def __call__(self, part, path):
            try:
                super().__call__(part, path)
            except OSError as error:
                raise OSError(kind, os.strerror(kind), str(path)) from error

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", Closed("*/samples-*"))
        code, output = flowbench(*SHORT)
    line = one_line(output)
    assert code == 3 and "samples-nfe1" in line and os.strerror(kind) in line
    assert line.endswith(AGAIN) and outcomes(database) == ["failed"]
    assert flowbench(*SHORT)[0] == 0 and outcomes(database) == ["failed", "ok"]
