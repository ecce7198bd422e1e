"""Teacher pairs: what is stored, who makes it, and that noise and sample stay together."""

import os
import subprocess
import sys
import time
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file

from flowbench import pairs as module
from flowbench import planning, solvers
from flowbench.checkpoints import read_tensors, save_tensors
from flowbench.data.ahead import drawer
from flowbench.pair_files import Mapped, Shards, map_tensors, parts
from flowbench.pairs import Pairs
from flowbench.plans import Request, Setup
from flowbench.ranks import Part
from flowbench.records import Budget, Diverged, FlowbenchError
from flowbench.testing import toy, toy_teacher
from flowbench.training import Prepared, Run

N = 60
ROUNDED = {"rtol": 2**-11, "atol": 2**-24}  # of float16


@pytest.fixture
def large(monkeypatch):
    """Make every set a large one, eight pairs to a file."""
    monkeypatch.setattr(module, "LIMIT", 0)
    monkeypatch.setattr(module, "LARGE_FILE", (8, 2**26))


def straight(noise, labels):
    """What the teacher whose samples are half their noise makes, by its own solver."""
    return solvers.heun(toy_teacher().velocity, noise, labels, 4)


def paired(folder, sample=straight, n=N, kind="image", **words):
    """Pairs that are ready; `made` counts what the sampler was asked for."""
    made, run = [], words.pop("run", None) or Run(Budget(1, 1), folder and folder / "student")

    def count(states, labels):
        made.append(len(states))
        return sample(states, labels)

    pairs = Pairs(count, lambda: {"teacher": "straight"}, toy(kind), n, run, **words)
    pairs.made = made
    pairs.prepare()
    return pairs


def files(folder):
    return sorted(folder.glob("pairs-*/*.safetensors"))


def shuffled(n=N):
    return torch.randperm(n, generator=torch.Generator().manual_seed(1))


def test_a_large_set_is_the_small_one_rounded_and_its_noise_is_not(tmp_path, monkeypatch):
    small = paired(tmp_path, lambda z, y: z / 3).draw(shuffled())
    monkeypatch.setattr(module, "LIMIT", 0)
    monkeypatch.setattr(module, "LARGE_FILE", (8, 2**26))
    pairs = paired(tmp_path, lambda z, y: z / 3)
    noise, x, y = pairs.draw(shuffled())
    assert torch.equal(noise, small[0]) and torch.equal(y, small[2])
    assert noise.dtype == x.dtype == torch.float32 and not torch.equal(x, small[1])
    torch.testing.assert_close(x, small[1], **ROUNDED)
    assert len({path.parent for path in files(tmp_path)}) == 2, "they have keys of their own"
    assert len(list(pairs.files.folder.glob("*.safetensors"))) == 8
    stored = load_file(pairs.files.path(range(8, 16)))
    assert set(stored) == {"sample", "label"} and stored["sample"].dtype == torch.float16
    assert pairs.files.facts["dtype"] == "float16"


def test_small_sets_are_stored_as_they_ever_were(tmp_path):
    pairs = paired(tmp_path)
    (path,) = files(tmp_path)
    tensors, header = read_tensors(path)
    assert path.name == "000000000.safetensors" and set(tensors) == {"noise", "sample", "label"}
    assert tensors["sample"].dtype == torch.float32
    facts = {"teacher": "straight", "n": N, "seed": 0, "shard": N}
    assert header["facts"] == facts and set(header) == {"facts", "seconds"}
    assert path.parent.name == f"pairs-{module.digest(facts)[:16]}"
    assert pairs.made == [N]


def test_without_a_folder_pairs_are_made_in_memory(large):
    noise, x, y = paired(None).draw(shuffled())
    torch.testing.assert_close(x, 0.5 * noise)
    assert torch.equal(y, shuffled() % 2)


def test_samples_are_not_clipped(tmp_path, large):
    noise, x, _ = paired(tmp_path, lambda z, y: 300 * z).draw(torch.arange(N))
    assert x.abs().max() > 900
    torch.testing.assert_close(x, 300 * noise, **ROUNDED)


def test_samples_that_float16_cannot_hold_are_an_error(tmp_path, large):
    with pytest.raises(Diverged, match="not finite"):
        paired(tmp_path, lambda z, y: 1e6 * z)
    assert files(tmp_path) == []


