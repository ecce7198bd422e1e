"""Reference statistics of other programs: files in their layouts, and files that are none."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from fake_extractor import DIMS, Fake

from flowbench.data.base import Split
from flowbench.metrics import reference_files
from flowbench.metrics.reference_files import describe, read, write_npz
from flowbench.metrics.references import build, built
from flowbench.metrics.statistics import Statistics
from flowbench.records import FlowbenchError

DRAW = np.random.default_rng(0)
FEATURES = (DRAW.normal(size=(40, DIMS)) @ DRAW.normal(size=(DIMS, DIMS))).astype(np.float32)
MU, SIGMA = FEATURES.astype(np.float64).mean(0), np.cov(FEATURES.astype(np.float64), rowvar=False)
OTHER = {"mu": MU + 1, "sigma": 2 * SIGMA}
IMAGES = np.zeros((7, 8, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """All extractors give as many features as the files here have."""
    lengths = {"inception": (DIMS,), "clean": (DIMS,), "dinov2": (DIMS, 3)}
    monkeypatch.setattr(reference_files, "DIMS", lengths)


def npz(path, **arrays):
    np.savez(path, **arrays)


def pickled(path, protocol=4, old=False):
    found = {"fid": {"mu": MU, "sigma": SIGMA}, "fd_dinov2": OTHER, "num_images": np.int64(40)}
    content = pickle.dumps(found, protocol)
    if old:  # as NumPy 1 wrote it; the frames of protocol 4 know their lengths, those of 2 are none
        content = content.replace(b"numpy._core", b"numpy.core")
    path.write_bytes(content)


def torch_fidelity(path, renamed=False):
    """By torch-fidelity's own cache."""
    from torch_fidelity.metric_fid import fid_features_to_statistics
    from torch_fidelity.utils import cache_lookup_one_recompute_on_miss

    made = cache_lookup_one_recompute_on_miss(
        *(path.stem, lambda: fid_features_to_statistics(torch.from_numpy(FEATURES))),
        cache=True,
        cache_root=str(path.parent),
        verbose=False,
    )
    assert made["mu"].dtype == np.float32
    if renamed:  # as NumPy 1 wrote it
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part.replace(b"numpy._core", b"numpy.core"))


