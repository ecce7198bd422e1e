"""Why two runs are not one: the fields of a Spec that decide, and the run that is nearest."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from flowbench.records import RECIPE, Spec

NOT_HASHED = ("changed", "version", "sources")  # fields of a Spec that are no part of its key


class Absent(str):
    """Stands for the value of a field that is not there."""


ABSENT = Absent("not there")


class Difference(NamedTuple):
    """A field in which two runs differ, and its values in the one and the other."""

    field: str
    old: Any
    new: Any


def differences(a: Spec, b: Spec) -> list[Difference]:
    """Every field that `Spec.key` hashes in which `a` and `b` differ; none: they are one run.

    Options and settings are named one by one, such as `options.lr`.
    """
    return list(compare("", _hashed(a), _hashed(b)))


def _hashed(spec: Spec) -> dict[str, Any]:
    parts = json.loads(json.dumps(asdict(spec)))  # as the key sees them: tuples are lists
    return {name: value for name, value in parts.items() if name not in NOT_HASHED}


def compare(path: str, a: Any, b: Any) -> Iterator[Difference]:
    """Where two values of JSON differ, mappings entry by entry; `path` names where they stand."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in dict.fromkeys([*a, *b]):
            inner = f"{path}.{name}" if path else name
            yield from compare(inner, a.get(name, ABSENT), b.get(name, ABSENT))
    elif a is ABSENT or b is ABSENT or _text(a) != _text(b):
        yield Difference(path, a, b)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # 1 and 1.0 are two values


def decided(name: str, spec: Spec, today: Spec) -> list[Difference]:
    """Why today's plan of a run that is stored under `name` is another run; nothing: it is not."""
    found = differences(spec, today)
    if not found and name != today.name:  # an equal Spec that was hashed in another way
        found = [Difference("recipe", "that of an earlier version", RECIPE)]
    return found


def nearest(specs: Iterable[Spec], spec: Spec) -> tuple[Spec, list[Difference]] | None:
    """The run of the same method on the same data set that differs in the fewest fields."""
    others = [s for s in specs if (s.method, s.dataset) == (spec.method, spec.dataset)]
    found = [(other, differences(other, spec)) for other in others if other.key != spec.key]
    return min(found, key=lambda pair: (len(pair[1]), pair[0].name), default=None)
