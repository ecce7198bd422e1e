"""Tables as Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from flowbench.compare import Section
from flowbench.records import RUN_LEVEL
from flowbench.report.layout import Table

FIELDS = [
    *["dataset", "data", "n", "sample_seed", "subject", "method", "label", "metric", "nfe"],
    *["mean", "sd", "seeds", "goal", "fingerprint", "best", "comparable"],
]


def markdown(tables: Iterable[Table]) -> str:
    """Tables as Markdown; the best of a column in bold."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    lines = [f"**{table.title}**", "", _row(table.columns)]
    lines.append(_row([":--", *["--:"] * (len(table.columns) - 1)]))
    for row in table.rows:
        lines.append(_row([f"**{cell.words}**" if cell.best else cell.words for cell in row]))
    lines += ["", *(f"- {note}" for note in table.notes), ""] if table.notes else [""]
    return "\n".join(lines)


def _row(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def records(sections: Iterable[Section]) -> list[dict]:
    """One flat record for each cell and floor, with everything that decides comparability."""
    rows = []
    for section in sections:
        methods = {group.label: group.spec.method for group in section.groups}
        place = [section.dataset, section.data, section.n, section.sample_seed]
        found = [("model", methods[k[0]], *k, cell) for k, cell in section.cells.items()]
        found += [
            ("floor", "", "floor", name, RUN_LEVEL, cell) for name, cell in section.floors.items()
        ]
        for subject, method, label, metric, nfe, cell in found:
            head = [*place, subject, method, label, metric, _nfe(nfe)]
            rows.append(dict(zip(FIELDS, head, strict=False)) | asdict(cell))
    return rows


def _nfe(nfe: int) -> int | str:
    return "run" if nfe == RUN_LEVEL else nfe or "auto"


def as_csv(sections: Iterable[Section]) -> str:
    """The records as CSV with a header line."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(sections))
    return out.getvalue()


def as_json(sections: Sequence[Section]) -> str:
    """The records as JSON, with the failures beside them; NaN and infinity become strings."""
    rows = [{k: _plain(v) for k, v in row.items()} for row in records(sections)]
    failures = {section.dataset: section.failures for section in sections if section.failures}
    return json.dumps({"scores": rows, "failures": failures}, indent=1) + "\n"


def _plain(value: object) -> object:
    """JSON has no words for NaN and infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
