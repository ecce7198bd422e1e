"""`flowbench compare --suite`: the tables and verdicts of all cells of a file."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words
from flowbench.records import FlowbenchError


def refuse(ctx: click.Context, names: Sequence[str]) -> None:
    """Raise FlowbenchError for options that the suite's file decides."""
    given = [
        parameter
        for parameter in ctx.command.params
        if parameter.name in names
        and ctx.get_parameter_source(parameter.name) == click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        word = given[0].opts[-1]
        word = "METHOD" if isinstance(given[0], click.Argument) else word
        raise FlowbenchError(f"--suite says what to run: change its file instead of giving {word}")


def compare(
    path: Path,
    db: str,
    setup: Any,
    metrics: Sequence[str],
    nfes: Sequence[int],
    form: str,
    baseline: str | None = None,
    token: bool = False,
) -> tuple[Any, list[tuple[str, Any]], bool, list[Any]]:
    """Print a suite's tables and verdicts: store, rows, whether all are met, against `baseline`.

    A row is a label with the Spec of its lowest seed. Runs are those that today's code, data and
    options lead to; others in the database have no part in it.
    """
    from flowbench import suites
    from flowbench.store import Store

    suite, store = suites.read(path, token), Store.open_existing(words.url(db))
    results = _results(suite, store, setup)
    tables = [results.table(name, metrics, nfes) for name in suite.datasets]
    judged: list[Any] = []
    for dataset in suite.datasets if baseline else ():
        table, some = _judged(results, dataset, baseline, metrics, nfes)
        tables, judged = [*tables, *table], [*judged, *some]
    verdicts = results.verdicts()
    _show(tables, verdicts, form)
    met = all(verdict.word == "met" for verdict in verdicts)
    return store, results.rows(), met, judged


def _judged(results, dataset: str, baseline, metrics: Sequence[str], nfes: Sequence[int]):
    """The table of verdicts against a row of the suite on one data set, and the verdicts."""
    from flowbench.cli.tables import chosen_metrics
    from flowbench.report import judgement

    section = results.sections([e for e in results.entries if e.dataset == dataset])[False]
    names = chosen_metrics(section, metrics or results.suite.head.columns)
    judged = judgement.against(section, baseline, names, nfes)
    return [judgement.table(section, judged)] if judged else [], judged


def _show(tables: Sequence[Any], verdicts: Sequence[Any], form: str) -> None:
    """Print tables and verdicts for a terminal, as Markdown or as LaTeX."""
    from flowbench.report import latex, terminal, text
    from flowbench.report import suite as report

    if form != "table":
        judged = [report.verdict_table(verdicts)] if verdicts else []
        render = {"md": text.markdown, "latex": latex.latex}[form]
        click.echo(render([*tables, *judged]), nl=False)
        return
    terminal.show(tables)
    for line in report.verdict_lines(verdicts) if verdicts else []:
        click.echo(line)


def looking(data_root: Path | None, losses: tuple[str, ...]) -> Any:
    """The setup of a look at what is stored."""
    from flowbench.planning import Setup

    return Setup(data_root=data_root, weights=words.pretrained(losses=losses))


def _results(suite, store, setup):
    """What the database holds of each cell, matched by the key of its run."""
    from flowbench import agenda, plugins, runner
    from flowbench.comparison.opening import goals
    from flowbench.report.suite import Entry, Results

    tasks = agenda.tasks(suite, setup)
    measured, tried = defaultdict(list), defaultdict(list)  # by the key of the run
    for name in suite.datasets:
        for row in store.measured(name):
            measured[row.spec.key].append(row)
        for attempt in store.tried(name):
            tried[attempt.spec.key].append(attempt)
    entries = [
        Entry(
            task.cell.row.label,
            task.plan.spec,
            frozenset(runner.expected(task.plan, setup)),
            tuple(measured[task.key]),
            tuple(tried[task.key]),
            task.plan.protocol.seed,
        )
        for task in tasks
    ]
    remarks = {name: entry.remark for name, entry in plugins.datasets().items()}
    return Results(suite, entries, goals(), remarks, store.environments())
