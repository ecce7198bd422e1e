"""Tables as Markdown, CSV and JSON."""

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowbench.comparison.fingerprint import FIELDS as PRINTS
from flowbench.comparison.fingerprint import OF_RUNS, OF_SPEED
from flowbench.comparison.naming import TRAITS
from flowbench.comparison.view import Cell, Section, View, failure
from flowbench.records import RUN_LEVEL, Tried
from flowbench.report.layout import Table

FIELDS = [
    *["dataset", "data", "n", "budget", "conditioning", "part", "subject", "method", "label"],
    *[*TRAITS, "metric", "nfe", "mean", "sd", "seeds", "sampling_sd", "sampling_seeds"],
    *["goal", "best", "comparable", *(n for n in (*PRINTS, *OF_SPEED) if n not in OF_RUNS)],
]
FORMULA = ("=", "+", "-", "@")  # what a text that a spreadsheet computes begins with
# What means something to Markdown, to GitHub's mathematics, or to HTML within it.
MARKUP = re.compile(r"[\\`*\[<&|~$]|(?<![^\W_])_|_(?![^\W_])")


def printable(words: str) -> str:
    """Words of strangers in one line, without what a terminal takes for a command."""
    if words.isprintable():
        return words
    return " ".join("".join(map(_visible, words)).split())


def _visible(char: str) -> str:
    """Line breaks and the like as a space; what has no shape is left out."""
    kind = unicodedata.category(char)
    return " " if kind == "Cc" or kind[0] == "Z" else "" if kind[0] == "C" else char


def markdown(tables: Iterable[Table]) -> str:
    """Tables as Markdown; the best of a column in bold."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    lines = [f"**{_escaped(table.title)}**", "", _row(map(_escaped, table.columns))]
    left = table.labels
    lines.append(_row([":--"] * left + ["--:"] * (len(table.columns) - left)))
    for row in table.rows:
        cells = [(_escaped(cell.words), cell.best) for cell in row]
        lines.append(_row(f"**{words}**" if best else words for words, best in cells))
    lines += ["", *(f"- {_note(note)}" for note in table.notes), ""] if table.notes else [""]
    return "\n".join(lines)


def _row(words: Iterable[str]) -> str:
    return "| " + " | ".join(words) + " |"


def _escaped(words: str) -> str:
    return MARKUP.sub(r"\\\g<0>", printable(words))


def _note(words: str) -> str:
    """At the start of a line more signs mean something."""
    return re.sub(r"^[#+>-]", r"\\\g<0>", _escaped(words))


def records(sections: Iterable[Section]) -> list[dict]:
    """One flat record for each cell and floor, with everything that decides comparability."""
    rows = []
    for section in sections:
        groups = {group.label: group for group in section.groups}
        place = {name: getattr(section, name) for name in ("dataset", *OF_RUNS, "part")}
        for (label, metric, nfe), cell in section.cells.items():
            group = groups[label]
            who = {"subject": "model", "method": group.spec.method, "label": label}
            who |= {name: group.traits.get(name, "") for name in TRAITS}
            rows.append(_record(place | who | {"metric": metric, "nfe": _nfe(nfe)}, cell))
        for metric, cell in section.floors.items():
            who = {"subject": "floor", "label": "floor", "metric": metric, "nfe": "run"}
            rows.append(_record(place | who, cell))
    return rows


def _record(head: dict, cell: Cell) -> dict:
    facts = {
        **{name: getattr(cell, name) for name in ("mean", "sd", "seeds", "sampling_sd")},
        **{name: getattr(cell, name) for name in ("goal", "best", "comparable")},
        "sampling_seeds": cell.streams,
    }
    prints = {name: word for name, word in cell.fields.items() if name not in OF_RUNS}
    whole = prints | head | facts
    return {name: whole.get(name, "") for name in FIELDS}


def _nfe(nfe: int) -> int | str:
    return "run" if nfe == RUN_LEVEL else nfe or "auto"


def as_csv(sections: Iterable[Section], failed: Sequence[Tried] = ()) -> str:
    """The records as CSV with a header line, and a row with its reason for each failure.

    A text that a spreadsheet would compute has an apostrophe before it; numbers never have.
    """
    rows = records(sections)
    for attempt in failed:
        spec = attempt.spec
        who = {"subject": "failure", "method": spec.method, "label": spec.variant}
        rows.append({"dataset": spec.dataset, "data": spec.data, **who, "reason": failure(attempt)})
    out = io.StringIO()
    writer = csv.DictWriter(out, [*FIELDS, "reason"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: _cell(v) if isinstance(v, str) else v for k, v in row.items()})
    return out.getvalue()


def _cell(words: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula."""
    words = printable(words)
    return f"'{words}" if words.startswith(FORMULA) else words


def as_json(view: View) -> str:
    """The records as JSON, with the failures beside them; NaN and infinity become strings."""
    rows = [{k: _plain(v) for k, v in row.items()} for row in records(view.sections)]
    failures: dict[str, list[str]] = {}
    for attempt in view.failed:
        failures.setdefault(attempt.spec.dataset, []).append(failure(attempt))
    head, tail = json.dumps({"scores": [], "failures": failures}, indent=1).split("[]", 1)
    return f"{head}{_indented(rows)}{tail}\n"


def _indented(rows: Sequence[Mapping[str, Any]]) -> str:
    """Flat records as `json.dumps(indent=1)` has them, for which Python has no fast encoder."""
    encode = json.JSONEncoder(separators=(",\n   ", ": ")).encode
    lines = ",\n".join(f"  {{\n   {encode(row)[1:-1]}\n  }}" for row in rows)
    return f"[\n{lines}\n ]" if rows else "[]"


def _plain(value: object) -> object:
    """JSON has no words for NaN and infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
