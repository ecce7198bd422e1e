"""One run as a stream of scores and files: train, sample, score, each done once and in order."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from flowbench import (
    determinism,
    meters,
    network_files,
    optimizers,
    plugins,
    protocol,
    ranks,
    training_log,
)
from flowbench.checkpoints import read_tensors, save_tensors
from flowbench.disk import writing
from flowbench.examination import Examination, describe
from flowbench.planning import Plan, Setup
from flowbench.protocol import Key
from flowbench.records import Artifact, Diverged, FlowbenchError, RunFailed, Score
from flowbench.store import Store
from flowbench.store.leases import Held
from flowbench.teacher import Teacher
from flowbench.training import Bill, Run, total


def hooks(plan: Plan) -> Any:
    """The hooks of one run: extensions, the method, and the meters outermost."""
    return plugins.manager(*plugins.extensions(), plan.method, meters).hook


def expected(plan: Plan, setup: Setup) -> set[Key]:
    """Every score that the plan leads to."""
    return protocol.expected_scores(plan, setup, protocol.field_interval(plan, hooks(plan)))


def stored(store: Store | None, plan: Plan) -> dict[Key, dict[str, Any]]:
    """The scores of the plan that are in the store, if there is one, each with its protocol."""
    return store.done(plan.spec, plan.protocol.seed) if store else {}


def missing(store: Store | None, plan: Plan, setup: Setup, wanted: set[Key]) -> set[Key]:
    """What of `wanted` the store lacks or has by another protocol; all of it without a store."""
    return protocol.missing(wanted, plan, setup, stored(store, plan))


@contextmanager
def claim(plan: Plan, setup: Setup, wait: bool = False) -> Iterator[None]:
    """Hold the run for this process; raises Held if another one works on it.

    The lock goes with the process, however it ends. `wait` is for teachers, which several
    students may need at once. The first rank holds it for all.
    """
    if not ranks.first():
        yield
        return
    setup.folder.mkdir(parents=True, exist_ok=True)
    place = setup.folder / f"{plan.spec.name}.lock"
    lock = FileLock(place)
    try:
        with writing(place):
            lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise Held(f"{plan.spec.name} is being worked on by another process") from None
        setup.note(f"waiting for another process that trains {plan.spec.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def run(
    plan: Plan, setup: Setup, todo: set[Key], generation: int = 1
) -> Iterator[Score | Artifact]:
    """Do what is in `todo`, yielding each score and file as soon as it is made.

    Raises Diverged when losses, weights or samples are not finite, RunFailed for a sampler that
    spends other than asked.
    """
    folder = plan.folder(setup, generation)
    if generation > 1:  # what is forced is trained anew
        plan = replace(plan, trained=None)
    with determinism.mode(setup.deterministic):
        yield from _made(plan, setup, folder, todo)


def _made(plan: Plan, setup: Setup, folder: Path, todo: set[Key]) -> Iterator[Score | Artifact]:
    todo = ranks.told(todo)
    trained = train(plan, setup, folder)
    source = folder if plan.trained is None else plan.trained.folder(setup)
    yield describe("network", source / "network.safetensors", setup)
    if (source / training_log.FILE).exists():  # there is none where nothing was trained
        yield describe("training-log", source / training_log.FILE, setup)
    examination = Examination(plan, setup, folder, hooks(plan), trained.network, todo)
    yield from examination.costs(trained.bill, trained.measure)
    yield from examination.floors()
    yield from examination.straightness()
    yield from examination.likelihood()
    yield from examination.every_nfe()


@dataclass(frozen=True)
class Trained:
    """A network, what it has cost over all attempts, and how its method measures it."""

    network: nn.Module
    bill: Bill
    measure: Callable[[], Mapping[str, float]] = dict


def train(plan: Plan, setup: Setup, folder: Path) -> Trained:
    """The plan's network, trained or restored."""
    if plan.weights is not None:
        return _read_network(plan, plan.weights, folder)
    if plan.trained is not None:
        with claim(plan.trained, setup, wait=True):
            return train(plan.trained, setup, plan.trained.folder(setup))
    heard: dict[str, Any] = {name: getattr(setup, name) for name in ("watch", "note", "observe")}
    run = Run(**terms(plan, setup), **heard, folder=folder, every=setup.every)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = None if plan.teacher is None else make_teacher(plan.teacher, setup, run)
    torch.manual_seed(plan.spec.seed)
    hook, given = hooks(plan), {"data": plan.data, "run": run, "teacher": teacher}
    network = hook.train(**given, meter={})
    if not isinstance(network, nn.Module):
        raise RunFailed(
            f"train of {plan.spec.method} returned {type(network).__name__}, no network"
        )
    ranks.decided(lambda: _save(folder / "network.safetensors", network, plan, run.bill))
    return Trained(network, run.bill, lambda: hook.measure(network=network, **given) or {})


