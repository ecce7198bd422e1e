"""From a user's words to a plan: which network, from which data, examined how."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowbench import network_files, options, plugins, presets, resolution, setting
from flowbench.data import base
from flowbench.datasets import dataset, load_data
from flowbench.entries import Dataset
from flowbench.network_files import NetworkFile
from flowbench.plans import Plan, Request, Setup
from flowbench.records import Budget, FlowbenchError, Spec

__all__ = ["Plan", "Request", "Setup", "again", "dataset", "load_data", "plan"]

# Options that a teacher which is trained for its student takes over from it.
SHARED = ("width", "sigma_min", "sigma_max")
BUDGET = ("steps", "images", "batch")  # words that say it


def plan(request: Request, setup: Setup) -> Plan:
    """Turn words into a plan; raises FlowbenchError for whatever is wrong with them."""
    words, request = request, presets.fill(request)
    entry = dataset(request.dataset, setup.data_root)
    given = None if request.weights is None else network_files.look(request.weights)
    method = _method(request if given is None else words, given)
    resolution.refuse(request, method)
    file = given or _teacher_file(request)
    data, chosen, changed = _dressed(request, entry, method, file, setup)
    resolution.refuse_data(request, method, data)
    frozen = resolution.frozen(request, method, setup) if given is None else {}
    chosen |= {"weights": resolution.hashes(frozen)} if frozen else {}
    spec = _spec(words, method, data, resolution.budget(request, entry.budget), chosen, changed)
    if file is not None and file.facts:
        word = "teacher" if given is None else "weights"
        spec = dataclasses.replace(spec, sources={word: dict(file.facts)})
    student = Plan(
        spec=spec,
        protocol=resolution.protocol(request, entry.samples),
        nfe=resolution.nfes(request),
        method=method,
        data=data,
        frozen=frozen,
    )
    if given is not None:
        changed = dict(student.spec.changed) | {"weights": f"{given.path.name}@{given.sha256[:8]}"}
        spec = dataclasses.replace(student.spec, changed=changed, weights=given.sha256)
        return dataclasses.replace(student, spec=spec, weights=given.path)
    student = _with_teacher(student, words, file, setup)
    return dataclasses.replace(student, trained=_trained(student, words, setup))


def _trained(student: Plan, request: Request, setup: Setup) -> Plan | None:
    """The run with the method's sampling options at their defaults, which has the same network."""
    method, usual = student.method, type(student.method)()
    names = getattr(method, "sampling_options", ())
    other = {n: getattr(usual, n) for n in names if getattr(method, n) != getattr(usual, n)}
    if not other:
        return None
    return plan(dataclasses.replace(request, options={**request.options, **other}, nfe=()), setup)


def _method(request: Request, given: NetworkFile | None) -> Any:
    """The method with its options; those of a network's file hold unless the user says others."""
    if given is None:
        return plugins.method(request.method, request.options)
    if given.method != request.method:
        raise FlowbenchError(f"{given.path} is a network of {given.method}, not {request.method}")
    if request.teacher is not None:
        raise FlowbenchError("--weights trains nothing, so it takes no --teacher")
    method = plugins.method(request.method, {**given.options, **request.options})
    if not hasattr(method, "network"):
        raise FlowbenchError(f"{request.method} has no network(data): it reads no --weights")
    return method


def _teacher_file(request: Request) -> NetworkFile | None:
    word = request.teacher
    return network_files.look(word) if isinstance(word, Path) else None


def _dressed(
    request: Request, entry: Dataset, method: Any, file: NetworkFile | None, setup: Setup
) -> tuple[base.Data, dict[str, Any], dict[str, Any]]:
    """The data as the run sees them, its setting, and what of that the user chose."""
    loaded = load_data(request.dataset, setup.device, setup.data_root, setup.watch)
    student = getattr(method, "teacher", None) is not None
    small = file is not None and file.network is None  # ours, trained with the small network
    small = small and setting.default_network(entry, loaded) != setting.SMALL
    chosen, changed = setting.resolve(
        loaded,
        entry,
        network=request.network or (setting.SMALL if small else None),
        precision=request.precision,
        augmentation=request.augment,
        unconditional=request.unconditional or (file is not None and file.unlabelled),
        optimizer=request.optimizer,
        like=None if file is None else file.network,
        student=student,
    )
    if student:  # it learns from its teacher, which is what augmentation is for
        chosen.pop("augment", None)
    data = setting.dress(loaded, chosen, None if file is None else file.std)
    if file is not None:
        file.check(data)
    width = getattr(method, "width", None)
    if data.network is not None and width is not None:
        dataclasses.replace(data.network, channels=width)  # raises for one that it cannot have
    return data, chosen, changed


