"""Bundles: out and in again without loss; whatever is wrong with one is refused."""

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import flowbench
from flowbench import bundle
from flowbench.bundle import joining, reading
from flowbench.records import Budget, FlowbenchError, Score, Spec
from flowbench.store import Store

SPEC = Spec("lmm", "digits", 0, Budget(10, 2), {"sigma": 0.5}, {"sigma": 0.5}, data="d", code="c")
SCORES = [
    Score("fid", 1.5, 1, n=10, goal="min", protocol={"reference": ["train", 5], "data": "d"}),
    Score("fid", math.nan, 2, n=10),
    Score("is", math.inf, 2, n=10),
    Score("S", 0.1 + 0.2),
]


class Place:
    """A database with its folder of runs."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.db, self.runs = folder, folder / "results.db", folder / "runs"
        self.url = f"sqlite:///{self.db}"

    @property
    def store(self) -> Store:
        return Store(self.url)

    def measure(self, spec: Spec = SPEC, content: bytes = b"weights", force: bool = False) -> None:
        """An attempt with a network and samples."""
        time.sleep(0.002)  # no two begin in the same millisecond
        with self.store.attempt(spec, {"python": "3.11"}, force) as attempt:
            for score in SCORES:
                attempt.add(score)
            suffix = f"-g{attempt.generation}" if attempt.generation > 1 else ""
            for name in ("network", "samples-nfe1-n10-s0"):
                path = self.runs / f"{spec.name}{suffix}" / f"{name}.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content + name.encode())
                facts = (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
                attempt.artifact(name, path.relative_to(self.runs).as_posix(), *facts)

    def export(self, name: str = "out.zip", **options) -> Path:
        bundle.export(self.store, self.runs, self.folder / name, **options)
        return self.folder / name

    def merge(self, *paths: Path) -> list[joining.Joined]:
        return bundle.merge(self.url, self.runs, paths)

    def content(self) -> tuple:
        """All that is shown and all files, whatever the ids and origins are."""
        rows = [repr(row._replace(attempt=0, origin="")) for row in self.store.measured()]
        return rows, self.files()

    def files(self) -> dict[str, bytes]:
        found = sorted(path for path in self.runs.rglob("*") if path.is_file())
        return {
            path.relative_to(self.runs).as_posix(): path.read_bytes()
            for path in found
            if path.suffix != ".lock"
        }

    def state(self) -> tuple:
        """Everything, to see that nothing changed."""
        if not self.db.exists():
            return (None, self.files())
        return (self.store.rows(), self.store.tried(), self.files())


@pytest.fixture
def there(tmp_path: Path) -> Place:
    place = Place(tmp_path / "there")
    for seed in range(2):
        place.measure(replace(SPEC, seed=seed), bytes([seed]) * 1000)
    return place


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path / "here")


def test_out_and_in_again(there: Place, here: Place) -> None:
    (joined,) = here.merge(there.export())
    told = joined.merged
    assert (told.runs, told.attempts, told.scores, joined.files) == (2, 2, 8, 4)
    assert here.content() == there.content()
    assert not (here.runs / joining.STAGE).exists()


def test_the_same_results_make_the_same_bytes(there: Place) -> None:
    first = there.export("a.zip").read_bytes()
    os.utime(next(there.runs.rglob("*.safetensors")), (0, 0))
    assert there.export("b.zip").read_bytes() == first
    assert there.export("a.zip").read_bytes() == first
    assert {path.name for path in there.folder.iterdir()} <= {
        *("a.zip", "b.zip", "results.db", "results.db-wal", "results.db-shm", "runs")
    }


def test_the_manifest_names_every_member_with_its_hash(there: Place) -> None:
    with zipfile.ZipFile(there.export()) as file:
        manifest = json.loads(file.read("manifest.json"))
        assert {*file.namelist()} == {*manifest["files"], "manifest.json"}
        for name, member in manifest["files"].items():
            content = file.read(name)
            assert member == {
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
            }
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert (manifest["format"], manifest["missing"]) == (1, [])


def test_only_what_is_asked_for_leaves(there: Place, here: Place) -> None:
    there.measure(replace(SPEC, method="cfm"))
    there.measure(replace(SPEC, dataset="moons"))
    here.merge(there.export(methods=["lmm"], dataset="digits", files=False))
    assert {row.spec.method for row in here.store.measured()} == {"lmm"}
    assert {row.spec.dataset for row in here.store.measured()} == {"digits"}
    assert here.files() == {}
    with pytest.raises(FlowbenchError, match="no such run"):
        there.export("none.zip", methods=["nobody"])
    assert not (there.folder / "none.zip").exists()


def test_a_file_that_is_gone_is_noted(there: Place, here: Place) -> None:
    gone = next(there.runs.rglob("network.safetensors"))
    gone.unlink()
    path = gone.relative_to(there.runs).as_posix()
    made = bundle.export(there.store, there.runs, there.folder / "out.zip")
    assert (made.missing, made.files) == ((path,), 3)
    here.merge(there.folder / "out.zip")
    assert here.content() == there.content()
    here.runs.joinpath(path).parent.mkdir(exist_ok=True)
    assert here.store.rows()["artifacts"] == there.store.rows()["artifacts"]


def test_a_file_with_other_content_does_not_leave(there: Place) -> None:
    odd = next(there.runs.rglob("network.safetensors"))
    odd.write_bytes(b"other")
    there.folder.joinpath("out.zip").write_bytes(b"an earlier one")
    with pytest.raises(FlowbenchError, match=f"not the content that was stored: {odd}; ") as raised:
        there.export()
    assert raised.value.exit_code == 2
    assert there.folder.joinpath("out.zip").read_bytes() == b"an earlier one"
    assert not list(there.folder.glob(".out*"))


def test_ctrl_c_leaves_nothing(there: Place) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        there.export(watch=stop)
    assert not list(there.folder.glob("*out*"))


def test_a_bundle_brings_the_files_that_a_database_left_behind(there: Place, here: Place) -> None:
    (joined,) = here.merge(there.db)
    assert joined.apart and here.files() == {}
    (joined,) = here.merge(there.export())
    assert (joined.merged.known, joined.files) == (2, 4)
    assert here.content() == there.content()
    before = here.state()
    here.merge(there.export(), there.db)
    assert here.state() == before


def test_a_file_that_is_here_is_never_replaced(there: Place, here: Place) -> None:
    here.measure(SPEC, b"mine")
    mine = here.content()
    (joined,) = here.merge(there.export(methods=["lmm"]))
    assert sorted(joined.kept) == [
        f"{SPEC.name}/network.safetensors",
        f"{SPEC.name}/samples-nfe1-n10-s0.safetensors",
    ]
    assert joined.merged.hidden == 1
    rows, files = here.content()
    assert {row for row in rows if "seed=1" not in row} == {*mine[0]}
    assert files.items() >= mine[1].items()
    assert len(files) == 4
    here.export("again.zip")  # though some rows speak of files that never came


def test_a_file_does_not_take_the_place_of_one_that_is_only_gone(there: Place, here: Place) -> None:
    here.measure(SPEC, b"mine")
    for path in here.runs.rglob("*.safetensors"):
        path.unlink()
    (joined,) = here.merge(there.export())
    assert len(joined.kept) == 2
    assert not list((here.runs / SPEC.name).iterdir())


def test_several_generations_of_files_travel(there: Place, here: Place) -> None:
    there.measure(SPEC, b"anew", force=True)
    here.merge(there.export())
    assert here.content() == there.content()
    assert len(here.files()) == 6


def test_the_origin_is_kept_over_two_hops(there: Place, here: Place, tmp_path: Path) -> None:
    first = there.export("first.zip")
    here.merge(first)
    here.measure(replace(SPEC, seed=9))
    last = Place(tmp_path / "last")
    last.merge(here.export("second.zip"))
    with zipfile.ZipFile(first) as file:
        digest = hashlib.sha256(file.read("manifest.json")).hexdigest()
    names = last.store.origins()
    assert names[digest] == "first.zip"
    assert sorted(names[t.origin] for t in last.store.tried()) == [
        *("first.zip", "first.zip", "second.zip")
    ]


# What is wrong with a bundle, as a change of its members; hashes are made to fit again.


def repack(path: Path, change, sign: bool = True) -> Path:
    """A copy of a bundle after `change(members, manifest)`; signed, its hashes fit."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    change(members, manifest)
    if sign:
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in members.items()
        }
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
        file.writestr("manifest.json", json.dumps(manifest))
    return target