@pytest.mark.parametrize("inverse", [False, True])
def test_states_that_are_not_noise_are_stored_exactly(tmp_path, large, inverse):
    rows = torch.randn(N, 1, 8, 8)

    def start(indices):
        return rows[list(indices)], torch.tensor(indices) % 2

    pairs = paired(tmp_path, start=start, inverse=inverse)
    noise, x, y = paired(tmp_path, start=start, inverse=inverse).draw(shuffled())
    states, ends = (x, noise) if inverse else (noise, x)
    assert torch.equal(states, rows[shuffled()]) and torch.equal(y, shuffled() % 2)
    torch.testing.assert_close(ends, 0.5 * states, **ROUNDED)
    assert set(pairs.run.bill) == {"inverse-pairs" if inverse else "pairs"}


def test_a_file_holds_fewer_than_its_limits(tmp_path):
    data = toy("image")
    small = Pairs(straight, dict, data, 10**6, Run(Budget(1, 1), tmp_path / "x"))
    assert not Pairs(straight, dict, data, 2**21, small.run).large and small.shard == 1000
    large = Pairs(straight, dict, data, 2**21 + 1, small.run)
    assert large.large and large.shard == 8192
    assert [len(part) for part in parts(20, 8)] == [8, 8, 4]


# What is paired stays paired.


def unexplained(x0, x1):
    """Variance of x1 that the best linear function of x0 (coordinate by coordinate) leaves."""
    slope = (x0 * x1).mean() / x0.square().mean()
    return (x1 - slope * x0).square().mean().item()


def test_pairs_stay_paired_and_a_permuted_set_shows_it(tmp_path, large):
    """Of x1 = x0 / 2 nothing is left unexplained; shifted by one pair, all its variance is."""
    for _ in range(2):  # made, then found
        noise, x, _ = paired(tmp_path, n=1000).draw(shuffled(1000))
        assert unexplained(noise, x) < 1e-6
        assert unexplained(noise, x.roll(1, 0)) == pytest.approx(0.25, rel=0.02)


def shift(path):
    """Give every sample of a file to the next noise."""
    tensors, header = read_tensors(path)
    save_tensors(path, tensors | {"sample": tensors["sample"].roll(1, 0)}, header)


def test_a_shifted_set_is_caught_when_it_is_found(tmp_path, large):
    paired(tmp_path)
    shift(files(tmp_path)[0])
    with pytest.raises(FlowbenchError, match=r"do not come from this teacher: delete .*pairs-"):
        paired(tmp_path)


def test_a_teacher_that_is_a_little_off_is_a_note(tmp_path, large):
    paired(tmp_path)
    notes = []
    run = Run(Budget(1, 1), tmp_path / "student", note=notes.append)
    paired(tmp_path, lambda z, y: 0.515 * z, run=run)
    assert len(notes) == 1 and "% off those of the files" in notes[0]


def test_noise_that_would_be_another_one_is_caught(tmp_path, large):
    paired(tmp_path)
    path = files(tmp_path)[2]
    tensors, header = read_tensors(path)
    save_tensors(path, tensors, header | {"noise": "0" * 16})
    with pytest.raises(FlowbenchError, match=f"{path.name} was made of other noise"):
        paired(tmp_path)


def test_only_what_is_missing_is_made_and_the_teacher_asked_for_four_pairs(tmp_path, large):
    assert sum(paired(tmp_path).made) == N, "its own pairs are not made again"
    assert paired(tmp_path).made == [4]
    files(tmp_path)[3].unlink()
    assert paired(tmp_path).made == [8, 4]


def test_a_damaged_file_is_made_anew_and_said(tmp_path, large):
    before = paired(tmp_path).draw(shuffled())
    path, other = files(tmp_path)[1:3]
    path.write_bytes(path.read_bytes()[:-10])
    kept, notes = other.stat().st_mtime_ns, []
    again = paired(tmp_path, run=Run(Budget(1, 1), tmp_path / "student", note=notes.append))
    assert [note.endswith("it is made anew") and path.name in note for note in notes] == [True]
    assert again.made == [8, 4] and other.stat().st_mtime_ns == kept
    assert all(torch.equal(a, b) for a, b in zip(before, again.draw(shuffled()), strict=True))


