"""The fingerprint of a number: the named fields that must agree before two may be ranked.

A score keeps the facts of its metric in `Score.protocol`; here they get the names that a reader
knows, together with what the run and its machine add.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flowbench.records import Measured, Spec

SPEED = ("ms-per-sample", "peak-mib", "train-seconds")  # they depend on the machine
# What a run costs, whatever it was allowed to spend: compared across budgets.
COSTS = (*SPEED, "train-images", "mflop-per-sample", "parameters", "parameters-per-evaluation")
OF_RUNS = ("data", "n", "budget", "conditioning")  # fields that all numbers of a row share
OF_METRICS = ("protocol", "extractor", "split", "resize", "quantisation", "ema")
OF_SPEED = ("device", "dtype", "batch", "threads")
FIELDS = (*OF_METRICS, *OF_RUNS)
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}  # as `--precision` says
SHORT = 12  # characters of a hash that are shown
MIXED = " | "  # between the values of a field that differs within one cell

Facts = Mapping[str, Any]


def is_speed(name: str) -> bool:
    """Whether a metric is a property of the machine as well."""
    return name.partition(":")[0] in SPEED


def is_cost(name: str) -> bool:
    """Whether a metric is what a run has spent or spends."""
    return name.partition(":")[0] in COSTS


def of_run(spec: Spec, n: int) -> dict[str, str]:
    """The fields that come from the run and the number of samples."""
    return {
        "data": spec.data[:SHORT],
        "n": str(n),
        "budget": f"{spec.budget.steps} x {spec.budget.batch}",
        "conditioning": "none" if spec.setting.get("unconditional") else "as the data",
    }


def of_metric(protocol: Facts, data: str) -> dict[str, str]:
    """The fields that come from a metric's protocol; `data` is the hash of the run's data.

    Whatever has no name of its own is a part of the field `protocol`.
    """
    rest = {name: value for name, value in protocol.items() if name not in ("data", *OF_SPEED)}
    extractor, against = rest.pop("extractor", None), rest.pop("reference", None)
    facts = dict(extractor) if isinstance(extractor, Mapping) else {}
    weights = rest.pop("weights", "") or facts.get("weights") or ""
    weights = str(weights or ("" if isinstance(extractor, Mapping) else extractor or ""))
    facts.pop("weights", None)
    resize, quantisation = facts.pop("resize", ""), facts.pop("quantisation", "")
    named = [_named(name, fact) for name, fact in sorted(facts.items())]
    found = {
        "extractor": " ".join([*named, weights[:SHORT]] if weights else named),
        "split": _split(against, str(protocol.get("data", data)), data),
        "resize": str(rest.pop("resize", resize)),
        # Unless a metric says otherwise: images are rounded to 8 bits, vectors are not.
        "quantisation": str(rest.pop("quantisation", quantisation) or "uint8 if images"),
        "ema": _word(rest.pop("ema", "")),
    }
    return {"protocol": _flat(rest), **found}


def of_speed(protocol: Facts, spec: Spec, environment: Facts) -> dict[str, str]:
    """The fields that a time or an amount of memory has in addition."""
    return {
        "device": str(protocol.get("device", environment.get("device", ""))),
        "dtype": precision(spec),
        "batch": str(protocol.get("batch", spec.budget.batch)),
        "threads": str(protocol.get("threads", environment.get("threads", ""))),
    }


def precision(spec: Spec) -> str:
    """The arithmetic of a run's network, a part of its backbone; small networks have fp32."""
    network = spec.setting.get("network")
    word = str(network.get("precision", "float32") if isinstance(network, Mapping) else "float32")
    return PRECISIONS.get(word, word)


class Reader:
    """The fields of many scores, of which a few protocols and runs are shared by thousands."""

    def __init__(self, environments: Mapping[str, Facts]):
        self._environments = environments
        self._known: dict[tuple, dict[str, str]] = {}
        self._equal: dict[tuple, dict[str, str]] = {}  # one object for all that have the same
        self._names: dict[str, tuple[bool, bool]] = {}  # is it a cost, and one of speed
        self._kinds: dict[int, tuple[str, ...]] = {}  # by the identity of what is in `_known`
        self._kept: list[object] = []  # so that no `id` is used twice

    def fields(self, row: Measured) -> dict[str, str]:
        """The fingerprint of a score; one object for all that have the same."""
        score = row.score
        name = score.name
        if name not in self._names:
            self._names[name] = (is_cost(name), is_speed(name))
        cost, speed = self._names[name]
        place = (id(score.protocol), id(row.spec), score.n, cost, speed and row.environment)
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = self._read(row, cost, speed)
        return found

    def kind(self, row: Measured) -> tuple[str, ...]:
        """The fields that come from the metric alone."""
        return self._kinds[id(self.fields(row))]

    def _read(self, row: Measured, cost: bool, speed: bool) -> dict[str, str]:
        score, spec = row.score, row.spec
        self._kept += [score.protocol, spec]
        found = of_metric(score.protocol, spec.data) | of_run(spec, score.n)
        if cost:
            del found["budget"]
        if speed:
            machine = self._environments.get(row.environment, {})
            found |= of_speed(score.protocol, spec, machine)
        found = self._equal.setdefault(tuple(found.items()), found)
        self._kinds[id(found)] = tuple(found[name] for name in OF_METRICS)
        return found


def joined(parts: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """The fields of one cell; where its scores differ, all values of a field."""
    if all(part == parts[0] for part in parts[1:]):
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part)
    return {n: MIXED.join(sorted({part.get(n, "") for part in parts})) for n in names}


def differences(parts: Sequence[Mapping[str, str]]) -> list[str]:
    """The fields that do not agree, in the order of the fields; a mixed cell agrees with none."""
    first = parts[0] if parts else {}
    if all(part is first or part == first for part in parts) and not any(
        MIXED in word for word in first.values()
    ):
        return []
    names = dict.fromkeys(name for part in parts for name in part)
    found = []
    for name in names:
        values = {part.get(name, "") for part in parts}
        if len(values) > 1 or any(MIXED in value for value in values):
            found.append(name)
    return found


def _split(reference: Any, of: str, data: str) -> str:
    """Which real rows a number is held against."""
    if reference is None:
        return "" if of == data else f"data {of[:SHORT]}"
    if isinstance(reference, Mapping):
        facts = dict(reference)
        if "file" in facts:
            return f"file {str(facts['file'])[:SHORT]}"
        of = str(facts.get("data", of))
        reference = (facts.get("split", ""), facts.get("rows", ""))
    word = ", ".join(map(str, reference)) if isinstance(reference, list | tuple) else str(reference)
    return word if of == data else f"{word} of data {of[:SHORT]}"


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _named(name: str, fact: Any) -> str:
    """A word alone says what it is, a number does not."""
    return fact if isinstance(fact, str) else f"{name}={fact}"


def _flat(facts: Facts) -> str:
    """Facts as one line; nested ones as JSON."""
    words = {
        name: json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)
        for name, value in sorted(facts.items())
    }
    return " ".join(f"{name}={word}" for name, word in words.items())
