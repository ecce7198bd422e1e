"""A stored run done again with today's code, and each of its numbers held against the old one."""

import glob
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowbench import environment, planning, plugins, setting
from flowbench.checkpoints import read_facts
from flowbench.comparison.fingerprint import is_speed
from flowbench.explanation import ABSENT, compare, decided
from flowbench.planning import Plan, Request, Setup
from flowbench.records import RUN_LEVEL, FlowbenchError, Measured, Protocol, Score, Spec
from flowbench.store import Store

EQUAL, WITHIN, DIFFERENT = "equal", "within tolerance", "different"
ORDER = (EQUAL, WITHIN, DIFFERENT)
RELATIVE = 1e-3  # tolerance where too few seeds say how far a number varies
SEEDS = 3  # from which on they say it
SHOWN = 16  # characters of a value in an error message
MACHINE = ("python", "torch", "device", "threads", "cuda", "tf32", "git", "deterministic")


class Different(FlowbenchError):
    """A run that was done again and gave other numbers."""

    exit_code = 6


def today(store: Store, spec: Spec, setup: Setup, runs: Path) -> Plan:
    """What the words of a stored run lead to with today's code and data: perhaps another run.

    `runs` is the folder of stored runs, for a teacher that is not in the database. Raises
    FlowbenchError where they lead nowhere: for data that are not here, options that are gone, or a
    network or teacher from a file, which nobody keeps.
    """
    if spec.weights:
        raise FlowbenchError(
            f"{spec.name} examines the network of the file {spec.changed.get('weights')}: give it"
            f" to flowbench run {spec.method} --dataset {spec.dataset} --weights FILE"
        )
    changed = spec.changed
    names = (*setting.WORDS, "preset", *(planning.BUDGET if "preset" in changed else ()))
    said = {name: changed[name] for name in names if name in changed}
    if "preset" not in changed:
        said |= {"steps": spec.budget.steps, "batch": spec.budget.batch}
    request = Request(
        spec.method,
        spec.dataset,
        spec.seed,
        options=dict(spec.options),
        teacher=_teacher(store, spec, runs),
        nfe=(),
        **said,
    )
    return planning.plan(request, setup)


def _teacher(store: Store, spec: Spec, runs: Path) -> str | Spec | None:
    word = spec.changed.get("teacher")
    if word is None or word in plugins.methods():
        return word
    found = teacher_of(store, spec, runs)
    if found is None:
        raise FlowbenchError(
            f"the teacher of {spec.name} is neither a stored run nor a method, but {word}: do it"
            f" again by flowbench run {spec.method} --dataset {spec.dataset} --teacher FILE"
        )
    return found


def teacher_of(store: Store, spec: Spec, runs: Path) -> Spec | None:
    """The Spec of a run's teacher, from the database or the file of its network."""
    if not spec.teacher:
        return None
    specs = {tried.spec.key: tried.spec for tried in store.tried(spec.dataset)}
    return specs.get(spec.teacher) or _in_folder(spec.teacher, spec.dataset, runs)


def _in_folder(key: str, dataset: str, runs: Path) -> Spec | None:
    """The Spec in the header of the network of the run with this key."""
    name = f"{glob.escape(dataset)}-*-{glob.escape(key[:8])}"
    for path in sorted(runs.glob(f"{name}/network.safetensors")):
        try:
            spec = Spec.from_json(read_facts(path)["spec"])
        except (FlowbenchError, KeyError, TypeError):
            continue
        if spec.key == key:
            return spec
    return None


def same(store: Store, name: str, spec: Spec, setup: Setup, runs: Path) -> Plan:
    """Today's plan of a stored run, where it is that very run.

    Raises FlowbenchError that names the fields in which it is not, and as `today` does.
    """
    plan = today(store, spec, setup, runs)
    found = decided(name, spec, plan.spec)
    if found:
        fields = "; ".join(f"{d.field} {_short(d.old)}, today {_short(d.new)}" for d in found)
        raise FlowbenchError(f"{name} cannot be made with today's code and data: {fields}")
    return plan


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def examined(scores: Iterable[Score]) -> dict[Protocol, tuple[int, ...]]:
    """How a stored run was examined: the NFEs of each noise stream and number of samples."""
    kept = [s for s in scores if s.subject == "model" and s.n and s.nfe != RUN_LEVEL]
    rows: dict[tuple[int, int], int] = {}
    for score in kept:
        reference = score.protocol.get("reference")
        number = reference.get("rows") if isinstance(reference, Mapping) else None
        if isinstance(number, int):
            rows[score.n, score.seed] = number
    found: dict[Protocol, set[int]] = {}
    for score in kept:
        protocol = Protocol(score.n, score.seed, rows.get((score.n, score.seed)))
        found.setdefault(protocol, set()).add(score.nfe)
    return {protocol: tuple(sorted(nfes)) for protocol, nfes in found.items()}


