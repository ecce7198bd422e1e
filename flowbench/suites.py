"""A suite: one TOML file that says what to run, how to examine it, and what numbers to expect."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from flowbench import options, presets, resolution, toml_files
from flowbench.records import FlowbenchError
from flowbench.suitefile import Expectation, File, Head, Nfe, Places, Row, Seeing, Table, Token

NFES = TypeAdapter(list[Nfe])
SHOWN = 3  # mistakes named in one error message
LONGEST = 80  # characters of a wrong value in it
MOST = 100_000  # runs
WHERE = {"method": "label", "expect": "metric"}  # the key that tells entries of a list apart
WORDS = {
    "missing": "is missing",
    "string_type": "takes a text in quotes",
    "int_type": "takes a whole number",
    "float_type": "takes a number",
    "bool_type": "takes true or false",
    "list_type": "takes a list such as [0, 1]",
    "dict_type": "takes a table such as {n = 128}",
}


@dataclass(frozen=True)
class Cell:
    """One run of a suite: a row on a data set with a seed."""

    row: Row
    dataset: str
    seed: int

    @property
    def name(self) -> str:
        """How messages call the cell."""
        return f"{self.row.label} on {self.dataset}, seed {self.seed}"


@dataclass(frozen=True)
class Suite:
    """A suite whose labels and data sets are known to fit together."""

    path: Path
    head: Head
    rows: tuple[Row, ...]  # with what `head` says filled in
    expectations: tuple[Expectation, ...]  # one label and one data set each

    @property
    def datasets(self) -> list[str]:
        """Every data set, in the order of the file."""
        return list(dict.fromkeys(name for row in self.rows for name in row.datasets))

    def cells(self) -> list[Cell]:
        """Every run: data set by data set, row by row, seed by seed."""
        return [
            Cell(row, dataset, seed)
            for dataset in self.datasets
            for row in self.rows
            if dataset in row.datasets
            for seed in dict.fromkeys(row.seeds)
        ]


def read(path: Path, token: bool = False) -> Suite:
    """The suite in `path`, or with `token` at the size that proves only that it runs.

    Raises FlowbenchError, in one line, for whatever is wrong with it.
    """
    words = _words(path)
    try:
        file = File.model_validate(words)
        file = _tokened(file) if token else file
        rows = tuple(_filled(row, file.suite) for row in file.method)
        known = {row.label: row for row in rows}
        found = tuple(part for entry in file.expect for part in _parts(entry, known))
    except ValidationError as error:
        mistakes = [_mistake(dict(e), words) for e in error.errors()[:SHOWN]]
        more = f"; and {error.error_count() - SHOWN} more" * (error.error_count() > SHOWN)
        raise FlowbenchError(f"{path}: {'; '.join(mistakes)}{more}") from error
    except (ValueError, FlowbenchError) as error:
        raise FlowbenchError(f"{path}: {error}") from error
    _check_rows(path, rows)
    return Suite(path, file.suite, rows, found)


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    """Raise FlowbenchError for labels that are there twice, and for more runs than can be meant."""
    doubled = [label for label, count in Counter(row.label for row in rows).items() if count > 1]
    if doubled:
        raise FlowbenchError(f"{path}: two methods have the label {min(doubled)!r}: rename one")
    runs = sum(len(row.datasets) * len(row.seeds) for row in rows)
    if runs > MOST:
        raise FlowbenchError(f"{path}: these are {runs} runs, and at most {MOST} can be meant")


def _words(path: Path) -> dict[str, Any]:
    """What the file says; raises FlowbenchError where it is none, or no TOML."""
    try:
        return toml_files.read(path)
    except OSError as error:
        raise FlowbenchError(f"the suite {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FlowbenchError(f"{path} is no TOML: {error}") from error


def _mistake(error: dict[str, Any], words: dict[str, Any]) -> str:
    """What is wrong, with the entry and the key where it is."""
    place = list(error["loc"])
    entry = str(place.pop(0)) if place else "the file"
    kind = entry
    if place and isinstance(place[0], int) and entry in WHERE:
        number = place.pop(0)
        found = words[entry][number]
        label = found.get(WHERE[entry]) if isinstance(found, dict) else None
        entry = f"{entry} {number + 1}" + (f" ({label})" if label else "")
    keys = [str(part) for part in place if isinstance(part, str)]
    where = f"{entry}: {keys[0]}" if keys else entry
    if error["type"] == "extra_forbidden":
        return f"{where} is no key there; {_near(kind, (keys or [entry])[0])}"
    known = WORDS.get(error["type"])
    message = known or error["msg"].removeprefix("Value error, ")
    got = "" if known == "is missing" or isinstance(error["input"], dict) else _got(error)
    return f"{where} {message}{got}"


def _got(error: dict[str, Any]) -> str:
    value = repr(error["input"])
    return f", not {value if len(value) <= LONGEST else value[:LONGEST] + '...'}"


def _near(kind: str, key: str) -> str:
    """The key that was perhaps meant, or all there are."""
    tables: dict[str, type[Table]] = {"suite": Head, "method": Row}
    tables |= {"expect": Expectation, "token": Token}
    return options.hint(key, tables.get(kind, File).model_fields)


def _tokened(file: File) -> File:
    """Every row with the words of `[token]` and one seed, nothing expected of it.

    Raises ValueError where there is no such table, FlowbenchError where it names neither a label
    nor a method.
    """
    token = file.token
    if token is None:
        raise ValueError("has no [token], the size that would prove only that it runs")
    names = [name for row in file.method for name in (row.label, row.method)]
    for name in token.options:
        options.choose("label or method of [token]", name, dict.fromkeys(names))
    words = {"steps", "batch", "samples", "network", "precision"}
    said = token.model_dump(include=words, exclude_none=True)
    rows = []
    for row in file.method:
        mine = [token.options.get(name, {}) for name in (row.method, row.label)]
        changes = {"options": {**row.options, **mine[0], **mine[1]}, "seeds": row.seeds[:1]}
        rows.append(row.model_copy(update={**said, **changes, "seconds": None, "gpu_hours": None}))
    head = {"title": f"{file.suite.title}, token size", "seeds": file.suite.seeds[:1]}
    head |= token.model_dump(include={"reference_rows"}, exclude_none=True)
    suite = file.suite.model_copy(update=head)
    return file.model_copy(update={"suite": suite, "method": rows, "expect": []})


def _filled(row: Row, head: Head) -> Row:
    """`row` with what it leaves to the head; raises ValueError where neither says it."""
    datasets = row.places or head.places
    if not datasets:
        raise ValueError(f"[suite] takes dataset or datasets ({row.label} has none)")
    words = [name for name in Seeing.model_fields if name not in Places.model_fields]
    mine = {name: getattr(row, name) for name in (*words, "steps", "batch", "samples")}
    shared = {name: getattr(head, name) for name, value in mine.items() if value is None}
    filled = row.model_copy(update=shared | {"dataset": None, "datasets": datasets})
    usual = _usual_nfe(filled)
    changes = {"seeds": row.seeds or head.seeds}
    changes["nfe"] = list(dict.fromkeys(row.nfe or head.nfe or usual))
    return filled.model_copy(update=changes)


def _usual_nfe(row: Row) -> Sequence[int]:
    """What is measured where the file says nothing: the preset's numbers, or the usual ones.

    Raises FlowbenchError, naming the row, for a preset that is not there.
    """
    try:
        preset = presets.get(row.method, row.preset) if row.preset else None
    except FlowbenchError as error:
        raise FlowbenchError(f"{row.label}: {error}") from error
    said = preset.run.get("nfe") if preset else None
    return NFES.validate_python(said.value) if said else resolution.NFES


def _parts(entry: Expectation, known: Mapping[str, Row]) -> Iterator[Expectation]:
    """One expectation for each of the labels; raises ValueError for what no row measures."""
    for label in entry.labels or [entry.label]:
        for needed in filter(None, (label, entry.other)):
            _check(entry, needed, known)
        row = known[label]
        if entry.dataset is None and len(row.datasets) > 1:
            raise ValueError(f"expect ({entry.metric} of {label}): say which dataset")
        dataset = entry.dataset or row.datasets[0]
        found = entry.model_copy(update={"label": label, "labels": [], "dataset": dataset})
        if found.other:
            _check(found, found.other, known)
            if not set(row.seeds) <= set(known[found.other].seeds):
                raise ValueError(f"expect ({entry.metric}): {found.other} lacks seeds of {label}")
        yield found


def _check(entry: Expectation, label: str, known: Mapping[str, Row]) -> None:
    """Raise ValueError unless the row `label` is there and measures what is expected."""
    place = f"expect ({entry.metric})"
    if label not in known:
        near = difflib.get_close_matches(label, known, n=1) or list(known)
        raise ValueError(f"{place}: no method has the label {label!r}; there is {', '.join(near)}")
    row = known[label]
    if entry.dataset is not None and entry.dataset not in row.datasets:
        raise ValueError(f"{place}: {label} does not run on {entry.dataset}: {row.datasets}")
    if entry.nfe is not None and entry.nfe not in row.nfe:
        raise ValueError(f"{place}: {label} is not sampled at nfe {entry.nfe}: {row.nfe}")
