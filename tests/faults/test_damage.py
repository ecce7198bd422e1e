"""Files that were cut off or in which a bit has turned: noticed, and made anew or refused by name.

Never a wrong number: whatever bit turns, what is read is what was written, or nothing.
"""

import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fake_extractor import Fake
from fault_tools import JOB, flip, query, scores
from picture_files import images, write_zip

from flowbench import cache
from flowbench.checkpoints import (
    load_state,
    read_facts,
    read_tensors,
    save_state,
    save_tensors,
    verify,
)
from flowbench.cli import cli
from flowbench.data.archive import by_path
from flowbench.data.base import Arrays, Split, content, measure
from flowbench.metrics import classifier, reference_files, references
from flowbench.records import FlowbenchError

TENSORS = {"w": torch.linspace(-1, 1, 60).reshape(6, 10), "n": torch.arange(7)}
FACTS = {"spec": {"method": "cfm", "seed": 3}, "bill": {"train": {"seconds": 1.5}}}


def copied(path, folder):
    """A copy in `folder` that may be damaged."""
    return Path(shutil.copy2(path, folder))


def same(tensors, facts):
    """Whether this is what was written."""
    alike = tensors.keys() == TENSORS.keys() and facts == FACTS
    return alike and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_no_bit_of_a_network_can_turn_unnoticed(tmp_path):
    """A bit of every byte of a small file, header and weights."""
    path = tmp_path / "network.safetensors"
    save_tensors(path, TENSORS, FACTS)
    whole, refused = path.read_bytes(), 0
    for position in range(len(whole)):
        flip(path, position, position % 8)
        try:
            assert same(*read_tensors(path)), "a flipped bit was read as another value"
        except FlowbenchError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1
            refused += 1
        path.write_bytes(whole)
    assert refused > 0.95 * len(whole), "the others are blanks behind the header"


def test_no_bit_of_a_large_file_that_is_only_mapped_can_turn_unnoticed(tmp_path):
    path = tmp_path / "pairs.safetensors"
    save_tensors(path, TENSORS, FACTS)
    verify(path)
    flip(path, -3, 5)
    with pytest.raises(FlowbenchError, match=r"pairs\.safetensors is damaged"):
        verify(path)


def test_files_of_earlier_versions_have_no_checksum_and_stay_readable(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "old.safetensors"
    save_file(TENSORS, path, {"facts": json.dumps(FACTS)})
    assert same(*read_tensors(path)) and read_facts(path) == FACTS
    verify(path)


def test_the_same_content_makes_the_same_bytes(tmp_path):
    """Their hash is stored with the run, and other tools read them."""
    from safetensors import safe_open

    for name in ("a", "b"):
        save_tensors(tmp_path / name, TENSORS, FACTS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", "pt") as file:
        assert torch.equal(file.get_tensor("w"), TENSORS["w"])
        assert set(file.metadata()) == {"facts", "sha256"}


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, -32, -1])
def test_cut_off_files_are_refused_by_name(tmp_path, length):
    save_tensors(tmp_path / "a.safetensors", TENSORS, FACTS)
    save_state(tmp_path / "a.pt", {"parts": TENSORS})
    for name, read in (("a.safetensors", read_tensors), ("a.pt", load_state)):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(FlowbenchError, match=name):
            read(path)