def plans(plan: Plan, scores: Iterable[Score]) -> list[Plan]:
    """The plan with each protocol and the NFEs of these scores."""
    return [replace(plan, protocol=p, nfe=nfes) for p, nfes in examined(scores).items()]


@dataclass(frozen=True)
class Compared:
    """A stored number and the one that was made again; `verdict` is "" where none is passed.

    `tolerance` is how far apart they may be, `why` how that was chosen or why nothing was compared.
    """

    score: Score
    again: float | None
    verdict: str = ""
    tolerance: float = 0.0
    why: str = ""


def held(
    stored: Sequence[Measured], again: Sequence[Measured], others: Sequence[Measured]
) -> list[Compared]:
    """Each stored number of a run against the same one made again.

    `others` are the numbers of all runs of its method and data set: where three training seeds of
    the same row or more have a number, twice their standard deviation is its tolerance. Times and
    memory are not judged.
    """
    made = {_place(row.score): row.score for row in again}
    spread = _Spread(others)
    return [_compared(row, made.get(_place(row.score)), spread) for row in stored]


def _place(score: Score) -> tuple:
    return score.subject, score.name, score.nfe, score.n, score.seed


def _compared(row: Measured, again: Score | None, spread: "_Spread") -> Compared:
    score = row.score
    if is_speed(score.name):
        return Compared(score, again.value if again else None, why="not judged")
    if again is None:
        return Compared(score, None, why="not measured again")
    if again.fingerprint != score.fingerprint:
        found = compare("", dict(score.protocol), dict(again.protocol))
        fields = ", ".join(d.field for d in found)
        return Compared(score, None, why=f"measured in another way today: {fields}")
    return _judged(score, again.value, *spread.tolerance(row))


def _judged(score: Score, again: float, tolerance: float, why: str) -> Compared:
    old = score.value
    if old == again or (math.isnan(old) and math.isnan(again)):
        return Compared(score, again, EQUAL)
    near = abs(old - again) <= tolerance  # never of numbers that are not finite
    return Compared(score, again, WITHIN if near else DIFFERENT, tolerance, why)


class _Spread:
    """How far numbers vary between training seeds."""

    def __init__(self, others: Sequence[Measured]):
        self.values: dict[tuple, dict[int, float]] = {}
        for row in others:
            self.values.setdefault(_row(row), {})[row.spec.seed] = row.score.value

    def tolerance(self, row: Measured) -> tuple[float, str]:
        """How far a number may be off, and how that was chosen."""
        values = list(self.values.get(_row(row), {}).values())
        values = values if row.score.subject == "model" else []  # a floor has no training
        if len(values) >= SEEDS and all(map(math.isfinite, values)):
            return 2 * statistics.stdev(values), f"2 sd of {len(values)} training seeds"
        value = row.score.value
        relative = RELATIVE * abs(value) if math.isfinite(value) else 0.0
        return relative, f"relative {RELATIVE:g}"


def _row(row: Measured) -> tuple:
    """What the seeds of one row share; the teacher of each has its seed."""
    spec, score = replace(row.spec, seed=0, teacher=None), row.score
    return spec.key, spec.variant, score.subject, score.fingerprint, score.nfe


def verdict(found: Iterable[Compared]) -> str:
    """The worst word about any number; "" where none was judged."""
    words = {one.verdict for one in found if one.verdict}
    return max(words, key=ORDER.index, default="")


def surroundings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """A line for each fact of the machine that differs between two environments."""
    for name in MACHINE:
        a, b = old.get(name, ABSENT), new.get(name)
        if old and a != b:
            yield f"{name}: stored {a}, today {b}"


def threads(environments: Iterable[Mapping[str, Any]]) -> AbstractContextManager[None]:
    """As many threads as the run had, where that is one number: sums depend on it in the last bits.

    A number above the cores of this machine is left alone.
    """
    counts = {facts.get("threads") for facts in environments}
    count = counts.pop() if len(counts) == 1 else None
    here = isinstance(count, int) and 1 <= count <= (os.cpu_count() or 1)
    return environment.threads(count if here else None)
