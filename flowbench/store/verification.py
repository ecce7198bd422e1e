"""Owns the proof of rows from elsewhere: every hash is made anew, every reference is followed."""

import functools
import re
from collections.abc import Mapping
from typing import Any

from flowbench.records import FlowbenchError, Score, Spec, digest
from flowbench.store.forms import BUDGET, COLUMNS, SPEC, Row, check
from flowbench.store.portable import Rows, key

# What a run may leave in its folder; no state of training, which a later run would go on from.
FILE = r"-[0-9a-f]{8}(-g[0-9]{1,7})?/[A-Za-z0-9][A-Za-z0-9_.+-]{0,200}\.(safetensors|jsonl)"


def verify(rows: Rows, place: str) -> dict[str, Spec]:
    """The Spec of each run by its key, after every row was proved.

    Raises FlowbenchError in one line that begins with `place` and names the run.
    """
    for table in COLUMNS:
        seen = set()
        for row in rows[table]:
            if table != "artifacts" and key(table, row) in seen:
                raise FlowbenchError(f"{place} has two rows {key(table, row)} of {table}")
            seen.add(key(table, row))
    for row in rows["environments"]:
        if _hash(row["json"]) != row["digest"]:
            raise FlowbenchError(f"{place}: the environment {row['digest']} has another hash")
    specs = {row["key"]: proved(row, place) for row in rows["runs"]}
    names = {spec.name for spec in specs.values()}
    if len(names) < len(specs):
        raise FlowbenchError(f"{place} has two runs of one name")
    attempts = _attempts(rows, specs, place)
    _scores(rows, specs, attempts, place)
    for row in rows["artifacts"]:
        spec = _owner(row, specs, attempts, place)
        if not is_place(row["path"], spec):
            raise FlowbenchError(f"{place}: {spec.name} has a file at {row['path']!r}")
    return specs


def is_place(path: str, spec: Spec) -> bool:
    """Whether files of that run, or of one that shares its network, lie there."""
    start = f"{spec.dataset}-{spec.method}-s{spec.seed}"
    return re.fullmatch(re.escape(start) + FILE, path) is not None


def identity(row: Row) -> str:
    """What an attempt is known by everywhere: its run, process and time."""
    return digest([row["run"], row["host"], row["pid"], row["started"]])


def _hash(value: Any) -> str:
    """The digest; empty for what has none, such as a number beyond all bounds."""
    try:
        return digest(value)
    except (ValueError, RecursionError):
        return ""


def readable(row: Row, place: str) -> Spec:
    """The Spec of a run; raises FlowbenchError, in one line, for what is none.

    The key of one that an earlier flowbench has stored may follow from an earlier recipe.
    """
    where = f"{place}: the run {row['key'][:8]}"
    parts = check(row["spec"], SPEC, where, some=True)
    check(parts.get("budget"), BUDGET, where)
    try:
        spec = Spec.from_json(parts)
        _ = spec.key
    except (FlowbenchError, TypeError, ValueError, RecursionError) as error:
        raise FlowbenchError(f"{where} has no readable spec") from error
    return spec


def proved(row: Row, place: str) -> Spec:
    """The Spec of a run; raises FlowbenchError, in one line, unless its key follows from it."""
    spec, where = readable(row, place), f"{place}: the run {row['key'][:8]}"
    if any(not name or set(name) & set("/\\") for name in (spec.dataset, spec.method)):
        raise FlowbenchError(f"{where} has a method or data set that is no name")
    if spec.key != row["key"]:
        raise FlowbenchError(f"{where} ({spec.name}) has another key than its spec")
    return spec


def _attempts(rows: Rows, specs: Mapping[str, Spec], place: str) -> set[tuple]:
    """The keys of all attempts, whose references lead to rows."""
    environments = {row["digest"] for row in rows["environments"]} | {None}
    origins = {row["digest"] for row in rows["origins"]} | {""}
    seen: set[str] = set()
    for row in rows["attempts"]:
        if row["run"] not in specs:
            raise FlowbenchError(f"{place} has an attempt at an unknown run {row['run'][:8]}")
        where = f"{place}: attempt {row['number']} at {specs[row['run']].name}"
        if row["environment"] not in environments:
            raise FlowbenchError(f"{where} has an unknown environment")
        if row["origin"] not in origins:
            raise FlowbenchError(f"{where} has an unknown origin")
        if identity(row) in seen:
            raise FlowbenchError(f"{where} is there twice")
        seen.add(identity(row))
    return {key("attempts", row) for row in rows["attempts"]}


def _owner(row: Row, specs: Mapping[str, Spec], attempts: set[tuple], place: str) -> Spec:
    if (row["run"], row["attempt"]) not in attempts:
        raise FlowbenchError(f"{place} has rows of an unknown attempt at {row['run'][:8]}")
    return specs[row["run"]]


def _scores(rows: Rows, specs: Mapping[str, Spec], attempts: set[tuple], place: str) -> None:
    """Prove the fingerprints; thousands of scores share a few."""
    protocols = {id(row["protocol"]): row["protocol"] for row in rows["scores"]}

    @functools.cache
    def fingerprint(name: str, n: int, seed: int, protocol: int) -> str:
        try:
            return Score(name, 0.0, n=n, seed=seed, protocol=protocols[protocol]).fingerprint
        except (ValueError, RecursionError):
            return ""

    for row in rows["scores"]:
        spec = _owner(row, specs, attempts, place)
        facts = (row["name"], row["n"], row["seed"], id(row["protocol"]))
        if fingerprint(*facts) != row["fingerprint"]:
            what = f"the score {row['name']} of {spec.name}"
            raise FlowbenchError(f"{place}: {what} has another fingerprint than its protocol")
        if (row["kind"] == "finite") != (row["value"] is not None):
            raise FlowbenchError(f"{place}: the score {row['name']} of {spec.name} has no value")
