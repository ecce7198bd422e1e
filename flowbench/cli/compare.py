"""`flowbench compare`: methods side by side, and whether one is really better."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flowbench.cli import filters, gates, tables, words
from flowbench.records import FlowbenchError, RunFailed

PICTURE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("methods", nargs=-1, type=words.Name("method"))
@click.option("--nfe", type=words.NFE, help="Columns.  [default: all that were measured]")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAMES",
    help="With commas, or several times; all: every one.  [default: the headlines]",
)
@click.option("--sort", metavar="COLUMN", help="Best first, by METRIC or METRIC@NFE.")
@click.option(
    "--baseline",
    metavar="METHOD",
    help="Say of every other row whether it is better or worse: a method, or a row's name.",
)
@click.option(
    "--fail-on",
    metavar="WORDS",
    help="Exit with 6 if a verdict is one of these: worse, or worse,tie; with 5 if one is open.",
)
@click.option("--allow-mixed", is_flag=True, help="Show rows that do not compare, apart.")
@click.option(
    "--sheet",
    type=PICTURE,
    help="Also draw a PNG: a row of samples per method, the same noise in each column.",
)
@click.option(
    "--figure",
    type=PICTURE,
    help="Also draw a panel: a row per method with its samples, trajectories and field.",
)
@click.option(
    "--suite",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The runs of this file and no others, and whether its expectations are met.",
)
@click.option("--strict", is_flag=True, help="Of a suite: exit with 3 unless all is met.")
@click.option("--token", is_flag=True, help="Of a suite: what `run --token` has made of it.")
@words.feature_weights
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "latex"]),
    default="table",
    show_default=True,
)
@filters.options
@words.runs
@words.data_root
@words.database
def compare(asked, metrics, figure, suite, strict, token, feature_weights, **given) -> None:
    """Compare METHODS: one table a data set, mean ± standard deviation over seeds, best in bold.

    Rows rank together only where their fingerprints agree: data, samples, budget, protocol.
    """
    metrics = [name for some in metrics for name in some.split(",")]
    place = {name: given.pop(name) for name in ("folder", "data_root", "db")}
    gate = gates.read(given.pop("fail_on"), given["baseline"], asked.methods, suite)
    its = {"token": token, "feature_weights": feature_weights}
    if suite is not None:
        store, rows, met, judged = _suite(suite, asked, metrics, place, its, given)
    elif strict or any(its.values()):
        raise FlowbenchError("--strict belongs to --suite, as do --token and --feature-weights")
    else:
        met, (store, rows, judged) = True, _compared(asked, metrics, place, given)
    if figure:
        from flowbench.cli import pictures

        folder = words.runs_folder(place["db"], place["folder"])
        pictures.figure(store, rows, folder, place["data_root"], "cpu", figure)
    if strict and not met:
        raise RunFailed(f"not every expectation of {suite} is met")
    if gate:
        gates.check(gate, judged)


def _suite(path, asked, metrics, place, its, given) -> tuple[Any, Any, bool, list]:
    """Print the tables and verdicts of a suite: store, rows, whether all are met, judged pairs."""
    from flowbench.cli import suite as suites

    if asked != type(asked)() or any(given[name] for name in ("sheet", "sort", "allow_mixed")):
        raise FlowbenchError("--suite says what to compare: METHODS, filters and --sort do not")
    setup = suites.looking(place["data_root"], its["feature_weights"])
    form = (given["form"], given["baseline"], its["token"])
    return suites.compare(path, place["db"], setup, metrics, given["nfe"] or (), *form)


def _compared(asked, metrics, place, given) -> tuple[Any, list, list]:
    """Print a table for each section; returns the store, label and run of each row, verdicts."""
    from flowbench.comparison import refusal
    from flowbench.report import judgement

    store, found = tables.opened(place["db"], asked)
    tables.check_metrics(found.sections, metrics)
    names = {id(section): tables.chosen_metrics(section, metrics) for section in found.sections}
    shown = [s for s in found.sections if names[id(s)] or not metrics]
    if not given["allow_mixed"]:
        refusal.check(shown, _by_dataset(shown, names), given["nfe"], unasked=not metrics)
    baseline = given["baseline"] or (asked.methods[0] if len(asked.methods) > 1 else None)
    against = judgement.judging(shown, baseline, given["baseline"] is not None)
    made: list[Any] = []
    judged: list[Any] = []
    catalogue = tables.catalogues()
    for section, groups in zip(shown, _ordered(shown, given["sort"]), strict=True):
        mine = names[id(section)]
        made += _tables(section, groups, mine, given["nfe"], asked.methods, catalogue)
        if baseline and any(section is other for other in against):
            table, some = _verdicts(section, mine, given["nfe"], baseline)
            made, judged = [*made, *table], [*judged, *some]
    _print([*made, *_failures(found, shown)], given["form"])
    if given["sheet"]:
        from flowbench.cli import pictures

        folder = words.runs_folder(place["db"], place["folder"])
        pictures.sheet(store, shown, given["nfe"], folder, given["sheet"])
    return store, [(g.label, g.spec) for section in shown for g in section.groups], judged


def _by_dataset(sections, names: Mapping[int, list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for section in sections:
        mine = found.setdefault(section.dataset, [])
        mine += [name for name in names[id(section)] if name not in mine]
    return found


def _ordered(sections, word: str | None) -> list[list[Any]]:
    """The rows of each section as `--sort` asks for them."""
    from flowbench.comparison import ranking

    return ranking.sorted_by(sections, word) if word else [s.groups for s in sections]


def _tables(section, groups, names: Sequence[str], nfes, methods, catalogue) -> list[Any]:
    """The table of a section, and the papers' numbers beside ours where there are any."""
    from flowbench.comparison import published
    from flowbench.comparison.naming import named
    from flowbench.report import reproduction, sections

    remark, _, entry = catalogue(section.dataset)
    shown = [named(name, section.n) for name in names]
    table = sections.matrix(section, shown, nfes, methods, entry, remark, groups)
    beside = reproduction.table(section, published.rows())
    return [table] if beside is None else [table, beside]


def _verdicts(section, names, nfes, baseline: str) -> tuple[list[Any], list[Any]]:
    """The table of verdicts on all rows but the baseline, and the verdicts."""
    from flowbench.report import judgement

    judged = judgement.against(section, baseline, names, nfes)
    return [judgement.table(section, judged)] if judged else [], judged


def _failures(found, shown) -> list[Any]:
    """Runs that failed on data sets of which nothing is shown, where their reasons would stand."""
    from flowbench.report import failures

    seen = {section.dataset for section in shown}
    table = failures.table([t for t in found.failed if t.spec.dataset not in seen])
    return [] if table is None else [table]


def _print(made: Sequence[Any], form: str) -> None:
    from flowbench.report import latex, terminal, text

    if form == "table":
        terminal.show(made)
    else:
        click.echo({"md": text.markdown, "latex": latex.latex}[form](made), nl=False)
