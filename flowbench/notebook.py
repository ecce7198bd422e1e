"""Results in Python: a tidy data frame of all scores, and the leaderboard that a notebook shows."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowbench.comparison.fingerprint import FIELDS, OF_SPEED, Reader
from flowbench.comparison.naming import TRAITS, labelled, specs_of, traits
from flowbench.comparison.opening import opened, scores
from flowbench.comparison.selection import Filter, pair, since
from flowbench.comparison.view import View
from flowbench.places import url
from flowbench.records import ADAPTIVE, RUN_LEVEL, Measured
from flowbench.report import sections, terminal, text
from flowbench.report.layout import Table
from flowbench.store import Store

COLUMNS = [
    *["dataset", "method", "label", "seed", "subject", "metric", "nfe", "n", "stream", "value"],
    *["goal", "run", "generation", "origin", *TRAITS],
    *(f"fingerprint_{name}" for name in (*FIELDS, *OF_SPEED)),
]


def results(db: str | Path = "results.db", **asked: Any) -> Any:
    """Every stored score as a tidy pandas DataFrame, a row for each.

    `db` is a path or a URL; `asked` narrows as the options of `flowbench compare` do: dataset,
    methods, seeds, since, where (a mapping or NAME=VALUE words). Column `nfe` is missing for facts
    of a whole run, 0 for an adaptive solver; `stream` is the noise stream; then follow the traits
    and the fingerprint. Raises FlowbenchError where there is no such database.
    """
    import pandas

    store = Store.open_existing(url(db))
    runs = store.specs()
    measured, _ = scores(store, _filter(**asked), runs)
    specs, reader = specs_of(measured), Reader(store.environments())
    keys = {id(spec): key for key, spec in specs.items()}
    labels = labelled(specs, runs)
    rows = [
        _row(row, labels[keys.get(id(row.spec)) or row.spec.key])
        | traits(row.spec, runs)
        | {f"fingerprint_{name}": value for name, value in reader.fields(row).items()}
        for row in measured
    ]
    frame = pandas.DataFrame(rows, columns=COLUMNS)
    frame["nfe"] = frame["nfe"].astype("Int64").mask(frame["nfe"] == RUN_LEVEL)
    return frame


def _row(row: Measured, label: str) -> dict[str, Any]:
    score, spec = row.score, row.spec
    return {
        **{"dataset": spec.dataset, "method": spec.method, "label": label, "seed": spec.seed},
        **{"subject": score.subject, "metric": score.name, "nfe": score.nfe, "n": score.n},
        **{"stream": score.seed, "value": score.value, "goal": score.goal, "run": row.run},
        **{"generation": row.generation, "origin": row.origin},
    }


def leaderboard(db: str | Path = "results.db", **asked: Any) -> "Leaderboard":
    """The view that `flowbench report` prints; a notebook renders it.

    Arguments and errors are those of `results`.
    """
    return Leaderboard(opened(str(db), _filter(**asked))[1])


def _filter(
    dataset: str | None = None,
    methods: Sequence[str] | str = (),
    seeds: Sequence[int] | int = (),
    since: str = "",
    where: Any = (),
) -> Filter:
    words = where.items() if isinstance(where, dict) else map(pair, where)
    return Filter(
        dataset=dataset,
        methods=(methods,) if isinstance(methods, str) else tuple(methods),
        seeds=(seeds,) if isinstance(seeds, int) else tuple(seeds),
        since=_since(since) if since else "",
        where=tuple((name, str(value)) for name, value in words),
    )


_since = since  # the name is also that of an argument


@dataclass(frozen=True, repr=False)
class Leaderboard:
    """A view of results with its tables; prints as text and renders in a notebook."""

    view: View

    def tables(self) -> list[Table]:
        """One table for each data set and protocol."""
        return [sections.ledger(section) for section in self.view.sections]

    def frame(self) -> Any:
        """Every cell as a row of a pandas DataFrame: means, deviations, seeds, fingerprint.

        Column `nfe` is as in `results`.
        """
        import pandas

        frame = pandas.DataFrame(text.records(self.view.sections), columns=text.FIELDS)
        levels = frame["nfe"].map(lambda nfe: {"run": None, "auto": ADAPTIVE}.get(nfe, nfe))
        frame["nfe"] = levels.astype("Int64")
        return frame.astype({"sd": float, "sampling_sd": float})

    def __repr__(self) -> str:
        return terminal.plain(self.tables())

    def _repr_html_(self) -> str:
        return "".join(map(_html, self.tables()))


def _html(table: Table) -> str:
    """A table for a notebook: it brings no style of its own."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_strong(cell.words, cell.best)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    caption = f"<caption>{html.escape(table.title)}</caption>"
    body = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return body + (f"<ul>{notes}</ul>" if notes else "")


def _strong(words: str, best: bool) -> str:
    escaped = html.escape(words)
    return f"<strong>{escaped}</strong>" if best else escaped