def test_no_bit_of_a_checkpoint_can_turn_unnoticed(tmp_path):
    path = tmp_path / "train.pt"
    save_state(path, {"parts": TENSORS})
    whole = path.read_bytes()
    for position in random.Random(0).sample(range(8 * len(whole)), 300):
        flip(path, position // 8, position % 8)
        with pytest.raises(FlowbenchError, match=r"train\.pt is damaged; delete it"):
            load_state(path)
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a job that has ended."""
    folder = tmp_path_factory.mktemp("finished")
    result = CliRunner().invoke(cli, [*JOB, "--db", str(folder / "results.db")])
    assert result.exit_code == 0, result.output
    return folder


# What is damaged, what the command says of it, and with which exit code.
DAMAGED = {
    "pairs-*/*.safetensors": ("is damaged", 0),
    "moons-lmm-*/samples-nfe1-*": ("is damaged", 0),
    "moons-lmm-*/network.safetensors": ("", 0),  # written anew from its checkpoint
    "moons-edm-*/network.safetensors": ("", 0),
    "moons-lmm-*/lines.pt": ("lines.pt is damaged; delete it", 3),
    "moons-edm-*/train.pt": ("train.pt is damaged; delete it", 3),
}


@pytest.mark.parametrize("pattern", DAMAGED)
def test_a_turned_bit_in_any_file_of_a_run_changes_no_number(
    finished, tmp_path, flowbench, pattern
):
    """The scores are lost and made again from the files, of which one is damaged."""
    shutil.copytree(finished / "runs", tmp_path / "runs", copy_function=shutil.copy2)
    path = next((tmp_path / "runs").glob(pattern))
    if "lines" not in pattern:  # so that teacher and pairs are needed
        next((tmp_path / "runs").glob("moons-lmm-*/lines.pt")).unlink()
    before = path.read_bytes()
    flip(path, len(before) - 40)
    words = [word for word in JOB if word != "--quiet"]
    code, output = flowbench(*words, "--db", str(tmp_path / "results.db"))
    said, expected = DAMAGED[pattern]
    assert code == expected and said in output and "Traceback" not in output
    if code == 0:
        if said:
            assert f"{path.name} is damaged: its content is not that of its checksum" in output
            assert "; it is made anew" in output
    else:
        path.unlink()
        assert flowbench(*JOB, "--db", str(tmp_path / "results.db"))[0] == 0
    assert scores(tmp_path / "results.db") == scores(finished / "results.db")
    verify(path) if path.suffix == ".safetensors" else load_state(path)


@pytest.mark.parametrize("word", ["--weights", "--teacher"])
def test_a_turned_bit_in_weights_that_are_handed_over_is_refused(
    finished, tmp_path, flowbench, word
):
    path = copied(next((finished / "runs").glob("moons-edm-*/network.safetensors")), tmp_path)
    flip(path, -1, 7)  # the sign of the last weight
    method, more = ("edm", []) if word == "--weights" else ("lmm", ["-o", "pairs=200"])
    given = ["run", method, "--dataset", "moons", "--nfe", "2", "--samples", "50", word, str(path)]
    code, output = flowbench(*given, *more, "--steps", "5", "--quiet")
    assert code in (2, 3) and "is damaged: its content is not that of its checksum" in output
    assert len(output.splitlines()) == 1


def test_a_turned_bit_in_decoded_images_is_mended(tmp_path):
    pixels = images(9)
    write_zip(tmp_path / "a.zip", pixels, [0, 1, 2] * 3)
    facts = by_path(tmp_path / "a.zip").facts
    (decoded,) = cache.folder("decoded").glob("a-*/*/images.npy")
    (labels,) = cache.folder("decoded").glob("a-*/*/labels.npy")
    for path in (decoded, labels):
        flip(path)
        again = by_path(tmp_path / "a.zip")
        assert again.facts == facts and (again.train == pixels).all()
        assert (again.labels == [0, 1, 2] * 3).all()
    decoded.write_bytes(decoded.read_bytes()[:200])
    again = by_path(tmp_path / "a.zip")
    assert again.facts == facts and (again.train == pixels).all()


def test_the_look_at_images_would_notice_one_pixel():
    arrays = Arrays(images(4), None, np.arange(4))
    assert content(arrays) == measure(arrays).sha256
    other = images(4)
    other[3, 2, 7, 7] ^= 1
    assert content(Arrays(other, None, np.arange(4))) != content(arrays)
    assert content(Arrays(images(4), None, np.array([0, 1, 2, 4]))) != content(arrays)


def test_facts_that_were_kept_of_images_cannot_turn_unnoticed(tmp_path):
    write_zip(tmp_path / "a.zip", images(5))
    facts = by_path(tmp_path / "a.zip").facts
    (kept,) = cache.folder("facts").iterdir()
    whole = kept.read_bytes()
    for position in range(len(whole)):
        flip(kept, position, position % 7)
        assert by_path(tmp_path / "a.zip").facts == facts
        kept.write_bytes(whole)


def test_turned_bits_in_arrays_that_the_user_has_prepared_are_refused(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    np.save(folder / "images.npy", images(6))
    by_path(folder)
    flip(folder / "images.npy", -9)
    with pytest.raises(FlowbenchError, match=r"birds holds other images .* it is damaged"):
        by_path(folder)
    os.utime(folder / "images.npy")  # the user says that this is meant
    assert by_path(folder).facts.sha256 != ""


def test_prepared_arrays_are_held_against_their_manifest_before_they_are_used(tmp_path):
    from flowbench.data import manifest

    folder = tmp_path / "birds"
    folder.mkdir()
    np.save(folder / "images.npy", images(6))
    said = {"sha256": measure(Arrays(images(6))).sha256}
    (folder / manifest.NAME).write_bytes(manifest.encode(said))
    assert by_path(folder).facts.sha256 == said["sha256"]
    shutil.rmtree(cache.folder("facts"))
    flip(folder / "images.npy", -9)
    with pytest.raises(FlowbenchError, match="birds is not what its manifest says"):
        by_path(folder)


def test_archives_with_turned_bits_are_refused_or_hold_the_same_images(tmp_path):
    """Bits all over a zip: PNG and zip have checksums, and what is left means nothing."""
    pixels, path = images(3), tmp_path / "a.zip"
    write_zip(path, pixels, [0, 1, 0])
    whole, refused = path.read_bytes(), 0
    for number, position in enumerate(random.Random(1).sample(range(8 * len(whole)), 150)):
        flip(path, position // 8, position % 8)
        os.utime(path, ns=(number, number))
        try:
            found = by_path(path)
            assert (found.train == pixels).all() and found.labels is not None
            assert list(found.labels) == [0, 1, 0]
        except FlowbenchError as error:
            assert "a.zip" in str(error) and len(str(error).splitlines()) == 1
            refused += 1
        path.write_bytes(whole)
    assert refused > 75


def test_reference_statistics_with_a_turned_bit_are_made_anew(tmp_path):
    split = Split(torch.from_numpy(images(9)), None, "cpu")
    exact = references.build(split, "data", "train", Fake()).pool.mean
    (path,) = cache.folder("references").glob("*/reference.safetensors")
    for position in (-1, -100, path.stat().st_size // 2):
        flip(path, position, 3)
        with pytest.raises(FlowbenchError, match="is damaged or no reference"):
            references.read(path)
        notes, again = [], Fake()
        found = references.build(split, "data", "train", again, note=notes.append)
        assert torch.equal(found.pool.mean, exact) and again.images == 9
        assert len(notes) == 1 and "is damaged" in notes[0] and "made anew" in notes[0]


def test_statistics_of_others_with_a_turned_bit_are_refused(tmp_path):
    path, rng = tmp_path / "fid.npz", np.random.default_rng(0)
    x = rng.standard_normal((2100, 2048)).astype(np.float32)
    np.savez(path, mu=x.mean(0), sigma=np.cov(x.T))
    reference_files.read(path)
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo("sigma.npy").header_offset + 2**20
    flip(path, middle, 2)
    with pytest.raises(FlowbenchError, match=r"fid\.npz cannot be read .*CRC"):
        reference_files.read(path)


def test_a_shipped_classifier_with_a_turned_bit_is_refused(tmp_path, monkeypatch):
    path = copied(classifier.FOLDER / "digits.safetensors", tmp_path)
    monkeypatch.setattr(classifier, "FOLDER", tmp_path)
    classifier.load.cache_clear()
    flip(path)
    with pytest.raises(FlowbenchError, match="is not the file that flowbench ships"):
        classifier.load("digits", "cpu")


def test_a_damaged_training_log_is_left_out_line_by_line(finished, tmp_path):
    from flowbench.training_log import read

    path = copied(next((finished / "runs").glob("moons-edm-*/training.jsonl")), tmp_path)
    whole = read(path)
    path.write_bytes(path.read_bytes()[:-9] + b"\xff\x00{")
    assert read(path) == whole[:-1]
    assert query(finished / "results.db", "select count(*) from attempts") == [(1,)]