# Making.


def test_the_bill_is_that_of_all_files_whoever_made_them(tmp_path, large):
    first = paired(tmp_path)
    seconds = sum(read_tensors(path)[1]["seconds"] for path in files(tmp_path))
    for pairs in (first, paired(tmp_path)):
        assert pairs.run.bill["pairs"] == {"seconds": pytest.approx(seconds), "images": N}


def test_progress_counts_all_pairs_also_those_that_were_there(tmp_path, large):
    paired(tmp_path)
    for path in files(tmp_path)[:2]:
        path.unlink()
    seen = []
    paired(tmp_path, run=Run(Budget(1, 1), tmp_path / "student", watch=seen.append))
    assert [(p.stage, p.step, p.steps) for p in seen] == [("pairs", 52, N), ("pairs", N, N)]
    assert seen[0].rate > 0 and seen[0].seconds_left == pytest.approx(8 / seen[0].rate)
    assert seen[1].seconds_left == 0


def test_a_disk_without_room_is_said_before_anything_is_made(tmp_path, large, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9, 9, 2 * 64 * N))
    made = []
    with pytest.raises(FlowbenchError, match=r"60 pairs need .* --runs FOLDER .* -o pairs=N"):
        paired(tmp_path, lambda z, y: made.append(1) or z)
    assert not made
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9, 9, (2 * 64 + 8) * N))
    paired(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9, 9, 0))
    paired(tmp_path)


def test_a_full_device_gets_fewer_pairs_at_once(tmp_path):
    notes = []

    def sample(noise, labels):
        if len(noise) > 20:
            raise torch.OutOfMemoryError
        return 0.5 * noise

    pairs = paired(tmp_path, sample, run=Run(Budget(1, 1), tmp_path / "x", note=notes.append))
    noise, x, _ = pairs.draw(shuffled())
    assert torch.equal(x, 0.5 * noise) and len(notes) == 3 and "15 pairs" in notes[-1]


def test_rows_can_be_read_ahead_and_are_the_same(tmp_path, large):
    pairs = paired(tmp_path)
    rows, others = shuffled()[:20], shuffled()[20:40]
    before = pairs.draw(rows)
    pairs.expect(rows)
    ahead = pairs.draw(rows)
    pairs.expect(others)
    wrong = pairs.draw(rows)
    for drawn in (ahead, wrong):
        assert all(torch.equal(a, b) for a, b in zip(before, drawn, strict=True))


def test_training_draws_the_same_pairs_from_both_kinds_of_sets(tmp_path, monkeypatch):
    drawn = []
    for limit in (2**30, 0):
        monkeypatch.setattr(module, "LIMIT", limit)
        pairs, generator = paired(tmp_path), torch.Generator().manual_seed(3)
        draw = drawer(pairs, Part(0, 16, 16))
        drawn.append([draw(generator, step < 4) for step in range(5)])
    for (noise, x, y), (noise_, x_, y_) in zip(*drawn, strict=True):
        assert torch.equal(noise, noise_) and torch.equal(y, y_)
        torch.testing.assert_close(x_, x, **ROUNDED)


def test_a_run_that_is_only_to_prepare_ends_with_its_source(tmp_path):
    run = Run(Budget(3, 4), tmp_path / "student", prepare_only=True)
    pairs = Pairs(straight, dict, toy(), N, run)
    with pytest.raises(Prepared) as caught:
        next(run.stage("lines").batches(pairs))
    assert caught.value.args == (pairs,) and len(files(tmp_path)) == 1


# Several processes.

MAKE = """
import sys, time
from pathlib import Path
from flowbench import pairs
from flowbench.records import Budget
from flowbench.testing import toy
from flowbench.training import Run

folder, limit, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
pairs.LIMIT, pairs.LARGE_FILE, pairs.FILE = limit, (8, 2**26), (8, 2**22)

def sample(noise, labels):
    print(len(noise), flush=True)
    time.sleep(pause)
    return 0.5 * noise

run = Run(Budget(1, 1), folder / "student", note=print)
made = pairs.Pairs(sample, lambda: {"teacher": "straight"}, toy("image"), 60, run)
print("start", flush=True)
while not (folder / "go").exists():
    time.sleep(0.001)
made.prepare()
"""


