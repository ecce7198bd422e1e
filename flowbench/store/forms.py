"""Owns what a row from elsewhere must look like, column by column, before anybody believes it."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from flowbench.records import RUN_LEVEL, FlowbenchError
from flowbench.store.tables import GOALS, KINDS, OUTCOMES, SOURCES

Row = dict[str, Any]
Form = tuple[str, Callable[[Any], bool]]  # in words, and whether a value has it

WORD, TEXT = 500, 1_000_000  # characters of a name and of a message
FAR = 1_000_000  # generations and numbers of attempts
SMALL, LARGE = 2**31, 2**63


def texts(value: Any) -> Iterator[str]:
    """Every string inside plain JSON, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= WORD and value.isprintable()


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > TEXT or "\0" in value:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)  # no half characters


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value < high


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and all(map(str.isprintable, texts(value)))


def _is_table(value: Any) -> bool:
    return _is_object(value) and all(isinstance(part, dict) for part in value.values())


def _is_time(value: Any) -> bool:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return moment.utcoffset() == timedelta() and len(value) <= 40 and value.isascii()


def _hash(digits: int) -> Callable[[Any], bool]:
    form = re.compile(f"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and bool(form.fullmatch(value))


def _optional(form: Form) -> Form:
    return f"{form[0]} or nothing", lambda value: value is None or form[1](value)


def _one_of(words: tuple[str, ...]) -> Form:
    known = ", ".join(word or '""' for word in words)
    return f"one of {known}", lambda value: isinstance(value, str) and value in words


word: Form = ("a printable text", _is_word)
text: Form = ("a text", _is_text)
time: Form = ("a UTC time", _is_time)
sha256: Form = ("a hash", _hash(64))
part: Form = ("an object of printable texts", _is_object)
count: Form = ("a count", lambda value: _is_whole(value, 0, SMALL))
evaluations: Form = ("a number of evaluations", lambda value: _is_whole(value, RUN_LEVEL, SMALL))
large: Form = ("a whole number", lambda value: _is_whole(value, -LARGE, LARGE))
size: Form = ("a size", lambda value: _is_whole(value, 0, LARGE))
near: Form = ("a number of an attempt", lambda value: _is_whole(value, -FAR, FAR))
number: Form = ("a number", _is_number)
notes: Form = ("texts", lambda value: isinstance(value, list) and all(map(_is_text, value)))
origin: Form = ("a hash or empty", lambda value: value == "" or sha256[1](value))

_attempt: dict[str, Form] = {"run": sha256, "attempt": near}
COLUMNS: dict[str, dict[str, Form]] = {
    "origins": {
        "digest": sha256,
        "name": word,
        "kind": _one_of(SOURCES),
        "merged": time,
        "attempts": count,
    },
    "environments": {"digest": sha256, "json": part, "created": time},
    "runs": {"key": sha256, "spec": part, "created": time},
    "attempts": {
        "run": sha256,
        "number": near,
        "generation": near,
        "environment": _optional(sha256),
        "host": word,
        "pid": large,
        "started": time,
        "ended": _optional(time),
        "outcome": _one_of(tuple(word for word in OUTCOMES if word != "running")),
        "error_type": _optional(word),
        "error_text": _optional(text),
        "notes": notes,
        "origin": origin,
    },
    "scores": {
        **_attempt,
        "subject": word,
        "name": word,
        "nfe": evaluations,
        "n": size,
        "seed": large,
        "value": _optional(number),
        "kind": _one_of(KINDS),
        "goal": _one_of(GOALS),
        "protocol": part,
        "fingerprint": ("a fingerprint", _hash(16)),
        "created": time,
    },
    "artifacts": {
        **_attempt,
        "role": word,
        "path": word,
        "sha256": sha256,
        "bytes": size,
        "created": time,
    },
}
SPEC: dict[str, Form] = {
    **dict.fromkeys(("method", "dataset", "data", "code", "version", "weights"), word),
    "seed": large,
    **dict.fromkeys(("budget", "options", "changed", "setting"), part),
    "sources": ("objects of printable texts", _is_table),
    "teacher": _optional(word),
}
BUDGET = {"steps": large, "batch": large}


def check(row: Any, forms: Mapping[str, Form], place: str, some: bool = False) -> Row:
    """The row, if it has exactly these columns, or with `some` no others, in these forms.

    Raises FlowbenchError in one line that begins with `place`.
    """
    if not isinstance(row, dict) or row.keys() - forms.keys():
        raise FlowbenchError(f"{place} has not the columns {', '.join(forms)}")
    for name, (words, fits) in forms.items():
        if name not in row:
            if some:
                continue
            raise FlowbenchError(f"{place} has no {name}")
        if not fits(row[name]):
            raise FlowbenchError(f"{place}: {name} is not {words}")
    return row
