"""What of a run is there already and what would be made new, part by part; nothing is made."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from flowbench import plugins, protocol, runner
from flowbench.checkpoints import read_facts, read_tensors, weights_hash
from flowbench.explanation import ABSENT, compare
from flowbench.metrics import references
from flowbench.metrics.classifier import SHIPPED
from flowbench.pairs import Pairs
from flowbench.planning import Plan, Setup
from flowbench.protocol import Key
from flowbench.records import RUN_LEVEL, FlowbenchError, Spec
from flowbench.sampling import Sampler
from flowbench.store import Store
from flowbench.teacher import Teacher
from flowbench.training import MAKING, Prepared, Run

NETWORK = "network.safetensors"
NOT_TRAINED = ("teacher", *MAKING)  # parts of a bill that have no checkpoint here


@dataclass(frozen=True)
class Stage:
    """A part of a run, `used` as it is there or to be made new; `words` say from where, or why."""

    name: str
    used: bool
    words: str
    spec: Spec | None = None  # of the run that would be trained, where this is a new network


def look(plan: Plan, setup: Setup, store: Store | None) -> list[Stage]:
    """Each part that the plan needs, teachers first and scores last; nothing is made or written."""
    generation = _generation(store, plan.spec)
    if generation > 1:  # what was forced was trained anew
        plan = replace(plan, trained=None)
    folder = plan.folder(setup, generation)
    own = folder if plan.trained is None else plan.trained.folder(setup)
    found = [_network(above, above.folder(setup), "teacher's ") for above in _teachers(plan)]
    found += [stage for stage in [_pairs(plan, setup)] if stage]
    found.append(_network(plan.trained or plan, own))
    found += _samples(plan, setup, folder, own)
    found += _features(plan, setup)
    return [*found, *_scores(plan, setup, store)]


def _generation(store: Store | None, spec: Spec) -> int:
    tried = store.tried(spec.dataset, [spec.method], [spec.seed]) if store else []
    return max((t.generation for t in tried if t.spec.key == spec.key), default=1)


def _teachers(plan: Plan) -> list[Plan]:
    """Those that the plan learns from, the first of them first."""
    above = plan.teacher
    return [] if above is None else [*_teachers(above), above]


def _network(plan: Plan, folder: Path, whose: str = "") -> Stage:
    """Whether a network is read from its file, or from checkpoints that are all there."""
    name, file = f"{whose}network", folder / NETWORK
    if plan.weights is not None:
        return Stage(name, True, str(plan.weights))
    kept = sorted(path.name for path in folder.glob("*.pt"))
    if not file.exists():
        words = f"goes on from {', '.join(kept)} in {folder}" if kept else "not there"
        return Stage(name, False, words, plan.spec)
    try:
        bill = read_facts(file).get("bill") or {}
        trained = [s for s, part in bill.items() if part["images"] and s not in NOT_TRAINED]
    except FlowbenchError as error:
        return Stage(name, False, str(error), plan.spec)
    except (AttributeError, KeyError, TypeError):
        return Stage(name, False, f"{file} is no network of ours", plan.spec)
    gone = [f"{stage}.pt" for stage in trained if f"{stage}.pt" not in kept]
    if gone:  # training starts from them, and not from the network
        return Stage(name, False, f"its checkpoints are gone: {', '.join(gone)}", plan.spec)
    return Stage(name, True, f"{file} ({', '.join(kept)})" if kept else str(file))


class _Looking(Run):
    """A run that ends where its method first asks for batches, and gives away their source."""

    def batches(self, source: Any, /, **parts: Any) -> Iterator[tuple]:
        raise Prepared(source)


def _pairs(plan: Plan, setup: Setup) -> Stage | None:
    """Whether the pairs are there that a student learns from; None where it learns from none."""
    if plan.teacher is None or not hasattr(plan.method, "pairs"):
        return None
    if not _network(plan.teacher, plan.teacher.folder(setup)).used:
        return Stage("pairs", False, "their teacher is not there yet")
    try:
        sources = _sources(plan, plan.teacher, setup)
    except Exception as error:  # of a method, which may be anybody's
        return Stage("pairs", False, f"cannot be told: {error}")
    with tempfile.TemporaryDirectory() as empty:  # the files are looked for, no folder is made
        files = [source._files(Path(empty)) for source in sources]
    files = [replace(f, folder=setup.folder / f.folder.name) for f in files]
    there = [f"{f.done} of {f.total} in {f.folder}" for f in files]
    used = bool(files) and all(f.done == f.total for f in files)
    return Stage("pairs", used, ", ".join(there)) if files else None


def _sources(plan: Plan, above: Plan, setup: Setup) -> list[Pairs]:
    """The pairs that training would begin with, not made."""

    def make() -> Any:
        file = above.weights or above.folder(setup) / NETWORK
        return runner.train(replace(above, weights=file, trained=None), setup, file.parent).network

    folder, seed = plan.folder(setup), plan.spec.seed
    run = _Looking(plan.spec.budget, folder, seed, setup.device, weights=plan.frozen)
    interval = protocol.field_interval(above, runner.hooks(above)) or protocol.WHOLE
    teacher = Teacher(make, runner.hooks(above).velocity, interval)
    try:
        plugins.manager(plan.method).hook.train(data=plan.data, run=run, teacher=teacher, meter={})
    except Prepared as prepared:
        (source,) = prepared.args
        return [s for s in (source, *vars(source).values()) if isinstance(s, Pairs)]
    return []


def _samples(plan: Plan, setup: Setup, folder: Path, own: Path) -> Iterator[Stage]:
    """Whether samples are there that this very network drew."""
    sampler, weights = Sampler(plan, setup, folder, None, cast(Any, None)), ""
    for nfe in plan.nfe:
        name, path = f"samples, NFE {nfe or 'auto'}", sampler.path(nfe)
        if not path.exists():
            yield Stage(name, False, "not there")
            continue
        try:
            weights = weights or _weights(plan.weights or own / NETWORK)
            same = read_facts(path).get("weights") == weights
        except FlowbenchError as error:
            yield Stage(name, False, str(error))
            continue
        yield Stage(name, same, str(path) if same else f"{path} is of another network")


def _weights(file: Path) -> str:
    """The hash of the network in a file."""
    tensors, _ = read_tensors(file)
    return weights_hash(cast(Any, SimpleNamespace(state_dict=lambda: tensors)))


def _features(plan: Plan, setup: Setup) -> Iterator[Stage]:
    """Whether the features of the real images are there that metrics hold samples against."""
    found = {m.extractor: m for m in protocol.metrics_for(plan, setup) if m.needs != "logits"}
    against, data = protocol.against_for(plan, setup), plan.data
    wanted = {n: against.facts(m, data) for n, m in found.items() if n}
    if data.classifier is not None:
        rows = {"data": data.sha256, "split": "train", "rows": len(data.train)}
        wanted[data.classifier] = {"weights": SHIPPED[data.classifier], "reference": rows}
    for name, facts in wanted.items():
        if setup.reference is not None and "file" in facts["reference"]:
            yield Stage(f"features, {name}", True, str(setup.reference))
            continue
        path = _reference(name, facts)
        yield Stage(f"features, {name}", path is not None, str(path or "not in the cache"))


def _reference(name: str, facts: Mapping[str, Any]) -> Path | None:
    """The file of the cache with the features of these rows and weights."""
    rows = facts["reference"]
    for path, header in references.built():
        known = header["facts"]
        here = known["extractor"].get("name"), known["extractor"].get("weights")
        same = (known["data"], known["split"], known["n"]) == tuple(rows.values())
        if same and here == (name, facts["weights"]) and references.find_built(known) == path:
            return path
    return None


def _scores(plan: Plan, setup: Setup, store: Store | None) -> Iterator[Stage]:
    """Why stored scores are not by today's protocol, and last how many are there."""
    expected = runner.expected(plan, setup)
    done = runner.stored(store, plan)
    missing = protocol.missing(expected, plan, setup, done)
    against = protocol.against_for(plan, setup)
    for metric in protocol.metrics_for(plan, setup):
        keys = [key for key in missing & done.keys() if key[1] == metric.name]
        if keys and metric.extractor:
            facts = against.facts(metric, plan.data)
            old = {name: done[keys[0]].get(name, ABSENT) for name in facts}
            found = [f"{d.field} {d.old}, today {d.new}" for d in compare("", old, facts)]
            yield Stage(f"score {metric.name}", False, "stored with " + "; ".join(found))
    words = f"{len(expected) - len(missing)} of {len(expected)}"
    if 0 < len(missing) < len(expected):
        words += f"; missing: {_named(missing)}"
    yield Stage("scores", not missing, words)


def _named(keys: set[Key]) -> str:
    """Scores by name, each with the numbers of evaluations: `w2 @ 1, 2; S`."""
    names: dict[str, list[int]] = {}
    for subject, name, nfe, _ in sorted(keys):
        word = f"floor of {name}" if subject == "floor" else name
        names.setdefault(word, []).extend([nfe] if nfe != RUN_LEVEL else [])
    words = {name: ", ".join(str(nfe or "auto") for nfe in nfes) for name, nfes in names.items()}
    return "; ".join(f"{name} @ {nfes}" if nfes else name for name, nfes in words.items())
