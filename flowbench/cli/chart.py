"""`flowbench chart`: one figure for a paper, from the database."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flowbench.cli import filters, tables, words
from flowbench.records import RUN_LEVEL, FlowbenchError

COSTS = {"time": "ms-per-sample", "cost": "train-seconds", "images": "train-images"}
KINDS = ("quality", *COSTS, "straightness", "training")
WHOLE = ("cost", "images")  # of whole runs, so drawn at one NFE
LONE = ("straightness", "training")  # which take no metric and no NFE


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("methods", nargs=-1, type=words.Name("method"))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A name that ends in .svg, .png, .pdf, or .json for the Vega-Lite specification.",
)
@click.option("--metric", help="Of quality, time, cost and images.  [default: the first headline]")
@click.option("--nfe", type=words.NFE, help="Only these; of cost and images, one.  [default: all]")
@click.option("--table", type=click.IntRange(1), help="Where several tables fit: this one.")
@filters.options
@words.runs
@words.database
def chart(kind, output, metric, nfe, table, asked, folder, db) -> None:
    """Draw one chart of a data set, with METHODS or all.

    \b
    quality       a metric by number of evaluations
    time          a metric by milliseconds per sample
    cost, images  a metric by training seconds, images; a teacher's are included
    straightness  S of each method
    training      the loss while the networks were trained
    """
    from flowbench.report.charts import export

    export.check(output)
    if kind in LONE and (metric or nfe):
        raise FlowbenchError(f"{kind} takes neither --metric nor --nfe")
    store, found = tables.opened(db, asked)
    section = _one(found.sections, table, asked)
    if kind in LONE:
        made = _of_runs(kind, store, section, words.runs_folder(db, folder))
    else:
        made = _of_metric(kind, section, metric, nfe or ())
    if made is None:
        raise FlowbenchError(
            f"there is nothing to draw: {_name(section)} has no numbers for {kind}"
        )
    export.save(made, output)
    click.echo(f"wrote {output}", err=True)


def _one(sections: Sequence[Any], table: int | None, asked: Any) -> Any:
    """The section to draw; raises FlowbenchError with all of them where it is not clear."""
    if len(sections) == 1 or (table and table <= len(sections)):
        return sections[(table or 1) - 1]
    if not sections:
        raise FlowbenchError("there is nothing to draw: no run that fits has scores")
    names = "; ".join(f"{i} {_name(section)}" for i, section in enumerate(sections, 1))
    ways = "--where or --table NUMBER" if asked.dataset else "--dataset, --where or --table NUMBER"
    raise FlowbenchError(f"{len(sections)} tables fit ({names}): choose one with {ways}")


def _name(section: Any) -> str:
    """A section in a few words that tell it from the others."""
    what = [section.dataset, f"{section.n} samples", section.budget]
    what += [f"protocol {section.part + 1}"] if section.part else []
    return ", ".join(word for word in what if word)


def _of_runs(kind: str, store: Any, section: Any, folder: Path) -> Any:
    from flowbench.report.charts import dots, training

    if kind == "straightness":
        return dots.straightness(section)
    logs = training.read(store, section, folder)
    if not any(logs.values()):
        raise FlowbenchError(
            f"no run of {_name(section)} has a training log in {folder}: it is written by"
            " `flowbench run` and found with --runs"
        )
    return training.training(section, logs)


def _of_metric(kind: str, section: Any, asked: str | None, nfes: Sequence[int]) -> Any:
    from flowbench.report.charts import pareto, quality

    metric = _metric(section, asked)
    if kind in WHOLE and len(nfes) > 1:
        raise FlowbenchError(f"{kind} is drawn at one --nfe, not at {len(nfes)}")
    _there(section, metric, nfes)
    if kind in WHOLE:
        nfe = nfes[0] if nfes else pareto.usual(section, metric)
        made = pareto.pareto(section, metric, COSTS[kind], nfe=nfe)
        nfes = [] if nfe is None else [nfe]
    else:
        cells = {key: cell for key, cell in section.cells.items() if not nfes or key[2] in nfes}
        some = replace(section, cells=cells)
        many = kind == "quality"
        made = quality.quality(some, metric) if many else pareto.pareto(some, metric, COSTS[kind])
    if made is not None and nfes:
        _tell(section, metric, nfes)
    return made


def _there(section: Any, metric: str, nfes: Sequence[int]) -> None:
    """Raise FlowbenchError where NFEs are asked for and a metric has no number at any."""
    known = {nfe for _, name, nfe in section.cells if name == metric and nfe != RUN_LEVEL}
    if nfes and known and known.isdisjoint(nfes):
        raise FlowbenchError(f"no numbers at --nfe {_named(nfes)}: there are {_named(known)}")


def _tell(section: Any, metric: str, nfes: Sequence[int]) -> None:
    """Name the rows that a chart at these NFEs leaves out."""
    from flowbench.report.charts.words import short

    labels = [group.label for group in section.groups]
    gone = [one for one in labels if not any((one, metric, nfe) in section.cells for nfe in nfes)]
    if gone:
        names = ", ".join(short(gone).values())
        click.echo(f"left out, since without {metric} @ {_named(nfes)}: {names}", err=True)


def _named(nfes: Iterable[int]) -> str:
    """Numbers of evaluations, an adaptive solver's last."""
    return ", ".join(str(nfe or "auto") for nfe in sorted(nfes, key=lambda nfe: nfe or math.inf))


def _metric(section: Any, asked: str | None) -> str:
    """The metric as the section calls it; raises FlowbenchError for one that is not there."""
    from flowbench.comparison.naming import named

    if asked == "all":
        raise FlowbenchError("a chart has one metric: name it with --metric")
    tables.check_metrics([section], [asked] if asked else [])
    chosen = tables.chosen_metrics(section, [asked] if asked else [])
    names = [named(name, section.n) for name in chosen]
    found = [name for name in names if name not in section.facts]
    if asked and not found:
        raise FlowbenchError(f"{asked} is a number of a whole run: S is in `chart straightness`")
    ranked = [key[1] for key, cell in section.cells.items() if cell.goal]
    found = [name for name in found if asked or name in ranked]
    if not found:
        raise FlowbenchError(f"{_name(section)} has no metric to draw: name one with --metric")
    return found[0]