def refused(here: Place, path: Path, words: str) -> None:
    before = here.state()
    with pytest.raises(FlowbenchError, match=words) as raised:
        here.merge(path)
    assert str(raised.value).isprintable()
    assert str(path) in str(raised.value)
    assert here.state() == before


def row(table: str, **columns):
    """A change of the first row of a table."""

    def change(members, manifest) -> None:
        lines = members[f"rows/{table}.jsonl"].splitlines(keepends=True)
        lines[0] = json.dumps(json.loads(lines[0]) | columns).encode() + b"\n"
        members[f"rows/{table}.jsonl"] = b"".join(lines)

    return change


def text(name: str, content: bytes):
    return lambda members, manifest: members.update({name: content})


def twice(table: str):
    def change(members, manifest) -> None:
        name = f"rows/{table}.jsonl"
        members[name] += members[name].splitlines(keepends=True)[0]

    return change


FORGED = {
    "score": (row("scores", n=11), "score .* has another fingerprint"),
    "spec": (row("runs", spec={"method": "x"}), "the run .* has not the columns"),
    "key": (row("runs", key="0" * 64), "another key than its spec"),
    "environment": (row("environments", json={}), "another hash"),
    "artifact row": (row("artifacts", sha256="0" * 64), "no attempt has left the file"),
    "path": (row("artifacts", path="../../x.safetensors"), "has a file at"),
    "running": (row("attempts", outcome="running"), "line 1: outcome is not one of"),
    "column": (row("scores", extra=1), "line 1 has not the columns"),
    "value": (row("scores", value="1"), "line 1: value is not a number"),
    "bool": (row("scores", n=True), "line 1: n is not a size"),
    "huge": (row("attempts", pid=2**63), "line 1: pid is not"),
    "list": (text("rows/scores.jsonl", b"[1]\n"), "line 1 has not the columns"),
    "json": (text("rows/scores.jsonl", b"{\n"), "line 1 holds malformed JSON"),
    "nan": (text("rows/scores.jsonl", b'{"value": NaN}\n'), "line 1 holds malformed JSON"),
    "bytes": (text("rows/scores.jsonl", b"\xff\xfe\n"), "line 1 holds malformed JSON"),
    "nested": (text("rows/scores.jsonl", b"[" * 10**5 + b"\n"), "line 1 holds malformed JSON"),
    "lost runs": (text("rows/runs.jsonl", b""), "unknown run"),
    "lost attempts": (text("rows/attempts.jsonl", b""), "unknown attempt"),
    "lost environments": (text("rows/environments.jsonl", b""), "unknown environment"),
    "two runs": (twice("runs"), "two rows .* of runs"),
    "two attempts": (twice("attempts"), "two rows .* of attempts"),
    "two scores": (twice("scores"), "two rows .* of scores"),
    "no table": (lambda members, manifest: members.pop("rows/runs.jsonl"), "has no rows/runs"),
    "more": (text("artifacts/x.safetensors", b"x"), "no attempt has left the file 'x.safe"),
    "state": (text(f"artifacts/{SPEC.name}/train.pt", b"x"), "no attempt has left the file"),
    "other": (text("readme.txt", b"x"), "no manifest of a bundle"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_bundle_is_refused(there: Place, here: Place, what: str) -> None:
    here.measure(replace(SPEC, seed=5))
    change, words = FORGED[what]
    refused(here, repack(there.export(), change), words)


def manifest(**parts):
    return lambda members, manifest: manifest.update(parts)


TAMPERED = {
    "artifact": (
        text(f"artifacts/{SPEC.name}/network.safetensors", bytes(1000) + b"netwOrk"),
        "has another hash than the manifest says",
    ),
    "score": (text("rows/origins.jsonl", b"{}\n"), "has not the size"),
    "unlisted": (text("artifacts/x", b""), "'artifacts/x' is not in the manifest"),
    "absent": (
        lambda members, manifest: members.pop(f"artifacts/{SPEC.name}/network.safetensors"),
        "network.safetensors' is not in the zip",
    ),
    "newer": (manifest(format=2), "has format 2, but this flowbench knows only up to 1: run"),
    "older": (manifest(format=0), "no manifest of a bundle"),
    "format": (manifest(format=True), "no manifest of a bundle"),
    "files": (manifest(files=[]), "no manifest of a bundle"),
    "member": (manifest(files={"rows/runs.jsonl": 5}), "no manifest of a bundle"),
    "missing": (manifest(missing=[5]), "no manifest of a bundle"),
    "field": (manifest(extra=1), "no manifest of a bundle"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_the_manifest_does_not_say_is_refused(there: Place, here: Place, what: str) -> None:
    change, words = TAMPERED[what]
    refused(here, repack(there.export(), change, sign=False), words)


def add(path: Path, name: str, content: bytes = b"x", **parts) -> Path:
    info = zipfile.ZipInfo(name)
    for part, value in parts.items():
        setattr(info, part, value)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as file:
        warnings.simplefilter("ignore")  # of a duplicate name
        file.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("artifacts/../../x", "no path inside a bundle"),
        ("/etc/passwd", "no path inside a bundle"),
        ("artifacts//x", "no path inside a bundle"),
        ("artifacts/x/", "no path inside a bundle"),
        ("artifacts/\x1b[2J", "no path inside a bundle"),
        ("artifacts\\..\\x", "no portable name"),
        ("rows/runs.jsonl", "is there twice"),
        ("manifest.json", "is there twice"),
        ("artifacts/x", "is not in the manifest"),
    ],
)
def test_a_member_with_a_wrong_name_is_refused(
    there: Place, here: Place, name: str, words: str
) -> None:
    refused(here, add(there.export(), name), words)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"external_attr": 0o120777 << 16}, "is a link"),
        ({"external_attr": 0o060644 << 16}, "is a link or another special file"),
        ({"compress_type": zipfile.ZIP_LZMA}, "packed in another way"),
    ],
)
def test_a_member_of_another_kind_is_refused(
    there: Place, here: Place, parts: dict, words: str
) -> None:
    refused(here, add(there.export(), "artifacts/x", **parts), words)


