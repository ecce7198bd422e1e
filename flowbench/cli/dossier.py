"""All that is known about one run as aligned lines, for `flowbench show`."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowbench.records import RUN_LEVEL

WIDTH = 78  # characters of a line, without its indentation
HASH = 16  # characters of a hash that are shown
MACHINE = ("python", "system", "torch", "device", "threads", "cuda", "tf32", "git")
Facts = Mapping[str, Any]
Row = Sequence[str]


def sections(known: Facts, packages: bool) -> Iterator[tuple[str, list[str]]]:
    """Titles with lines; `known` is what `show.facts` gives."""
    yield "run", _identity(known)
    yield "options", _wrapped(f"{name}={_word(value)}" for name, value in known["options"].items())
    yield "setting", _wrapped(f"{name}={_word(value)}" for name, value in known["setting"].items())
    yield "sources", [*_sources(known["sources"])]
    yield "teacher", _teacher(known["teacher"])
    yield "cost of training", [*_cost(known["cost"])]
    yield "attempts", [*_attempts(known["attempts"])]
    yield from _scores([score for score in known["scores"] if not _is_cost(score)])
    yield "files", [*_files(known["files"])]
    for digest, facts in known["environments"].items():
        yield f"environment {digest[:HASH]}", [*_environment(facts, packages)]
    yield "again", [known["command"], known["reproduce"]]


def _identity(known: Facts) -> list[str]:
    budget = known["budget"]
    steps, batch = budget["steps"], budget["batch"]
    pairs = {
        "variant": known["variant"],
        "data set": known["dataset"],
        "seed": str(known["seed"]),
        "budget": f"{steps} steps of {batch}: {steps * batch} images",
        "version": known["version"],
        **{name: known[name] for name in ("key", "data", "code", "weights")},
    }
    return [f"{name:9} {value}" for name, value in pairs.items() if value]


def _sources(sources: Facts) -> Iterator[str]:
    for role, facts in sources.items():
        words = (f"{name}={value!r}" for name, value in facts.items())
        yield from _wrapped([f"{role}:", *words])


def _teacher(teacher: Facts | None) -> list[str]:
    if teacher is None:
        return []
    named = [teacher["run"]] if teacher["run"] else []
    beside = [] if teacher["stored"] else ["not in this database"]
    return [", ".join([*named, f"key {teacher['key'][:HASH]}", *beside])]


def _cost(cost: Sequence[Facts]) -> Iterator[str]:
    """A line for each stage; the teacher's part is one."""
    rows = [
        [
            stage["stage"],
            f"{stage.get('images', math.nan):.0f}",
            _number(stage.get("seconds", math.nan)),
            "" if math.isnan(stage["share"]) else f"{stage['share']:.0%}",
        ]
        for stage in cost
    ]
    if rows:
        yield from _grid([["stage", "images", "seconds", "share"], *rows])


def _attempts(attempts: Sequence[Facts]) -> Iterator[str]:
    for one in attempts:
        took = "" if one["seconds"] is None else f", {one['seconds']:.1f} s"
        where = f", environment {one['environment'][:HASH]}" if one["environment"] else ""
        which = f"(generation {one['generation']}, id {one['id']})"
        yield f"attempt {one['number']} {which}: {one['outcome']}"
        yield f"    {one['started'][:19]}{took}{where}"
        merged = [f"merged from {one['origin']}"] if one["origin"] else []
        for text in filter(None, [one["error"], *merged, *one["notes"]]):
            yield from (f"    {line}" for line in textwrap.wrap(text, WIDTH - 4))


def _is_cost(score: Facts) -> bool:
    return score["name"].partition(":")[0] in ("train-seconds", "train-images")


def _scores(scores: Sequence[Facts]) -> Iterator[tuple[str, list[str]]]:
    """A table for each noise stream and number of samples, and what has none."""
    streams = {(s["seed"], s["n"]) for s in scores if s["subject"] == "model" and s["n"]}
    for seed, n in sorted(streams):
        some = [s for s in scores if (s["seed"], s["n"]) == (seed, n) and s["subject"] == "model"]
        floors = [s for s in scores if s["subject"] == "floor" and s["seed"] == seed]
        yield f"scores of {n} samples, noise stream {seed}", [*_table(some, floors)]
    left = {s["seed"] for s in scores if s["subject"] == "floor"} - {seed for seed, _ in streams}
    for seed in sorted(left):
        floors = [s for s in scores if s["subject"] == "floor" and s["seed"] == seed]
        yield f"floors, noise stream {seed}", [*_table([], floors)]
    beside = [s for s in scores if s["subject"] == "model" and not s["n"]]
    sampling = [s for s in beside if s["nfe"] != RUN_LEVEL]
    yield "cost of sampling", [*_table(sampling, [])]
    whole = [[s["name"], _number(s["value"])] for s in beside if s["nfe"] == RUN_LEVEL]
    yield "of the whole run", [*_grid(whole)]


def _table(scores: Sequence[Facts], floors: Sequence[Facts]) -> Iterator[str]:
    """Metrics by NFE, adaptive last, with the floors by their numbers of rows behind."""
    nfes = sorted({s["nfe"] for s in scores}, key=lambda nfe: nfe or math.inf)
    sizes = sorted({s["n"] for s in floors})
    heads = [f"NFE {nfe or 'auto'}" for nfe in nfes] + [f"floor, n={n}" for n in sizes]
    values = {(s["name"], "model", s["nfe"]): _number(s["value"]) for s in scores}
    values |= {(s["name"], "floor", s["n"]): _number(s["value"]) for s in floors}
    places = [("model", nfe) for nfe in nfes] + [("floor", n) for n in sizes]
    names = dict.fromkeys(name for name, _, _ in values)
    rows = [[name, *(values.get((name, *place), "") for place in places)] for name in names]
    if rows:
        yield from _grid([["metric", *heads], *rows])


def _files(files: Sequence[Facts]) -> Iterator[str]:
    states = {"yes": "", "no": "not there", "other size": "other size than stored"}
    for file in files:
        yield f"{file['role']}: {_size(file['bytes'])}, {file['sha256'][:HASH]}"
        yield f"    {file['path']}  {states[file['there']]}".rstrip()


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def _environment(facts: Facts, packages: bool) -> Iterator[str]:
    for name in MACHINE:
        if facts.get(name) is not None:
            yield f"{name:9} {facts[name]}"
    there = facts["packages"] if isinstance(facts.get("packages"), Mapping) else {}
    yield f"packages  {len(there)}" + ("" if packages else " (--packages lists them)")
    if packages:
        yield from _wrapped(f"{name}={version}" for name, version in there.items())


def _wrapped(parts: Any) -> list[str]:
    """Words as lines; none is cut."""
    text = " ".join(parts)
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _word(value: Any) -> str:
    """A value as one word."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_word(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _number(value: float) -> str:
    from flowbench.report.layout import plain

    return plain(value)


def _grid(rows: Sequence[Row]) -> Iterator[str]:
    """Rows of texts, aligned; what does not fit beside the first column follows below."""
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    columns = list(range(1, len(widths)))
    while columns:
        some = [columns.pop(0)]
        while columns and sum(widths[c] + 2 for c in (0, *some, columns[0])) <= WIDTH + 2:
            some.append(columns.pop(0))
        for row in rows:
            cells = (f"{row[column]:>{widths[column]}}" for column in some)
            yield "  ".join([f"{row[0]:{widths[0]}}", *cells]).rstrip()
