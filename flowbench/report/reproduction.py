"""Published numbers as tables: by themselves, and beside ours.

Nothing here is ranked: a paper's number was not measured by the protocol of the rows around it.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence

from flowbench.comparison.published import Match, Published, matches
from flowbench.comparison.view import Section
from flowbench.records import ADAPTIVE
from flowbench.report.layout import Table, Text, number

ABOUT = "published: as the papers print it, not measured here; never ranked with measured rows"
BETTER = {"min": "below", "max": "above"}  # on which side of 0 a difference is an improvement
FIELDS = [field.name for field in dataclasses.fields(Published) if field.name != "printed"]


def table(section: Section, found: Iterable[Published]) -> Table | None:
    """Published numbers beside our cells of a section; None where nothing corresponds."""
    pairs = matches(section, found)
    if not pairs:
        return None
    title = f"{section.dataset}: published numbers and ours"
    columns = ["method", "published as", "metric", "NFE", "published", "ours"]
    columns += ["ours - published", "paper"]
    made = Table(title, columns, [], labels=columns.index("NFE") + 1)
    for match in pairs:
        made.rows.append(_row(match, section))
        made.tags.append(_tags(match.published, match.group.spec.method))
    made.notes += [ABOUT, _about_differences(pairs)]
    made.notes += [*_notes(match.published for match in pairs), *_remarks(pairs)]
    return made


def _row(match: Match, section: Section) -> list[Text]:
    row, cell = match.published, match.cell
    return [
        Text(match.group.label),
        Text(named(row)),
        Text(row.shown),
        _nfe(match, section),
        Text(row.printed, value=row.value),
        Text(number(cell), value=cell.mean),
        Text(signed(match.difference), value=match.difference),
        Text(row.place),
    ]


def named(row: Published) -> str:
    """A published row's method with what tells it apart: `LMM, VGG+ADL, with labels`."""
    return ", ".join(filter(None, [row.method, row.variant, "with labels" * row.conditional]))


def signed(value: float) -> str:
    """A difference with its sign and three digits."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:+.0f}" if abs(value) >= 1000 else f"{value:+.3g}"


def _nfe(match: Match, section: Section) -> Text:
    """The NFE as printed; of an adaptive solver, beside the mean that was counted here."""
    row = match.published
    if row.level != ADAPTIVE:
        return Text(str(row.level), value=row.level)
    counted = section.cells.get((match.group.label, "nfe", ADAPTIVE))
    words = [f"published {row.nfe or 'not said'}"]
    words += [f"ours {counted.mean:.4g}"] if counted else []
    return Text(f"auto ({', '.join(words)})", value=row.nfe)


def _about_differences(pairs: Sequence[Match]) -> str:
    sides = {match.published.shown: BETTER.get(match.cell.goal) for match in pairs}
    known = [f"{side} 0 is better for {metric}" for metric, side in sides.items() if side]
    return "; ".join(["ours - published: of our mean over training seeds", *known])


def _tags(row: Published, method: str) -> dict[str, str]:
    return {"dataset": row.dataset, "method": method, "nfe": str(row.level or "auto")}


def _remarks(pairs: Sequence[Match]) -> list[str]:
    """What is known to differ, each once with the rows of ours that it holds for."""
    everyone = list(dict.fromkeys(match.group.label for match in pairs))
    labels: dict[str, list[str]] = {}
    for match in pairs:
        for remark in match.remarks:
            labels.setdefault(remark, []).append(match.group.label)
    found = {remark: list(dict.fromkeys(some)) for remark, some in labels.items()}
    return [
        f"{'every row' if some == everyone else '; '.join(some)}: {remark}"
        for remark, some in found.items()
    ]


def published_table(found: Sequence[Published], title: str) -> Table:
    """Published rows with a column a metric; data set and paper are columns where they vary."""
    metrics = list(dict.fromkeys(row.shown for row in found))
    several = {
        "data": len({row.dataset for row in found}) > 1,
        "paper": len({row.place for row in found}) > 1,
    }
    columns = ["method", "variant", *["data"] * several["data"], "labels", "NFE", *metrics]
    columns += ["source", *["paper"] * several["paper"]]
    made = Table(title, columns, [], labels=columns.index("NFE") + 1)
    for some in _by_row(found):
        row, cells = some[0], {each.shown: each for each in some}
        line = [Text(row.method), Text(row.variant), *[Text(row.dataset)] * several["data"]]
        line += [Text("yes" if row.conditional else "no"), _printed(row)]
        line += [_value(cells.get(metric)) for metric in metrics]
        line += [Text(row.source), *[Text(row.place)] * several["paper"]]
        made.rows.append(line)
        made.tags.append(_tags(row, row.method))
    made.notes += [ABOUT, *_notes(found)]
    return made


def _by_row(found: Sequence[Published]) -> list[list[Published]]:
    """The numbers that a paper prints in one row, in order."""
    lines: dict[tuple, list[Published]] = {}
    for row in found:
        key = (row.place, row.dataset, row.method, row.variant, row.conditional, row.nfe)
        lines.setdefault(key, []).append(row)
    return list(lines.values())


def _printed(row: Published) -> Text:
    return Text(str(row.nfe), value=row.nfe) if row.nfe else Text("not said")


def _value(row: Published | None) -> Text:
    return Text(row.printed, value=row.value) if row else Text("")


def _notes(found: Iterable[Published]) -> list[str]:
    """What must be known of published rows, each once with all that it holds for."""
    names: dict[str, list[str]] = {}
    for row in found:
        if row.note:
            names.setdefault(row.note, []).append(named(row))
    return [f"{'; '.join(dict.fromkeys(some))}: {note}" for note, some in names.items()]


def published_tables(found: Iterable[Published]) -> list[Table]:
    """A table for each table of a paper, in order."""
    places: dict[str, list[Published]] = {}
    for row in found:
        places.setdefault(row.place, []).append(row)
    return [published_table(some, f"Published: {place}") for place, some in places.items()]


def as_csv(found: Iterable[Published]) -> str:
    """Published rows as CSV, in the columns of the file that they come from."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in found:
        words = {"conditional": "yes" if row.conditional else "no"}
        writer.writerow(dataclasses.asdict(row) | words)
    return out.getvalue()


def as_json(found: Iterable[Published]) -> str:
    """Published rows as JSON; what is not said is null."""
    rows = [{name: getattr(row, name) for name in FIELDS} for row in found]
    return json.dumps({"published": rows}, indent=1, ensure_ascii=False) + "\n"