def process(folder, limit, pause):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", MAKE, str(folder), str(limit), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def contents(folder):
    return [{n: t.tolist() for n, t in load_file(path).items()} for path in files(folder)]


def together(folder, limit, count):
    """What each of some processes made that began at the same time."""
    crowd = [process(folder, limit, 0.05) for _ in range(count)]
    for one in crowd:
        assert one.stdout.readline() == "start\n"
    (folder / "go").touch()
    outputs = [one.communicate(timeout=60)[0] for one in crowd]
    assert all(one.returncode == 0 for one in crowd)
    return [[int(line) for line in text.split("\n") if line.isdecimal()] for text in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 2**30])
def test_processes_share_the_work_and_make_what_one_makes(tmp_path, monkeypatch, limit):
    sizes = {"LIMIT": limit, "LARGE_FILE": (8, 2**26), "FILE": (8, 2**22)}
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    alone = paired(tmp_path / "one", lambda z, y: 0.5 * z).made
    made = together(tmp_path / "two", limit, 2)
    assert sum(alone) == N
    made = [[n for n in counts if n != 4] for counts in made]  # but for the last file, of 4 pairs
    assert sum(map(len, made)) == len(files(tmp_path / "two")) - 1 == 7
    assert min(map(len, made)) >= 2, made
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_kill_9_in_the_middle_loses_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 0)
    monkeypatch.setattr(module, "LARGE_FILE", (8, 2**26))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    paired(whole, lambda z, y: 0.5 * z)
    one = process(cut, 0, 0.05)
    (cut / "go").touch()
    while len(files(cut)) < 3:
        assert one.poll() is None
        time.sleep(0.005)
    one.kill()
    one.communicate()
    there = files(cut)
    left = there[0].with_name(f"{8 * len(there):09d}.safetensors.99.part")
    left.write_bytes(b"half a file")
    pairs = paired(cut, lambda z, y: 0.5 * z)
    assert sum(pairs.made) == N - 8 * len(there) + 4
    assert contents(cut) == contents(whole) and not left.exists()


def test_a_file_that_another_process_makes_is_waited_for(tmp_path, large):
    """Here a thread holds its lock, and leaves the work undone as if it were killed."""
    import threading

    from filelock import FileLock

    paired(tmp_path)
    path = files(tmp_path)[2]
    path.unlink()
    lock, notes = FileLock(path.with_suffix(".lock"), thread_local=False), []
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    begun = time.monotonic()
    run = Run(Budget(1, 1), tmp_path / "student", note=notes.append)
    assert paired(tmp_path, run=run).made == [8, 4]
    assert time.monotonic() - begun > 0.4
    assert notes == ["waiting for 1 files of pairs that others make"]


# Reading.

