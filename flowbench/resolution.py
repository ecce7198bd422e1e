"""What a request comes to: budget, protocol, the weights that it needs, what it may not ask."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flowbench.checkpoints import file_hash
from flowbench.known_weights import KNOWN
from flowbench.plans import Request, Setup
from flowbench.records import ADAPTIVE, Absent, Budget, FlowbenchError, Protocol

NFES = (1, 2, 4, 8)  # what is measured unasked


def nfes(request: Request) -> tuple[int, ...]:
    """The numbers of evaluations, each once."""
    return tuple(dict.fromkeys(NFES if request.nfe is None else request.nfe))


def refuse(request: Request, method: Any) -> None:
    """Raise FlowbenchError, before anything is trained, for what `method` cannot do."""
    for hook in ("train", "sample"):
        if not callable(getattr(method, hook, None)):
            raise FlowbenchError(f"{request.method} has no hook {hook}, so it is no method")
    for nfe in nfes(request):
        if nfe < ADAPTIVE:
            raise FlowbenchError(f"--nfe takes numbers from 1, or auto, not {nfe}")
        reason = refusal(method, nfe)
        if reason:
            raise FlowbenchError(
                f"{request.method} cannot sample with --nfe {nfe or 'auto'}: {reason}"
            )


def refusal(method: Any, nfe: int | None) -> str | None:
    """Why `method` does not sample with so many evaluations, or None; ADAPTIVE or None: adaptive.

    A method that says nothing takes every number, and has no adaptive solver.
    """
    if hasattr(method, "refuses"):
        return method.refuses(nfe or None)
    return None if nfe else "it has no adaptive solver: give --nfe a number"


def refuse_data(request: Request, method: Any, data: Any) -> None:
    """Raise FlowbenchError, before anything is trained, for data that `method` cannot take."""
    reason = getattr(method, "refuses_data", lambda data: None)(data)
    if reason:
        raise FlowbenchError(f"{request.method} cannot learn from {data.name}: {reason}")


def budget(request: Request, default: Budget) -> Budget:
    """The steps and batch of a run whose data set has the budget `default`."""
    batch = request.batch or default.batch
    if request.steps and request.images:
        raise FlowbenchError("--steps and --images are two ways to say one thing: give one")
    steps = request.steps or (request.images // batch if request.images else default.steps)
    return Budget(steps, batch)


def protocol(request: Request, default: int) -> Protocol:
    """How the run is examined; `default` is the data set's number of samples."""
    samples = default if request.samples is None else request.samples
    if samples < 2:
        raise FlowbenchError(f"--samples takes at least 2, not {samples}")
    if request.reference_rows is not None and request.reference_rows < 2:
        raise FlowbenchError(f"--reference-rows takes at least 2, not {request.reference_rows}")
    return Protocol(samples, request.sample_seed, request.reference_rows)


def frozen(request: Request, method: Any, setup: Setup) -> dict[str, Path]:
    """The files of the pretrained networks that the method's losses look through, by name.

    Raises Absent for one that is not here.
    """
    names = getattr(method, "needs_weights", ())
    missing = [KNOWN[name] for name in names if name not in setup.weights]
    if not missing:
        return {name: setup.weights[name] for name in names}
    needs = f"{request.method} with these options needs the weights"
    if len(missing) == 1:
        known = missing[0]
        how = f"flowbench weights download {known.name}, or {known.instead}"
        raise Absent(f"{needs} {known.name} ({known.summary}): {how}")
    listed = ", ".join(known.name for known in missing)
    how = "`flowbench weights download NAME` for each, or give --feature-weights NAME=FILE"
    raise Absent(f"{needs} {listed}: {how}")


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of each file."""
    return {name: _hash(path, path.stat().st_mtime_ns) for name, path in files.items()}


@cache
def _hash(path: Path, changed: int) -> str:
    return file_hash(path)
