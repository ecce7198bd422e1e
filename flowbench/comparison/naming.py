"""What rows and numbers are called: metrics with their n, labels that tell rows apart, traits."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from flowbench.records import Measured, Spec, Tried, digest

COUNTED = ("fid", "sfid", "fid-clean", "fd-dinov2")  # biased by the number of samples
FULL = 50_000  # samples that a name without a number stands for
# What `compare` shows unasked.
HEADLINES = ("fid", "fd-clf", "memorised", "in-mode", "fd", "w2", "S")
OTHERWISE = ("sw2", "S")  # where there is none of them but S

TRAITS = ("teacher", "perceptual", "adversarial", "guidance")
PERCEPTUAL = ("lpips", "johnson")  # words of a loss that looks through a network


def named(metric: str, n: int) -> str:
    """A metric as a table calls it: `fid` from 50 000 samples on, below that `fid5k`, `fid256`.

    The Fréchet distance falls with the number of samples, so the number is a part of its name.
    """
    if metric not in COUNTED or not 0 < n < FULL:
        return metric
    word, dash, rest = metric.partition("-")
    return f"{word}{f'{n // 1000}k' if n % 1000 == 0 else n}{dash}{rest}"


def labelled(specs: Mapping[str, Spec], runs: Mapping[str, Spec] | None = None) -> dict[str, str]:
    """A label for the group of each run (by key): the variant, and more where it is ambiguous.

    `runs` are all stored ones by key, of which a teacher may be one (None: `specs`).
    """
    known = specs if runs is None else runs
    named = {key: _with_teacher(spec, known) for key, spec in specs.items()}
    variants: dict[tuple, list[Spec]] = defaultdict(list)
    seeds: dict[tuple[str, int], int] = defaultdict(int)
    identities = {key: _identity(spec) for key, spec in named.items()}
    for key, spec in named.items():
        variants[spec.dataset, spec.variant].append(spec)
        seeds[identities[key], spec.seed] += 1
    doubled = {identity for (identity, _), count in seeds.items() if count > 1}
    budgets = {place: {spec.budget for spec in same} for place, same in variants.items()}
    codes = {
        (*place, budget): {spec.code for spec in same if spec.budget == budget}
        for place, same in variants.items()
        for budget in budgets[place]
    }
    labels = {}
    for key, spec in named.items():
        place = (spec.dataset, spec.variant)
        several = (len(budgets[place]) > 1, len(codes[*place, spec.budget]) > 1)
        labels[key] = _label(spec, *several, identities[key] in doubled)
    return _told_apart(labels, specs, identities)


def _label(spec: Spec, budgets: bool, codes: bool, teachers: bool) -> str:
    """The variant, and that in which there are several of it."""
    label = spec.variant
    if budgets:
        label += f" [{spec.budget.steps} x {spec.budget.batch}]"
    if codes:
        label += f" [code {spec.code[:6]}]"
    if teachers:  # one seed, two teachers: never two runs in one cell
        label += f" [teacher {(spec.teacher or 'none')[:8]}]"
    return label


def _told_apart(
    labels: Mapping[str, str], specs: Mapping[str, Spec], identities: Mapping[str, str]
) -> dict[str, str]:
    """Labels of runs that differ in what nobody typed, such as a default of another version."""
    alike: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key, label in labels.items():
        spec = specs[key]
        alike[spec.dataset, spec.data, label][identities[key]].append(key)
    found = dict(labels)
    for (*_, label), rows in alike.items():
        if len(rows) > 1:  # or else one row would show the numbers of two
            facts = {identity: _facts(specs[keys[0]]) for identity, keys in rows.items()}
            for identity, keys in rows.items():
                found |= dict.fromkeys(keys, f"{label} [{_difference(identity, facts)}]")
    return found


def _facts(spec: Spec) -> dict[str, str]:
    """What a run was made with, as words."""
    network = spec.setting.get("network")
    parts = {"method": spec.method, **(network if isinstance(network, Mapping) else {})}
    parts |= {**{k: v for k, v in spec.setting.items() if k != "network"}, **spec.options}
    return {name: str(value) for name, value in parts.items()}


def _difference(identity: str, facts: Mapping[str, Mapping[str, str]]) -> str:
    """In what one of several differs from the others, or a number where words are the same."""
    own = facts[identity]
    names = sorted({name for some in facts.values() for name in some})
    unlike = [name for name in names if len({some.get(name) for some in facts.values()}) > 1]
    words = " ".join(f"{name}={own.get(name, 'none')}" for name in unlike)
    same = sum(all(own.get(n) == some.get(n) for n in unlike) for some in facts.values())
    return words if same == 1 else f"{words} {identity[:6]}".strip()


def _with_teacher(spec: Spec, specs: Mapping[str, Spec]) -> Spec:
    """A student of a stored run is named by its teacher's variant: each seed has its own run."""
    teacher = specs.get(spec.teacher or "")
    word = str(spec.changed.get("teacher", ""))
    if teacher is None or not word.endswith(f"-{spec.teacher[:8]}" if spec.teacher else "-"):
        return spec
    return replace(spec, changed=dict(spec.changed) | {"teacher": teacher.variant})


def _identity(spec: Spec) -> str:
    """What the runs of one group share: all but the seed, and the teacher, which has that seed."""
    budget = [spec.budget.steps, spec.budget.batch]
    parts = [spec.method, dict(spec.options), dict(spec.changed), budget, spec.code, spec.data]
    return digest([*parts, dict(spec.setting)] if spec.setting else parts)


def specs_of(records: Iterable[Measured] | Iterable[Tried]) -> dict[str, Spec]:
    """The Spec of each run by its key; equal ones are hashed once."""
    distinct = {id(record.spec): record.spec for record in records}
    return {spec.key: spec for spec in distinct.values()}


def traits(spec: Spec, runs: Mapping[str, Spec]) -> dict[str, str]:
    """What must be alike before two methods are: teacher, losses, guidance; "" where there is none.

    `runs` are the stored ones by key, of which a teacher may be one.
    """
    options = spec.options
    seen = [str(options.get(name)) for name in ("perceptual", "norm", "distance")]
    judged = options.get("adversarial")
    guidance = options.get("guidance")
    return {
        "teacher": _teacher(spec, runs),
        "perceptual": next((word for word in seen if word in PERCEPTUAL), ""),
        "adversarial": str(options.get("gan", "yes")) if judged else "",
        "guidance": str(guidance) if guidance else "",
    }


def _teacher(spec: Spec, runs: Mapping[str, Spec]) -> str:
    if not spec.teacher:
        return ""
    if spec.teacher in runs:
        return runs[spec.teacher].method
    word = str(spec.changed.get("teacher", ""))
    if spec.teacher.startswith("file:"):
        return f"file {spec.teacher.removeprefix('file:')[:8]}"
    return word or f"run {spec.teacher[:8]}"
