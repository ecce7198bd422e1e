"""Owns how rows from elsewhere join those that are here: nothing is overwritten or hidden.

The rule: what was here first is shown. A run that is new here keeps its generations; so does one
whose attempts here were all merged and are all known to the source, which then continues them.
Whatever else arrives for a run that is here gets generations below all others.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, select

from flowbench.records import FlowbenchError, Spec
from flowbench.store import portable
from flowbench.store.attempts import environment_values, insert_new, run_values
from flowbench.store.claims import now
from flowbench.store.forms import Row
from flowbench.store.portable import Rows
from flowbench.store.tables import (
    ArtifactRow,
    AttemptRow,
    EnvironmentRow,
    OriginRow,
    RunRow,
    ScoreRow,
)
from flowbench.store.verification import identity

MANY = 500  # names in one question to the database
OWN = {"number", "generation", "origin"}  # columns of an attempt that differ between databases
LINKS = {"run", "attempt"}


@dataclass(frozen=True)
class Source:
    """Proved rows from elsewhere; `digest` names them as an origin, `name` is that of the file."""

    name: str
    kind: str
    digest: str
    rows: Rows


@dataclass
class Merged:
    """What became of a source: how much of it is new, how many attempts were `known` here.

    Of the runs that were tried here as well, `hidden` are shown as they were, and of `shown`,
    which were never finished here, the merged ones are. `claims` are the hashes that rows which
    were here before have for a file, by its path.
    """

    runs: int = 0
    attempts: int = 0
    scores: int = 0
    known: int = 0
    hidden: int = 0
    shown: int = 0
    claims: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


@dataclass
class Whole:
    """An attempt with its scores and files."""

    row: Row
    scores: list[Row] = field(default_factory=list)
    files: list[Row] = field(default_factory=list)

    @property
    def content(self) -> tuple:
        """What is the same wherever the attempt is."""
        own = {name: value for name, value in self.row.items() if name not in OWN}
        return own, *(sorted(map(_canonical, rows)) for rows in (self.scores, self.files))


Wholes = dict[str, dict[str, Whole]]  # by key of the run and identity, in the order of numbers


@dataclass(frozen=True)
class Place:
    """Where an attempt stands here."""

    number: int
    generation: int
    finished: bool
    origin: str


def merge(connection: Connection, source: Source) -> Merged:
    """Insert what is new of a source.

    Raises FlowbenchError for an attempt that is here with other content.
    """
    told, rows = Merged(), source.rows
    theirs, here = _wholes(rows), _here(connection, rows)
    for row in (row for some in here.values() for whole in some.values() for row in whole.files):
        told.claims[row["path"]].add(row["sha256"])
    insert_environments(connection, rows)
    for run in rows["runs"]:
        attempts, spec = theirs.get(run["key"], {}), Spec.from_json(run["spec"])
        places = _places(connection, run["key"])
        new = _new(attempts, here.get(run["key"], {}), places, f"{source.name}: {spec.name}")
        told.known += len(attempts) - len(new)
        if new:
            id = hold(connection, spec, run["created"], source.name)
            for whole in _numbered(new, attempts, places, told):
                _insert(connection, id, whole, source.digest)
                told.scores += len(whole.scores)
            told.runs, told.attempts = told.runs + 1, told.attempts + len(new)
    if told.attempts:
        _insert_origins(connection, source)
    return told


def origins(connection: Connection) -> dict[str, str]:
    """The names of the files, by digest, that attempts were merged from."""
    found = connection.execute(select(OriginRow.digest, OriginRow.name))
    return {row.digest: row.name for row in found}


def _here(connection: Connection, rows: Rows) -> Wholes:
    """What is here of the runs in `rows`."""
    keys = [row["key"] for row in rows["runs"]]
    found: Wholes = {}
    for start in range(0, len(keys), MANY):
        chosen = RunRow.key.in_(keys[start : start + MANY])
        found |= _wholes(portable.read(connection, "the database", [chosen]))
    return found


def _wholes(rows: Rows) -> Wholes:
    """Attempts with all that belongs to them."""
    found: Wholes = defaultdict(dict)
    numbered = {}
    for row in sorted(rows["attempts"], key=lambda row: row["number"]):
        whole = found[row["run"]].setdefault(identity(row), Whole(row))
        numbered[row["run"], row["number"]] = whole
    for row in rows["scores"]:
        numbered[row["run"], row["attempt"]].scores.append(row)
    for row in rows["artifacts"]:
        numbered[row["run"], row["attempt"]].files.append(row)
    return found


def _places(connection: Connection, key: str) -> dict[str, Place]:
    """Where each attempt at a run stands here, by its identity, also those that still run."""
    columns = (AttemptRow.host, AttemptRow.pid, AttemptRow.started, AttemptRow.number)
    query = select(*columns, AttemptRow.generation, AttemptRow.outcome, AttemptRow.origin)
    query = query.join(RunRow, RunRow.id == AttemptRow.run_id).where(RunRow.key == key)
    return {
        identity({"run": key, "host": row.host, "pid": row.pid, "started": row.started}): Place(
            row.number, row.generation, row.outcome == "ok", row.origin
        )
        for row in connection.execute(query)
    }


def _new(
    theirs: Mapping[str, Whole], here: Mapping[str, Whole], places: Mapping[str, Place], where: str
) -> list[Whole]:
    """The attempts that are not here; raises FlowbenchError where one is that differs."""
    for name in theirs.keys() & places.keys():
        if name not in here or here[name].content != theirs[name].content:
            row = theirs[name].row
            raise FlowbenchError(
                f"{where}: its attempt {row['number']}, started {row['started']}, is here with"
                " other content; nothing was merged"
            )
    return [whole for name, whole in theirs.items() if name not in places]


def _numbered(
    new: Sequence[Whole], theirs: Mapping[str, Whole], places: Mapping[str, Place], told: Merged
) -> Iterator[Whole]:
    """The new attempts with the numbers and generations that they get here."""
    generations = sorted({whole.row["generation"] for whole in new}, reverse=True)
    numbers = dict(zip(generations, generations, strict=True))
    if not _continues(theirs, places):
        lowest = min(0, min(place.generation for place in places.values()) - 1)
        numbers = {old: lowest - below for below, old in enumerate(generations)}
        finished = any(place.finished for place in places.values())
        seen = not finished and any(whole.row["outcome"] == "ok" for whole in new)
        told.shown, told.hidden = told.shown + seen, told.hidden + (not seen)
    last = max((place.number for place in places.values()), default=0)
    for number, whole in enumerate(new, last + 1):
        own = {"number": number, "generation": numbers[whole.row["generation"]]}
        yield Whole(whole.row | own, whole.scores, whole.files)


def _continues(theirs: Mapping[str, Whole], places: Mapping[str, Place]) -> bool:
    """Whether all that is here of a run came from elsewhere and stands there as it does here."""
    return all(
        place.origin and name in theirs and theirs[name].row["generation"] == place.generation
        for name, place in places.items()
    )


def hold(connection: Connection, spec: Spec, created: str, source: str) -> int:
    """The id of the run, locked on a server; raises FlowbenchError where its name is another's."""
    values = run_values(spec)
    others = select(RunRow.key).where(RunRow.name == spec.name, RunRow.key != values["key"])
    if connection.scalar(others):
        raise FlowbenchError(f"{source}: {spec.name} is here as the name of another run")
    insert_new(connection, RunRow, values | {"created": created})
    found = select(RunRow.id).where(RunRow.key == values["key"]).with_for_update()
    return connection.execute(found).scalar_one()