GROWTH = """
import sys
from pathlib import Path
import torch
from flowbench.pair_files import Mapped, map_tensors

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**10

paths = sorted(Path(sys.argv[1]).glob("*.safetensors"))
noise = lambda rows: torch.zeros(len(rows), 3, 64, 64)
warm = Mapped([map_tensors(paths[0])[0]], ("noise", "sample", "label"), "cpu", 1000, noise)
warm.draw(torch.arange(64))
before = anonymous()
mapped = Mapped([map_tensors(p)[0] for p in paths], warm.names, "cpu", 1000, noise)
for _ in range(60):
    rows = torch.randint(4000, (64,))
    mapped.expect(rows)
    mapped.draw(rows)
print(anonymous() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapped_set_takes_no_memory_of_its_own(tmp_path):
    for n in range(4):
        tensors = {"sample": torch.randn(1000, 3, 64, 64).half(), "label": torch.arange(1000)}
        save_tensors(tmp_path / f"{n}.safetensors", tensors, {})
    command = [sys.executable, "-c", GROWTH, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert float(found.stdout) < 30, "the files have 94 MiB; a batch, rounded and not, has 7"


def test_a_map_cannot_change_its_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"sample": torch.ones(3, 2)}, {"seconds": 1.0})
    tensors, facts = map_tensors(path)
    tensors["sample"] += 1
    assert facts == {"seconds": 1.0} and load_file(path)["sample"].eq(1).all()
    path.write_bytes(b"nothing")
    with pytest.raises(FlowbenchError, match="cannot be read"):
        map_tensors(path)


def test_rows_of_shards_are_found_by_their_number():
    shards = [{"sample": torch.arange(n, n + 4.0)[:, None]} for n in (0, 4)]
    shards.append({"sample": torch.tensor([[8.0]])})
    mapped = Mapped(shards, ("sample", "sample"), "cpu", 4, None)
    assert mapped.draw(torch.tensor([8, 0, 5, 5]))[1].flatten().tolist() == [8, 0, 5, 5]
    assert Shards(None, {}, 9, 4, print).parts == [range(4), range(4, 8), range(8, 9)]


# The command.

WORDS = ["lmm", "--dataset", "digits", "--steps", "6", "--batch", "16", "-o", "width=16"]
WORDS += ["-o", "pairs=40", "-o", "pair_steps=3"]


@pytest.mark.parametrize("sampler", ["line", "paper"])  # paper: a run that shares its network
def test_the_command_makes_what_the_run_finds(flowbench, tmp_path, sampler):
    words = [*WORDS, "-o", f"sampler={sampler}"]
    code, output = flowbench("pairs", *words)
    (path,) = files(tmp_path / "runs")
    line = output.splitlines()[-1]
    assert code == 0 and "40 pairs of lmm " in line and f"{path.parent} (" in line
    assert not list((tmp_path / "runs").glob("digits-lmm-*")), "the run itself is not begun"
    assert not list((tmp_path / "runs").glob(".pairs-*"))
    made = path.stat().st_mtime_ns
    code, output = flowbench("pairs", *words, "--quiet")
    assert (code, output) == (0, "") and path.stat().st_mtime_ns == made
    code, output = flowbench("run", *words, "--nfe", "1", "--samples", "20")
    assert code == 0 and "pairs: " not in output
    assert files(tmp_path / "runs") == [path] and path.stat().st_mtime_ns == made


def test_the_command_makes_each_set_of_a_chain_of_teachers(flowbench, tmp_path):
    words = ["--dataset", "moons", "--steps", "6", "--batch", "16", "-o", "pairs=40"]
    words += ["-o", "pair_steps=3", "-o", "inverse=0.25", "-o", "k=3", "--seed", "0,1"]
    code, output = flowbench("pairs", "rect-flow", *words, "-o", "width=16")
    lines = [line for line in output.splitlines() if "of rect-flow" in line]
    assert code == 0 and len(lines) == 4
    assert "30 pairs" in lines[0] and "10 inverse-pairs" in lines[1] and "seed 1" in lines[3]
    assert len(files(tmp_path / "runs")) == 2 * 4, "those of the flow before it, and its own"


@pytest.mark.parametrize(
    "words", [["cfm"], ["ctm"], ["lfm"], ["rect-flow", "-o", "k=1"], ["exact"]]
)
def test_methods_without_pairs_are_refused_before_anything_is_trained(flowbench, tmp_path, words):
    code, output = flowbench("pairs", *words, "--dataset", "8gaussians", "--steps", "6")
    assert code == 2 and "learns from no pairs" in output.splitlines()[-1]
    assert not list((tmp_path / "runs").glob("8gaussians-*"))


@pytest.mark.slow
def test_commands_at_the_same_time_share_the_work(flowbench, tmp_path, database):
    words = [word.replace("pairs=40", "pairs=2500") for word in WORDS]
    command = [sys.executable, "-m", "flowbench", "pairs", *words]
    environment = os.environ | {"FLOWBENCH_DB": str(database), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    outputs = [one.communicate(timeout=120) for one in crowd]
    assert [one.returncode for one in crowd] == [0, 0], outputs
    assert len(files(tmp_path / "runs")) == 3
    assert outputs[0][0] == outputs[1][0] and "2500 pairs of lmm" in outputs[0][0]


def test_pairs_are_never_flipped(tmp_path):
    """A sample that is flipped without its noise is another one's: only the teacher's data are."""
    plan = planning.plan(Request("lmm", "digits", augment="flip"), Setup(folder=tmp_path))
    assert plan.data.train.augment is None and plan.teacher is not None
    assert plan.teacher.data.train.augment is not None
    with pytest.raises(FlowbenchError, match="cannot be augmented"):
        next(Run(Budget(1, 4), augment=True).batches(paired(tmp_path)))