def test_a_bomb_is_not_unpacked(there: Place, here: Place, monkeypatch) -> None:
    path = there.export()
    name = f"artifacts/{SPEC.name}/network.safetensors"
    content = bytes(30_000_000)

    def grow(members, manifest) -> None:
        members[name] = content

    with zipfile.ZipFile(repack(path, grow)) as file:
        members = {member: file.read(member) for member in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, one in members.items():
            file.writestr(member, one)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(reading, "_chunks", lambda *_: pytest.fail("it was unpacked"))
    refused(here, path, "would unpack to 300")


def test_a_member_longer_than_it_says_is_refused(there: Place, here: Place) -> None:
    path = there.export()
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("rows/scores.jsonl")
    directory = content.rindex(b"rows/scores.jsonl") - 46
    small = (10).to_bytes(4, "little")
    content[directory + 24 : directory + 28] = small
    path.write_bytes(content)
    assert info.file_size > 10
    refused(here, path, "has not the size|cannot be read")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(100), b"SQLite format 3\0", b"method,fid\n"],
)
def test_other_files_are_refused(here: Place, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    refused(here, path, "neither a database|cannot be read as a bundle|not an SQLite|damaged|is no")


def test_of_several_sources_all_or_none_arrive(there: Place, here: Place, tmp_path: Path) -> None:
    good = there.export()
    bad = tmp_path / "bad.zip"
    bad.write_bytes(good.read_bytes()[:-2000])
    refused_before = here.state()
    with pytest.raises(FlowbenchError, match=r"bad\.zip"):
        here.merge(good, bad)
    assert here.state() == refused_before
    assert not here.db.exists()


def test_a_conflict_leaves_no_files(there: Place, here: Place) -> None:
    here.merge(there.db)
    there.measure(replace(SPEC, seed=7))
    path = repack(there.export(), row("attempts", error_type="x"))
    refused_before = here.state()
    with pytest.raises(FlowbenchError, match="other content; nothing was merged"):
        here.merge(path)
    assert here.state() == refused_before
    assert here.files() == {}


def mutate(value, rng: random.Random):
    """A value with one thing in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        return value | {name: mutate(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], mutate(value[at], rng), *value[at + 1 :]]
    odd = [None, True, -1, 0, 2**70, 1.5, "", "\ud800", "a\0", "../x", [], {}, [[]], {"x": None}]
    if isinstance(value, str):
        odd += [value + "x", value[:-1], value.upper()]
    return rng.choice(odd)


def change_rows(rng: random.Random):
    def change(members, manifest) -> None:
        name = rng.choice(sorted(n for n in members if n.startswith("rows/") and members[n]))
        lines = members[name].splitlines(keepends=True)
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(mutate(json.loads(lines[at]), rng)).encode() + b"\n"
        members[name] = b"".join(lines)

    return change


def outcome(path: Path):
    """The rows of a bundle, or None where it is refused."""
    try:
        with reading.read(path) as found:
            return found.rows
    except FlowbenchError as error:
        assert str(error).isprintable()
        return None


def test_whatever_is_changed_in_rows_is_refused_or_harmless(there: Place, tmp_path: Path) -> None:
    path, rng, refused = there.export(), random.Random(0), 0
    for number in range(100):
        place = Place(tmp_path / str(number))
        try:
            place.merge(repack(path, change_rows(rng)))
        except FlowbenchError as error:
            refused += 1
            assert str(error).isprintable()
        else:
            place.store.measured()
    assert refused > 50


def change_manifest(rng: random.Random):
    def change(members, manifest) -> None:
        changed = mutate(dict(manifest), rng)
        manifest.clear()
        manifest.update(changed if isinstance(changed, dict) else {"files": changed})

    return change


def test_whatever_is_changed_in_the_manifest_is_refused_or_harmless(there: Place) -> None:
    path, rng = there.export(), random.Random(2)
    expected, refused = outcome(path), 0
    for _ in range(100):
        found = outcome(repack(path, change_manifest(rng), sign=False))
        assert found in (None, expected)
        refused += found is None
    assert refused > 50


def test_whatever_byte_is_changed_is_refused_or_harmless(there: Place) -> None:
    path, rng = there.export(), random.Random(1)
    expected, whole = outcome(path), path.read_bytes()
    refused = 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 1, 4))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice((len(content), len(content), rng.randrange(99999)))])
        found = outcome(path)
        assert found in (None, expected)
        refused += found is None
    assert refused > 75


KILL = """
import os, signal, sys
from pathlib import Path
from flowbench import bundle
from flowbench.bundle import joining
from flowbench.store import merging, Store

url, runs, path, point, count = sys.argv[1:]
places = {
    "unpack": (joining, "_unpack"), "insert": (merging, "_insert"), "place": (joining, "_place"),
    "origins": (merging, "_insert_origins"), "close": (Store, "close"),
}
module, name = places[point]
original, left = getattr(module, name), [int(count)]

def stop(*args):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return original(*args)

setattr(module, name, stop)
bundle.merge(url, Path(runs), [Path(path)])
"""


@pytest.mark.parametrize(
    ("point", "count", "done"),
    [
        ("unpack", 0, False),
        ("insert", 0, False),
        ("insert", 1, False),
        ("origins", 0, False),
        ("place", 0, False),
        ("place", 2, False),
        ("close", 0, True),
    ],
)
def test_a_killed_merge_leaves_the_old_or_the_new(
    there: Place, here: Place, point: str, count: int, done: bool
) -> None:
    here.measure(replace(SPEC, seed=5))
    path, before = there.export(), here.content()[0]
    child = subprocess.run(
        [sys.executable, "-c", KILL, here.url, here.runs, path, point, str(count)],
        env=os.environ | {"PYTHONPATH": str(Path(flowbench.__file__).parents[1])},
    )
    assert child.returncode == -signal.SIGKILL
    rows = here.content()[0]
    assert (len(rows) == 12) if done else (rows == before)
    here.merge(path)
    assert len(here.content()[0]) == 12
    assert here.files().items() >= there.files().items()
    assert not (here.runs / joining.STAGE).exists()


def test_files_arrive_where_there_are_no_links(there: Place, here: Place, monkeypatch) -> None:
    def link(*paths) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    (joined,) = here.merge(there.export())
    assert joined.files == 4
    assert here.content() == there.content()


def test_two_bundles_with_the_same_files_arrive_together(there: Place, here: Place) -> None:
    first, second = there.export("a.zip"), there.export("b.zip", methods=["lmm"])
    joined = here.merge(first, second)
    assert [(one.files, one.kept) for one in joined] == [(4, []), (0, [])]


def test_two_merges_at_once_are_refused(there: Place, here: Place) -> None:
    from filelock import FileLock

    path = there.export()
    here.runs.mkdir()
    with (
        FileLock(here.runs / f"{joining.STAGE}.lock"),
        pytest.raises(FlowbenchError, match="another process is merging"),
    ):
        here.merge(path)


def test_the_commands_say_what_they_did(there: Place, here: Place, flowbench) -> None:
    out = there.folder / "out.zip"
    code, said = flowbench("export", "--bundle", str(out), "--db", str(there.db))
    assert code == 0
    assert f"wrote {out}: 2 runs (2 attempts, 8 scores, 4 files, " in said
    here.measure(SPEC, b"mine")
    words = ("merge", str(out), "--db", str(here.db))
    code, said = flowbench(*words)
    assert code == 0
    assert "merged 2 runs (2 attempts, 8 scores, 2 files) of out.zip" in said
    assert "1 run is here too: yours are shown" in said
    assert "out.zip has other files than you, and yours are kept: digits-lmm" in said
    code, said = flowbench(*words)
    assert "merged 0 runs (0 attempts, 0 scores, 0 files) of out.zip; 2 attempts were here" in said


def test_wrong_words_end_with_2(there: Place, here: Place, flowbench) -> None:
    cases = [
        ("export", "--bundle", "x.zip", "--db", str(here.db)),
        ("export", "--bundle", "x.zip", "--db", str(there.db), "--method", "lm"),
        ("export", "--bundle", "x.zip", "--db", str(there.db), "--dataset", "digit"),
        ("export", "--db", str(there.db)),
        ("merge", "--db", str(here.db)),
        ("merge", str(there.folder / "none.zip"), "--db", str(here.db)),
        ("merge", __file__, "--db", str(here.db)),
    ]
    for words in cases:
        code, said = flowbench(*words)
        assert code == 2, said
        assert "Traceback" not in said
    assert not here.db.exists()


def test_an_export_says_what_it_replaces(there: Place, flowbench) -> None:
    out, link = there.folder / "out.zip", there.folder / "link.zip"
    words = ("export", "--db", str(there.db), "--bundle")
    assert "replaced" not in flowbench(*words, str(out))[1]
    code, said = flowbench(*words, str(out))
    assert code == 0 and f"replaced {out}\n" in said
    link.symlink_to(out)
    assert flowbench(*words, str(link))[0] == 0 and link.is_symlink()


def test_a_bundle_that_cannot_be_written_is_one_line(there: Place, flowbench) -> None:
    (there.folder / "file").write_text("")
    pipe = there.folder / "pipe"
    os.mkfifo(pipe)
    for name, message in [
        ("", "a bundle needs the name of a file"),
        (str(pipe), "is no file"),
        (str(there.folder / "file/x.zip"), "cannot be written: "),
    ]:
        code, said = flowbench("export", "--db", str(there.db), "--bundle", name)
        assert code == 2 and message in said and ".part" not in said and "Traceback" not in said
    assert pipe.is_fifo()