def _insert(connection: Connection, run: int, whole: Whole, origin: str) -> None:
    """Insert an attempt with all that belongs to it."""
    row = _values(whole.row) | {"run_id": run, "origin": whole.row["origin"] or origin}
    key = connection.execute(insert(AttemptRow).values(row)).inserted_primary_key
    assert key is not None
    for table, rows in ((ScoreRow, whole.scores), (ArtifactRow, whole.files)):
        if rows:
            some = [_values(row) | {"attempt_id": key[0]} for row in rows]
            connection.execute(insert(table), some)


def insert_environments(connection: Connection, rows: Rows) -> None:
    """Insert those that are new."""
    for row in rows["environments"]:
        values = environment_values(row["json"]) | {"created": row["created"]}
        insert_new(connection, EnvironmentRow, values)


def _insert_origins(connection: Connection, source: Source) -> None:
    """The source itself, and what it had merged before."""
    own = sum(not row["origin"] for row in source.rows["attempts"])
    itself = {"digest": source.digest, "name": source.name, "kind": source.kind}
    rows = [itself | {"merged": now(), "attempts": own}] if own else []
    for row in [*rows, *source.rows["origins"]]:
        insert_new(connection, OriginRow, row)


def _canonical(row: Row) -> str:
    return json.dumps(_values(row), sort_keys=True)


def _values(row: Row) -> Row:
    """A row without what it has instead of ids."""
    return {name: value for name, value in row.items() if name not in LINKS}
