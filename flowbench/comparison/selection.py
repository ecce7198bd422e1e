"""Which of the stored runs and scores a view shows: filters as a user types them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from flowbench import options
from flowbench.comparison import fingerprint
from flowbench.comparison.naming import specs_of, traits
from flowbench.records import FlowbenchError, Measured, Spec, Tried

OF_SCORES = ("n", "stream")
OF_SPECS = ("variant", "code", "version")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Filter:
    """What a user asks for; what is empty does not restrict.

    `where` are pairs of a name and a value: n, stream, origin, data, budget, conditioning, a trait,
    an option of the method or a setting of the run. `since` is a UTC time, ISO 8601.
    """

    dataset: str | None = None
    methods: Collection[str] = ()
    seeds: Collection[int] = ()
    since: str = ""
    where: Sequence[tuple[str, str]] = field(default_factory=tuple)


def select(
    rows: list[Measured],
    tried: Iterable[Tried],
    asked: Filter,
    runs: Mapping[str, Spec] | None = None,
) -> list[Measured]:
    """The scores that fit `since` and `where`; the store has looked at the rest.

    `runs` are all stored ones by key, among them the teachers of others (None: those of `rows`).
    Raises FlowbenchError for a name that no run has.
    """
    if asked.where and rows:
        facts = _facts(rows, specs_of(rows) if runs is None else runs)
        known = {name for some in facts.values() for name in some} | {*OF_SCORES, "origin"}
        for name, _ in asked.where:
            options.choose("field of --where", name, sorted(known))
        rows = [row for row in rows if _fits(row, facts[id(row.spec)], asked.where)]
    if asked.since:
        late = {attempt.id for attempt in tried if attempt.started >= asked.since}
        rows = [row for row in rows if row.attempt in late]
    return rows


def attempts(
    tried: Iterable[Tried], asked: Filter, runs: Mapping[str, Spec] | None = None
) -> list[Tried]:
    """The attempts that fit `since`, and `where` as far as it is about runs; `runs` as above."""
    late = [attempt for attempt in tried if attempt.started >= asked.since]
    where = [(name, value) for name, value in asked.where if name not in OF_SCORES]
    if not where:
        return late
    facts = _facts(late, runs or {})
    return [attempt for attempt in late if _of_run(attempt, facts[id(attempt.spec)], where)]


def _facts(
    records: Iterable[Measured] | Iterable[Tried], runs: Mapping[str, Spec]
) -> dict[int, dict[str, str]]:
    """The facts of each Spec by its identity in memory."""
    distinct = {id(record.spec): record.spec for record in records}
    return {key: facts_of(spec, runs) for key, spec in distinct.items()}


def facts_of(spec: Spec, runs: Mapping[str, Spec]) -> dict[str, str]:
    """Everything about a run that `--where` takes, as words."""
    of_run = fingerprint.of_run(spec, 0)
    found = {name: of_run[name] for name in ("budget", "conditioning")}
    found |= {name: str(getattr(spec, name)) for name in OF_SPECS}
    found |= {"data": spec.data, "seed": str(spec.seed), "steps": str(spec.budget.steps)}
    found |= {"batch": str(spec.budget.batch), "preset": str(spec.changed.get("preset", "none"))}
    found |= {"network": "small"} | {k: _word(value) for k, value in spec.setting.items()}
    found |= {name: _word(value) for name, value in (*spec.options.items(), *spec.changed.items())}
    found["precision"] = fingerprint.precision(spec)
    return found | {name: word or "none" for name, word in traits(spec, runs).items()}


def _word(value: object) -> str:
    if isinstance(value, Mapping):  # a backbone, which goes by its name
        return str(value.get("name", ""))
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _fits(row: Measured, facts: Mapping[str, str], where: Sequence[tuple[str, str]]) -> bool:
    """Whether a score fits all pairs; facts of whole runs have no n and no stream."""
    for name, wanted in where:
        if name in OF_SCORES:
            own = str(row.score.n if name == "n" else row.score.seed)
            if row.score.n and row.score.subject == "model" and own != wanted:
                return False
    return _of_run(row, facts, [(name, value) for name, value in where if name not in OF_SCORES])


def _of_run(
    record: Measured | Tried, facts: Mapping[str, str], where: Sequence[tuple[str, str]]
) -> bool:
    """Whether a run fits all pairs."""
    facts = {**facts, "origin": record.origin or "here"}
    return all(_same(name, facts.get(name, ""), wanted) for name, wanted in where)


def _same(name: str, own: str, wanted: str) -> bool:
    """Hashes may be given by their start; `1000x64` is `1000 x 64`, `1e-3` is `0.001`."""
    if name in ("data", "code", "origin"):
        return bool(wanted) and own.startswith(wanted)
    if own.replace(" ", "").lower() == wanted.replace(" ", "").lower():
        return True
    try:
        return name not in OF_SPECS and float(own) == float(wanted)
    except ValueError:
        return False


def pair(word: str) -> tuple[str, str]:
    """`name=value` as a pair; raises FlowbenchError for anything else."""
    name, equals, value = word.partition("=")
    if not equals or not name.strip():
        raise FlowbenchError(
            f'--where takes NAME=VALUE, such as n=600 or teacher=edm, not "{word}"'
        )
    return name.strip(), value.strip()


def since(word: str, now: datetime | None = None) -> str:
    """A date, a time, or an age such as `36h`, `7d`, as UTC in ISO 8601.

    Raises FlowbenchError for anything else.
    """
    if age := re.fullmatch(r"(\d{1,6})([mhdw])", word):
        past = timedelta(**{UNITS[age[2]]: int(age[1])})
        try:
            return ((now or datetime.now(UTC)) - past).isoformat(timespec="milliseconds")
        except OverflowError:
            pass
    try:
        moment = datetime.fromisoformat(word).astimezone(UTC)
    except (ValueError, OverflowError):  # no date, or one at the end of the calendar
        advice = "a date (2026-11-20), a time in ISO 8601, or an age (7d, 36h)"
        raise FlowbenchError(f'--since takes {advice}, not "{word}"') from None
    return moment.isoformat(timespec="milliseconds")