FORMS = {  # name of the file: (how it is written, number of images, what describe says)
    "cifar10-32x32.npz": (lambda p: npz(p, mu=MU, sigma=SIGMA), None, "EDM, TTUR"),
    "img64.pkl": (pickled, 40, "EDM2"),
    "img64-5.pkl": (lambda p: pickled(p, 5), 40, "DINOv2 ViT-L/14 (fd_dinov2)"),
    "img64-2.pkl": (lambda p: pickled(p, 2, old=True), 40, "fid.mu (6,) float64"),
    "VIRTUAL_imagenet64_labeled.npz": (
        lambda p: npz(
            p, arr_0=IMAGES, arr_1=np.zeros(7), mu=MU, sigma=SIGMA, mu_s=MU, sigma_s=SIGMA
        ),
        None,
        "arr_0: 7 images for precision and recall",
    ),
    "cifar10_stats.npz": (lambda p: npz(p, pool_3=FEATURES), 40, "score_sde"),
    "pooled.npz": (lambda p: npz(p, pool_3=FEATURES[:, None, None]), 40, "raw activations"),
    "cifar10_legacy_tensorflow_train_32.npz": (
        lambda p: npz(p, mu=FEATURES.mean(0), sigma=SIGMA),
        None,
        "mu (6,) float32, sigma (6, 6) float64",
    ),
    "train-inception-v3-compat-stat-fid-2048.pt": (torch_fidelity, None, "torch-fidelity"),
    "renamed-stat-fid-2048.pt": (lambda p: torch_fidelity(p, True), None, "torch-fidelity"),
    "train-inception-v3-compat-features-2048.pt": (
        lambda p: torch.save(torch.from_numpy(FEATURES), p),
        40,
        "torch-fidelity (raw features)",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_layout_is_read_and_described(tmp_path, name):
    write, n, words = FORMS[name]
    write(tmp_path / name)
    found = read(tmp_path / name)
    assert found.n == n and found.features is None and len(found.facts["file"]) == 64
    assert found.pool.mean.dtype == found.pool.covariance.dtype == torch.float64
    np.testing.assert_allclose(found.pool.mean, MU, rtol=2e-5)
    np.testing.assert_allclose(found.pool.covariance, SIGMA, rtol=1e-5, atol=1e-6)
    assert (found.spatial is not None) == name.startswith("VIRTUAL")
    text = "\n".join(describe(tmp_path / name))
    assert words in text and f"images: {n or 'the file does not say'}" in text
    assert found.facts["file"] in text and "with --extractor inception: yes" in text
    assert text.count("made with: ") == (2 if name.startswith("img64") else 1)
    assert ("sFID: yes" in text) == name.startswith("VIRTUAL")


def test_edm2_has_a_second_reference_for_dinov2(tmp_path):
    pickled(tmp_path / "img64.pkl")
    np.testing.assert_array_equal(read(tmp_path / "img64.pkl", "dinov2").pool.mean, MU + 1)
    (tmp_path / "fid.pkl").write_bytes(pickle.dumps({"fid": {"mu": MU, "sigma": SIGMA}}))
    with pytest.raises(FlowbenchError, match=r"no statistics for dinov2 .* it holds fid.mu"):
        read(tmp_path / "fid.pkl", "dinov2")


def test_a_file_that_cannot_be_used_is_described_all_the_same(tmp_path):
    npz(tmp_path / "odd.npz", mu=MU, sigma=-SIGMA, pool_3=np.float32(1), arr_0=np.float32(1))
    text = "\n".join(describe(tmp_path / "odd.npz"))
    assert "with --extractor inception: no, " in text and "negative eigenvalues" in text
    npz(tmp_path / "images.npz", arr_0=IMAGES)
    with pytest.raises(FlowbenchError, match="no statistics for any extractor"):
        describe(tmp_path / "images.npz")


def test_our_own_file_and_its_export_agree(tmp_path):
    images = torch.randint(0, 256, (30, 3, 8, 8)).byte()
    made = build(Split(images, None, "cpu"), "d" * 64, "train", Fake(), label="tiny")
    [(path, _)] = built()
    assert torch.equal(read(path, "fake").pool.covariance, made.pool.covariance)
    assert "images: 30 of train" in "\n".join(describe(path))
    with pytest.raises(FlowbenchError, match="was made with fake, not clean"):
        read(path, "clean")
    write_npz(made, tmp_path / "out.npz")
    again = read(tmp_path / "out.npz")
    assert again.n == 30 and torch.equal(again.pool.covariance, made.pool.covariance)
    assert torch.equal(again.spatial.covariance, made.spatial.covariance)
    with np.load(tmp_path / "out.npz") as arrays:  # as EDM reads it
        assert arrays["sigma"].dtype == np.float64 and arrays["mu"].shape == (DIMS,)


def test_raw_activations_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_files, "BLOCK", 7)
    sizes, add = [], Statistics.add
    monkeypatch.setattr(Statistics, "add", lambda self, x: (sizes.append(len(x)), add(self, x)))
    npz(tmp_path / "raw.npz", pool_3=FEATURES)
    np.testing.assert_allclose(read(tmp_path / "raw.npz").pool.covariance, SIGMA, rtol=1e-9)
    assert max(sizes) == 7


class Evil:
    """Makes a file named `ran` when it is unpickled."""

    def __init__(self, folder):
        self.path = folder / "ran"

    def __reduce__(self):
        return open, (str(self.path), "w")


def not_positive():
    values, vectors = np.linalg.eigh(SIGMA)
    return (vectors * np.where(values == values.min(), -0.01 * values.max(), values)) @ vectors.T


def picture_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00000/img00000000.png", b"png")
        archive.writestr("dataset.json", b"{}")


def truncated(path):
    npz(path, mu=MU, sigma=SIGMA)
    path.write_bytes(path.read_bytes()[:300])


def bit_flipped(path):
    npz(path, mu=MU, sigma=SIGMA)
    content = bytearray(path.read_bytes())
    content[content.index(SIGMA.tobytes())] ^= 1
    path.write_bytes(bytes(content))


def huge(path):
    """A header that promises a petabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 6)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pool_3.npy", header.getvalue())


BAD = {
    "nan.npz": (lambda p: npz(p, mu=MU * np.nan, sigma=SIGMA), "mu has entries that are no finite"),
    "inf.npz": (lambda p: npz(p, pool_3=FEATURES / 0.0), "pool_3 has entries that are not finite"),
    "skew.npz": (lambda p: npz(p, mu=MU, sigma=np.triu(SIGMA)), "sigma is not symmetric"),
    "negative.npz": (lambda p: npz(p, mu=MU, sigma=not_positive()), "negative eigenvalues"),
    "shape.npz": (lambda p: npz(p, mu=MU, sigma=SIGMA[:3]), "sigma (3, 6) float64"),
    "flat.npz": (lambda p: npz(p, mu=MU[0], sigma=SIGMA), "are no mean (d,) and covariance"),
    "words.npz": (lambda p: npz(p, mu=MU.astype(str), sigma=SIGMA), "no finite"),
    "short.npz": (lambda p: npz(p, mu=MU[:3], sigma=SIGMA[:3, :3]), "name --extractor dinov2"),
    "five.npz": (lambda p: npz(p, mu=MU[:5], sigma=SIGMA[:5, :5]), "is of 5 features, inception"),
    "one.npz": (lambda p: npz(p, pool_3=FEATURES[:1]), "is no table of features"),
    "samples.npz": (lambda p: npz(p, arr_0=IMAGES), "it holds arr_0 (7, 8, 8, 3) uint8"),
    "empty.npz": (lambda p: npz(p), "no reference statistics"),
    "images.zip": (picture_archive, "made with flowbench ref build"),
    "cut.npz": (truncated, "cannot be read"),
    "flipped.npz": (bit_flipped, "cannot be read as reference statistics: Bad CRC"),
    "huge.npz": (huge, "cannot be read as reference statistics: "),
    "text.npz": (lambda p: p.write_text("mu sigma"), "cannot be read"),
    "nothing.npz": (lambda p: p.write_bytes(b""), "cannot be read"),
    "other.safetensors": (lambda p: p.write_text("mu sigma"), "is damaged or no reference"),
    "missing.npz": (lambda p: None, "is no file"),
    "folder.npz": (lambda p: p.mkdir(), "is no file"),
    "list.pkl": (lambda p: p.write_bytes(pickle.dumps([MU, SIGMA])), "holds a list"),
    "names.pkl": (lambda p: p.write_bytes(pickle.dumps({"mu": "a"})), "mu is a str, not an array"),
    "evil.pkl": (
        lambda p: p.write_bytes(pickle.dumps({"fid": Evil(p.parent)})),
        "asks for io.open, which is no array",
    ),
    "evil.npz": (
        lambda p: npz(p, mu=np.array([Evil(p.parent)]), sigma=SIGMA),
        "mu.npy holds Python objects",
    ),
    "evil.pt": (lambda p: torch.save({"mu": Evil(p.parent)}, p), "which is no array"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(tmp_path, name):
    write, reason = BAD[name]
    with np.errstate(divide="ignore", invalid="ignore"):
        write(tmp_path / name)
    with pytest.raises(FlowbenchError) as caught:
        read(tmp_path / name)
    message = str(caught.value)
    assert reason in message and name in message and "\n" not in message
    assert not (tmp_path / "ran").exists()


def test_the_evil_file_would_run_code(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path))).close()
    assert (tmp_path / "ran").exists()


def test_rounding_is_no_reason_to_refuse(tmp_path):
    sigma = SIGMA.astype(np.float32)
    sigma[0, 1] *= 1 + 1e-6
    degenerate = np.outer(MU, MU).astype(np.float32)  # of rank 1: five eigenvalues round to +-0
    for i, matrix in enumerate((sigma, degenerate)):
        npz(tmp_path / f"{i}.npz", mu=MU, sigma=matrix)
        assert read(tmp_path / f"{i}.npz").pool.covariance.shape == (DIMS, DIMS)