def _save(path: Path, network: nn.Module, plan: Plan, bill: Bill) -> None:
    """Write the network; a file that holds it already stays, because its hash is stored."""
    tensors = network.state_dict()
    if path.exists():
        with suppress(FlowbenchError):  # a damaged one is written anew
            before, facts = read_tensors(path)
            same = before.keys() == tensors.keys() and facts.get("bill") == bill
            if same and all(torch.equal(before[n], tensors[n].cpu()) for n in tensors):
                return
    save_tensors(path, tensors, {"spec": asdict(plan.spec), "bill": bill})


def terms(plan: Plan, setup: Setup) -> dict[str, Any]:
    """The fields of a Run that decide what is trained, and on what."""
    word = plan.spec.setting.get("optimizer", optimizers.DEFAULT.name)
    return {
        "budget": plan.spec.budget,
        "seed": plan.spec.seed,
        "device": setup.device,
        "augment": plan.data.train.augment is not None,
        "micro_batch": setup.micro_batch,
        "compile": setup.compile,
        "optimizer": optimizers.parse(word),
        "weights": plan.frozen,
    }


def make_teacher(plan: Plan, setup: Setup, student: Run) -> Teacher:
    """The teacher of `student`, trained at its first use and charged to the student's bill."""

    def watch(progress):
        setup.watch(replace(progress, stage=f"teacher {plan.spec.method}: {progress.stage}"))

    def observe(point):
        setup.observe(replace(point, stage=f"teacher {plan.spec.method}: {point.stage}"))

    def make() -> nn.Module:
        with claim(plan, setup, wait=True):
            try:
                heard = replace(setup, watch=watch, observe=observe)
                trained = train(plan, heard, plan.folder(setup))
            except Diverged as error:
                raise Diverged(f"its teacher {plan.spec.variant}: {error}") from error
            except torch.OutOfMemoryError as error:  # no RuntimeError that a student may catch
                raise RunFailed(f"its teacher {plan.spec.variant}: {error}") from error
        student.bill["teacher"] = total(trained.bill)
        return trained.network

    return as_teacher(plan, hooks(plan), make)


def as_teacher(plan: Plan, hook: Any, make: Callable[[], nn.Module]) -> Teacher:
    """The network that `make` gives as a teacher; raises FlowbenchError if it has no velocity."""
    interval = protocol.field_interval(plan, hook)
    if interval is None:
        raise FlowbenchError(f"{plan.spec.variant} has no velocity, so it cannot be a teacher")
    return Teacher(make, hook.velocity, interval)


def _read_network(plan: Plan, path: Path, folder: Path) -> Trained:
    """A network from a file and what it cost, NaN where the file does not say.

    A published checkpoint that is examined itself is kept in `folder` as ours are.
    """
    tensors, known = network_files.tensors(path)
    network = plan.method.network(plan.data)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise FlowbenchError(f"{path} holds another network than {plan.spec.variant}") from error
    bill = known or {"train": {"seconds": math.nan, "images": math.nan}}
    own = folder / "network.safetensors"
    if plan.spec.weights and ranks.decided(lambda: not own.exists()):
        facts = {"spec": asdict(plan.spec), "bill": known}
        ranks.decided(lambda: save_tensors(own, network.state_dict(), facts))
    return Trained(network, bill)
