"""Reference statistics in the files of others: EDM, EDM2, ADM, score_sde, clean-fid and more."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowbench.checkpoints import file_hash, write
from flowbench.metrics import references
from flowbench.metrics.reference_containers import Container, open_container
from flowbench.metrics.references import Reference
from flowbench.metrics.statistics import Moments, Statistics
from flowbench.records import FlowbenchError

# Lengths of pool features by extractor; those of DINOv2 are ViT-S, B and L.
DIMS = {"inception": (2048,), "clean": (2048,), "dinov2": (384, 768, 1024)}
# What rounding may leave of an eigenvalue or a difference that is 0, beside the largest entry.
ROUNDING = 1e-4
BLOCK = 2000  # rows of raw activations in float64 at once


@dataclass(frozen=True)
class Form:
    """A layout of files: the names that tell it, who writes it, and with which network."""

    names: frozenset[str]
    writers: str
    made_with: str
    spatial: str = "no"


# The first whose names are all there holds.
FORMS = {
    "adm": Form(
        frozenset({"mu", "sigma", "mu_s", "sigma_s"}),
        "ADM (guided-diffusion), used by consistency models and CTM; flowbench ref build -o",
        "Inception-v3 of 2015 (TensorFlow graph)",
        "yes (mu_s, sigma_s)",
    ),
    "moments": Form(
        frozenset({"mu", "sigma"}),
        "EDM, TTUR, clean-fid, pytorch-fid, torch-fidelity",
        "the file does not say; EDM, TTUR and clean-fid's legacy_tensorflow resize as TensorFlow 1"
        " did, clean-fid's clean and pytorch-fid do not",
    ),
    "edm2 fid": Form(frozenset({"fid.mu", "fid.sigma"}), "EDM2", "Inception-v3 of 2015 (fid)"),
    "edm2 fd_dinov2": Form(
        frozenset({"fd_dinov2.mu", "fd_dinov2.sigma"}), "EDM2", "DINOv2 ViT-L/14 (fd_dinov2)"
    ),
    "activations": Form(
        frozenset({"pool_3"}),
        "score_sde, RectifiedFlow (raw activations)",
        "Inception-v3 of 2015 (TensorFlow-GAN)",
    ),
    "features": Form(
        frozenset({"features"}),
        "torch-fidelity (raw features)",
        "does not say: see the file's name",
    ),
}


def read(path: Path, extractor: str = "inception") -> Reference:
    """Reference statistics of a file, for samples that go through `extractor`.

    A file of EDM2 holds two references: `dinov2` takes its fd_dinov2, others its fid. Moments are
    float64 on the CPU. Raises FlowbenchError for a file of another form, of features of another
    length or extractor, or whose covariance is none.
    """
    if path.suffix == ".safetensors":
        found = references.read(path)
        made_with = found.facts["extractor"].get("name")
        if made_with != extractor:
            raise FlowbenchError(
                f"{path} was made with {made_with}, not {extractor}: make another with"
                f" flowbench ref build --extractor {extractor}"
            )
        return found
    container = open_container(path)
    form = _form(container, extractor)
    known = {"file": file_hash(path), "form": form}
    if form in ("activations", "features"):
        statistics = _statistics(container, next(iter(FORMS[form].names)), extractor)
        return Reference(statistics.moments, None, None, statistics.n, known)
    prefix = form.removeprefix("edm2 ") + "." if form.startswith("edm2") else ""
    pool = _moments(container, f"{prefix}mu", f"{prefix}sigma", extractor)
    spatial = _moments(container, "mu_s", "sigma_s", None) if form == "adm" else None
    return Reference(pool, spatial, None, _count(container), known)


def _forms(container: Container) -> list[str]:
    """The first form that holds, or both of EDM2."""
    forms = [name for name, form in FORMS.items() if form.names <= container.shapes.keys()]
    return [name for name in forms if name.startswith("edm2")] or forms[:1]


def _form(container: Container, extractor: str) -> str:
    """The form to read; raises FlowbenchError that says what was found instead."""
    other = "edm2 fid" if extractor == "dinov2" else "edm2 fd_dinov2"
    forms = [name for name in _forms(container) if name != other]
    if forms:
        return forms[0]
    raise FlowbenchError(
        f"{container.path} has no statistics for {extractor} (mu and sigma, or pool_3):"
        f" it holds {container}"
    )


def _count(container: Container) -> int | None:
    """The number of images, where the file has it."""
    raw = _rows(container, "pool_3") or _rows(container, "features")
    if raw:
        return raw
    name = next((name for name in ("num_images", "n") if name in container.shapes), None)
    return None if name is None or container.shapes[name][0] else int(container.read(name))


def _rows(container: Container, name: str) -> int:
    """The length of an array, 0 where there is none."""
    shape, _ = container.shapes.get(name, ((), ""))
    return shape[0] if shape else 0


def _statistics(container: Container, name: str, extractor: str) -> Statistics:
    """Statistics of raw activations (n, d), perhaps with axes of length 1 behind."""
    shape, kind = container.shapes[name]
    if len(shape) < 2 or shape[0] < 2 or not kind.startswith("float"):
        raise FlowbenchError(f"{container.path}: {name} {shape} {kind} is no table of features")
    values = container.read(name).reshape(shape[0], -1)
    _check_length(container.path, values.shape[1], extractor)
    statistics = Statistics.empty(values.shape[1])
    for start in range(0, len(values), BLOCK):
        statistics.add(torch.from_numpy(values[start : start + BLOCK]))
    if not torch.isfinite(statistics.m2).all():
        raise FlowbenchError(f"{container.path}: {name} has entries that are not finite")
    return statistics


def _moments(container: Container, mean: str, covariance: str, extractor: str | None) -> Moments:
    """Checked moments under two names; the length is checked where an extractor is named."""
    path, (shape, _) = container.path, container.shapes[mean]
    if len(shape) != 1 or container.shapes[covariance][0] != shape * 2:
        raise FlowbenchError(
            f"{path}: {mean} and {covariance} are no mean (d,) and covariance (d, d):"
            f" it holds {container}"
        )
    if extractor:
        _check_length(path, shape[0], extractor)
    moments = Moments(*(_double(container, name) for name in (mean, covariance)))
    _check_covariance(path, covariance, moments.covariance)
    return moments


def _double(container: Container, name: str) -> Tensor:
    values = container.read(name)
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise FlowbenchError(f"{container.path}: {name} has entries that are no finite numbers")
    return torch.from_numpy(values.astype(np.float64))


def _check_length(path: Path, length: int, extractor: str) -> None:
    if length not in DIMS.get(extractor, (length,)):
        allowed = " or ".join(map(str, DIMS[extractor]))
        fits = [name for name, dims in DIMS.items() if length in dims]
        instead = f"name --extractor {fits[0]}" if fits else "give a file of that extractor"
        raise FlowbenchError(
            f"{path} is of {length} features, {extractor} gives {allowed}: {instead}"
        )


def _check_covariance(path: Path, name: str, covariance: Tensor) -> None:
    """Raise FlowbenchError unless it is symmetric and, up to rounding, positive semidefinite."""
    slack = ROUNDING * covariance.abs().max().clamp(min=1e-300)
    if (covariance - covariance.T).abs().max() > slack:
        raise FlowbenchError(f"{path}: {name} is not symmetric, so it is no covariance")
    raised = covariance + slack * torch.eye(len(covariance), dtype=torch.float64)
    if torch.linalg.cholesky_ex(raised).info:
        raise FlowbenchError(f"{path}: {name} has negative eigenvalues, so it is no covariance")


def describe(path: Path) -> list[str]:
    """What a file holds, line by line: arrays, images, extractor, and whether it can be used."""
    if path.suffix == ".safetensors":
        return _describe_own(path)
    container = open_container(path)
    forms = [FORMS[name] for name in _forms(container)]
    if not forms:
        _form(container, "any extractor")
    n, images = _count(container), _rows(container, "arr_0")
    lines = [
        f"{path}: {container.kind}, statistics as written by {forms[0].writers}",
        f"  arrays: {container}",
        f"  images: {n or 'the file does not say how many, and of which data set'}",
        *[f"  made with: {form.made_with}" for form in forms],
        f"  sFID: {forms[0].spatial}",
    ]
    if images:
        lines.append(f"  arr_0: {images} images for precision and recall; FID is of the full set")
    usable = [_use(path, container, name) for name in DIMS]
    return [*lines, f"  sha256: {file_hash(path)}", *usable]


def _use(path: Path, container: Container, extractor: str) -> str:
    """Whether samples that go through `extractor` may be held against a file."""
    try:
        read(path, extractor)
    except FlowbenchError as error:
        return f"  with --extractor {extractor}: no, {str(error).removeprefix(f'{path} ')}"
    return f"  with --extractor {extractor}: yes, if it was made with the same resizing"


def _describe_own(path: Path) -> list[str]:
    reference = references.read(path)
    facts, kept = reference.facts, reference.features
    protocol = ", ".join(f"{name} {value}" for name, value in facts["extractor"].items())
    return [
        f"{path}: statistics made by flowbench ref build",
        f"  images: {reference.n} of {facts['split']}, data {facts['data']}",
        f"  made with: {protocol}",
        f"  features kept: {0 if kept is None else len(kept)} rows",
        f"  sFID: {'no' if reference.spatial is None else 'yes'}",
        f"  sha256: {file_hash(path)}",
        "  compare with: samples through this very extractor, of models of these data",
    ]


def write_npz(reference: Reference, path: Path) -> None:
    """Store moments as EDM does (mu, sigma), so that other tools read them.

    The number of images (n) and, where known, moments of spatial features (mu_s, sigma_s, as ADM
    names them) lie beside; the features are left out.
    """
    arrays: dict[str, Any] = {"mu": reference.pool.mean, "sigma": reference.pool.covariance}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mean, "sigma_s": reference.spatial.covariance}
    if reference.n is not None:
        arrays["n"] = torch.tensor(reference.n)
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tensor.cpu().numpy() for name, tensor in arrays.items()})
    try:
        write(path, buffer.getvalue())
    except OSError as error:
        raise FlowbenchError(f"{path} cannot be written: {error.strerror}") from error