def _spec(
    request: Request,
    method: Any,
    data: base.Data,
    budget: Budget,
    chosen_setting: dict[str, Any],
    asked: dict[str, Any],
) -> Spec:
    chosen = options.values(method)
    return Spec(
        method=request.method,
        dataset=data.name,
        seed=request.seed,
        budget=budget,
        options=chosen,
        changed=_changed(request, method, asked),
        data=data.sha256,
        code=plugins.code_hash(type(method)),
        version=plugins.version(request.method),
        setting=chosen_setting,
    )


def _changed(request: Request, method: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """What the user chose otherwise than the preset, or than the defaults where there is none."""
    chosen, usual = options.values(method), options.values(type(method)())
    if request.preset is None:
        return {name: v for name, v in chosen.items() if v != usual[name]} | asked
    said = presets.get(request.method, request.preset).chosen
    usual |= options.values(plugins.method(request.method, said))
    changed = {name: value for name, value in chosen.items() if value != usual[name]}
    typed = {name: getattr(request, name) for name in (*setting.WORDS, *BUDGET)}
    return changed | {k: v for k, v in typed.items() if v} | {"preset": request.preset}


def _with_teacher(student: Plan, request: Request, file: NetworkFile | None, setup: Setup) -> Plan:
    default = getattr(student.method, "teacher", None)
    if default is None:
        if request.teacher is not None:
            raise FlowbenchError(f"{request.method} learns from data alone: it takes no --teacher")
        return student
    if file is not None:
        teacher = _from_file(file, student, request, setup)
    else:
        teacher = _teacher(request.teacher or default, student, request, setup)
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


def _teacher(word: Any, student: Plan, request: Request, setup: Setup) -> Plan:
    if isinstance(word, Request):
        return plan(dataclasses.replace(word, nfe=(), samples=None), setup)
    if isinstance(word, Spec):
        return again(word, setup)
    if word == request.method or request.preset not in presets.of(word):
        budget = student.spec.budget
        request = dataclasses.replace(presets.fill(request), preset=None, images=None)
        request = dataclasses.replace(request, steps=budget.steps, batch=budget.batch)
    else:  # the optimizer that a user names is the student's
        request = dataclasses.replace(request, optimizer=None)
    request = dataclasses.replace(request, teacher=None, samples=None, nfe=())
    wanted = teacher_options(word, student.method, student.spec.changed)
    return plan(dataclasses.replace(request, method=word, options=wanted), setup)


def teacher_options(word: str, student: Any, changed: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a teacher trained for a method: of `changed` what both share, or what it asks.

    What it asks for holds for its default teacher only: another method has other options.
    """
    asked = getattr(student, "teacher_options", None)
    if asked is not None and word == student.teacher:
        return dict(asked)
    fields = {field.name for field in dataclasses.fields(plugins.method_class(word))}
    return {name: changed[name] for name in SHARED if name in fields & changed.keys()}


def again(spec: Spec, setup: Setup) -> Plan:
    """The plan of a stored run; raises FlowbenchError if it cannot be made with today's code."""
    changed = spec.changed
    word = changed.get("teacher")
    said = {name: changed[name] for name in (*setting.WORDS, "preset") if name in changed}
    request = Request(
        spec.method,
        spec.dataset,
        spec.seed,
        options=dict(spec.options),
        teacher=word if word in plugins.methods() else None,
        nfe=(),
    )
    request = dataclasses.replace(request, **_budget_words(spec), **said)
    today = plan(request, setup)
    if today.spec.key != spec.key:
        raise FlowbenchError(f"{spec.name} was made with other code, data or teacher than today's")
    return today


def _budget_words(spec: Spec) -> dict[str, Any]:
    """What the user said about the budget; all of it where there is no preset to fill it in."""
    if "preset" in spec.changed:
        return {name: spec.changed[name] for name in BUDGET if name in spec.changed}
    return {"steps": spec.budget.steps, "batch": spec.budget.batch}


def _from_file(file: NetworkFile, student: Plan, request: Request, setup: Setup) -> Plan:
    """A network from a file as a plan with nothing to train."""
    if file.spec is not None and file.spec.dataset != student.spec.dataset:
        trained, wanted = file.spec.dataset, student.spec.dataset
        raise FlowbenchError(f"{file.path} was trained on {trained}, not {wanted}")
    method = plugins.method(file.method, file.options)
    if not hasattr(method, "network"):
        raise FlowbenchError(f"{file.method} has no network(data): it cannot be read from a file")
    loaded = load_data(request.dataset, setup.device, setup.data_root, setup.watch)
    data = setting.dress(loaded, file.setting, file.std)
    file.check(data)
    spec = file.spec or dataclasses.replace(
        student.spec, method=file.method, options=options.values(method), changed={}
    )
    named = dataclasses.replace(spec, teacher=f"file:{file.sha256}")
    return dataclasses.replace(
        student, spec=named, method=method, data=data, teacher=None, weights=file.path
    )
