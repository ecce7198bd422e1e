"""Fuzzed readers: whatever is changed in a file, it is read, or refused in one line."""

import shutil
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowbench.records import FlowbenchError

pytestmark = pytest.mark.usefixtures("little_memory")
CORPUS = sorted(path for path in (Path(__file__).parent / "corpus").iterdir() if path.is_file())
FEW, MANY = 30, 3000
WORDS = st.sampled_from(
    [
        *(b"\x00", b"\xff" * 8, b"[" * 2000, b"{" * 2000, b"(" * 2000, b"9" * 5000, b"../", b"."),
        *(b"\xe2\x80\xae", b"NaN", b"null", b"-1", b'""', b"\n", b"=", b"PK\x03\x04", b"\x80\x02"),
        *(b"cos\nsystem\n(S'x'\ntR", b"inf", b"1e999", b"\xed\xa0\x80", b"\x7f\xff\xff\xff"),
        b"\x1b]52;",
    ]
)
PART = st.one_of(st.binary(min_size=1, max_size=4), WORDS)
CHANGE = st.tuples(st.integers(0, 10**6), st.sampled_from(["put", "over", "cut", "twice"]), PART)
CHANGES = st.lists(CHANGE, min_size=1, max_size=5)


def changed(content: bytes, changes) -> bytes:
    """The content after some changes: (where, what kind, with which bytes)."""
    for where, kind, part in changes:
        at = where % (len(content) + 1)
        if kind == "put":
            content = content[:at] + part + content[at:]
        elif kind == "over":
            content = content[:at] + part + content[at + len(part) :]
        elif kind == "cut":
            content = content[:at]
        else:
            content = content[:at] + content[max(0, at - 64) :]
    return content


def hold(kind: str, content: bytes, folder: Path) -> bool:
    """Whether the file is read; raises AssertionError unless it is refused in one line."""
    target = TARGETS[kind]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / target.name
    path.write_bytes(content)
    beside = {entry.name for entry in folder.parent.iterdir()}
    try:
        target.read(path)
    except FlowbenchError as error:
        assert "\n" not in str(error) and len(str(error)) < 3000
        return False
    finally:
        assert {entry.name for entry in folder.parent.iterdir()} <= beside | {"cache"}
    return True


@pytest.fixture
def good(tmp_path):
    """Good content of a kind."""

    def make(kind: str) -> bytes:
        (tmp_path / "making").mkdir()
        return TARGETS[kind].good(tmp_path / "making")

    return make


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_found_before_stays_refused(path, tmp_path):
    kind = path.name.partition("-")[0]
    assert not hold(kind, path.read_bytes(), tmp_path / "folder")


def fuzz(kind: str, content: bytes, folder: Path, many: int) -> int:
    """Change a file many times; returns how often it was refused."""
    refused = []

    @settings(
        max_examples=many,
        derandomize=many == FEW,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(CHANGES)
    def each(changes):
        refused.append(not hold(kind, changed(content, changes), folder))

    each()
    return sum(refused)


@pytest.mark.parametrize("kind", TARGETS)
def test_whatever_is_changed_is_read_or_refused_in_a_line(kind, good, tmp_path):
    assert fuzz(kind, good(kind), tmp_path / "folder", FEW) > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", TARGETS)
def test_the_same_for_hours(kind, good, tmp_path):
    assert fuzz(kind, good(kind), tmp_path / "folder", MANY) > MANY // 10


def test_the_fuzzer_finds_a_reader_that_raises(tmp_path, monkeypatch):
    def bad(path):
        if not path.read_bytes().startswith(b"x"):
            raise KeyError("a defect")

    monkeypatch.setitem(TARGETS, "suite", TARGETS["suite"]._replace(read=bad))
    with pytest.raises(KeyError, match="a defect"):
        fuzz("suite", b"x" * 20, tmp_path / "folder", 200)
