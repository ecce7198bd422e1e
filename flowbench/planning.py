"""From a user's words to a plan: which network, from which data, examined how."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flowbench import options, plugins
from flowbench.checkpoints import file_hash, read_tensors
from flowbench.data import base
from flowbench.records import ADAPTIVE, Budget, Dataset, FlowbenchError, Protocol, Spec
from flowbench.training import Progress, ignore

# Options that a teacher which is trained for its student takes over from it.
SHARED = ("width", "sigma_min", "sigma_max")


@dataclasses.dataclass(frozen=True)
class Setup:
    """The machine's side of a run: none of it may change a number beyond rounding.

    `every` is the time in seconds between checkpoints.
    """

    device: str = "cpu"
    folder: Path = Path("runs")
    data_root: Path | None = None
    every: float = 20.0
    watch: Callable[[Progress], None] = ignore
    note: Callable[[str], None] = lambda text: None


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asked for; None takes the data set's or the method's default.

    `teacher` is the name of a method, a file of weights, the Spec of an earlier run, or the Request
    of a run that may still have to be made.
    """

    method: str
    dataset: str
    seed: int = 0
    steps: int | None = None
    images: int | None = None
    batch: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    teacher: "str | Path | Spec | Request | None" = None
    samples: int | None = None
    sample_seed: int = 0
    nfe: tuple[int, ...] = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that is ready to start."""

    spec: Spec
    protocol: Protocol
    nfe: tuple[int, ...]
    method: Any
    data: base.Data
    teacher: "Plan | None" = None
    weights: Path | None = None  # of a network that is taken from a file instead of trained

    def folder(self, setup: Setup, generation: int = 1) -> Path:
        """Where checkpoints and samples lie; each `--force` gets a folder of its own."""
        suffix = f"-g{generation}" if generation > 1 else ""
        return setup.folder / (self.spec.name + suffix)


@cache
def load_data(name: str, device: str, root: Path | None) -> base.Data:
    """The data set `name` on `device`, one copy for all runs of this process."""
    return base.load(name, dataset(name).load(root), device)


def dataset(name: str) -> Dataset:
    """The catalogue's entry; raises FlowbenchError with the nearest name."""
    known = plugins.datasets()
    return known[options.choose("data set", name, known)]


def plan(request: Request, setup: Setup) -> Plan:
    """Turn words into a plan; raises FlowbenchError for whatever is wrong with them."""
    entry, method = dataset(request.dataset), plugins.method(request.method, request.options)
    refuse(request, method)
    data = load_data(entry.name, setup.device, setup.data_root)
    student = Plan(
        spec=_spec(request, method, data, _budget(request, entry.budget)),
        protocol=_protocol(request, entry),
        nfe=tuple(dict.fromkeys(request.nfe)),
        method=method,
        data=data,
    )
    return _with_teacher(student, request, setup)


def refuse(request: Request, method: Any) -> None:
    """Raise FlowbenchError, before anything is trained, for what `method` cannot do."""
    for hook in ("train", "sample"):
        if not callable(getattr(method, hook, None)):
            raise FlowbenchError(f"{request.method} has no hook {hook}, so it is no method")
    reason_for = getattr(method, "refuses", lambda nfe: None)
    for nfe in request.nfe:
        if nfe < ADAPTIVE:
            raise FlowbenchError(f"--nfe takes numbers from 1, or auto, not {nfe}")
        reason = reason_for(nfe or None)
        if reason is None and nfe == ADAPTIVE and not hasattr(method, "refuses"):
            reason = "it has no adaptive solver: give --nfe a number"
        if reason:
            raise FlowbenchError(
                f"{request.method} cannot sample with --nfe {nfe or 'auto'}: {reason}"
            )


def _spec(request: Request, method: Any, data: base.Data, budget: Budget) -> Spec:
    chosen, defaults = options.values(method), options.values(type(method)())
    point = plugins.methods().get(request.method)
    return Spec(
        method=request.method,
        dataset=request.dataset,
        seed=request.seed,
        budget=budget,
        options=chosen,
        changed={k: v for k, v in chosen.items() if v != defaults[k]},
        data=data.sha256,
        code=plugins.code_hash(type(method)),
        version=plugins.origin(point) if point else "",
    )


def _budget(request: Request, default: Budget) -> Budget:
    batch = request.batch or default.batch
    if request.steps and request.images:
        raise FlowbenchError("--steps and --images are two ways to say one thing: give one")
    steps = request.steps or (request.images // batch if request.images else default.steps)
    return Budget(steps, batch)


def _protocol(request: Request, entry: Dataset) -> Protocol:
    samples = entry.samples if request.samples is None else request.samples
    if samples < 2:
        raise FlowbenchError(f"--samples takes at least 2, not {samples}")
    return Protocol(samples, request.sample_seed)


def _with_teacher(student: Plan, request: Request, setup: Setup) -> Plan:
    default = getattr(student.method, "teacher", None)
    if default is None:
        if request.teacher is not None:
            raise FlowbenchError(f"{request.method} learns from data alone: it takes no --teacher")
        return student
    teacher = _teacher(request.teacher or default, student, setup)
    if teacher.data.sha256 != student.data.sha256 and teacher.weights is None:
        raise FlowbenchError("the teacher was trained on other data than the student would be")
    changed = dict(student.spec.changed)
    if request.teacher not in (None, default):
        changed["teacher"] = _teacher_word(request.teacher, teacher)
    spec = dataclasses.replace(student.spec, teacher=teacher.spec.key, changed=changed)
    return dataclasses.replace(student, spec=spec, teacher=teacher)


def _teacher_word(word: str | Path | Spec | Request, teacher: Plan) -> str:
    """What to type for this very teacher; a file is told apart by its hash."""
    if isinstance(word, Spec | Request):
        return teacher.spec.name
    return f"{word.name}@{(teacher.spec.teacher or '')[5:13]}" if isinstance(word, Path) else word


def _teacher(word: str | Path | Spec | Request, student: Plan, setup: Setup) -> Plan:
    if isinstance(word, Request):
        return plan(dataclasses.replace(word, nfe=(), samples=None), setup)
    if isinstance(word, Spec):
        return again(word, setup)
    if isinstance(word, Path):
        return _from_file(word, student)
    spec = student.spec
    steps, batch = spec.budget.steps, spec.budget.batch
    options = _for_teacher(word, student)
    request = Request(word, spec.dataset, spec.seed, steps, None, batch, options, nfe=())
    return plan(request, setup)


def _for_teacher(word: str, student: Plan) -> dict[str, Any]:
    """The options of a teacher trained for `student`: those that both share, or what it asks for.

    What it asks for holds for its default teacher only: another method has other options.
    """
    asked = getattr(student.method, "teacher_options", None)
    if asked is not None and word == student.method.teacher:
        return dict(asked)
    changed = student.spec.changed
    fields = {field.name for field in dataclasses.fields(plugins.method_class(word))}
    return {name: changed[name] for name in SHARED if name in fields & changed.keys()}


def again(spec: Spec, setup: Setup) -> Plan:
    """The plan of a stored run; raises FlowbenchError if it cannot be made with today's code."""
    steps, batch, word = spec.budget.steps, spec.budget.batch, spec.changed.get("teacher")
    teacher = word if word in plugins.methods() else None
    request = Request(
        *(spec.method, spec.dataset, spec.seed, steps, None, batch, dict(spec.options)),
        teacher=teacher,
        nfe=(),
    )
    today = plan(request, setup)
    if today.spec.key != spec.key:
        raise FlowbenchError(f"{spec.name} was made with other code, data or teacher than today's")
    return today


def _from_file(path: Path, student: Plan) -> Plan:
    """A network that `flowbench run` exported, as a plan with nothing to train."""
    _, facts = read_tensors(path)
    try:
        spec = Spec.from_json(facts["spec"])
    except (KeyError, TypeError) as error:
        raise FlowbenchError(f"{path} does not say which method made it") from error
    if spec.dataset != student.spec.dataset:
        raise FlowbenchError(f"{path} was trained on {spec.dataset}, not {student.spec.dataset}")
    method = plugins.method(spec.method, spec.options)
    if not hasattr(method, "network"):
        raise FlowbenchError(f"{spec.method} has no network(data): it cannot be read from a file")
    named = dataclasses.replace(spec, teacher=f"file:{file_hash(path)}")
    return dataclasses.replace(student, spec=named, method=method, teacher=None, weights=path)
