"""`flowbench run --suite` and `flowbench compare --suite`: all cells of a file at once."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words
from flowbench.records import Absent, FlowbenchError, RunFailed

NAMED = 3  # failures that the last line names


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


def run(
    path: Path,
    narrow: dict[str, Any],
    db: str,
    setup: Any,
    jobs: int | None,
    dry: bool,
    token: bool,
    quiet: bool,
    force: bool,
    named: bool,
) -> None:
    """Do what is missing of a suite; raises RunFailed at the end if a cell failed."""
    from flowbench import agenda, execution, suites, workers
    from flowbench.cli import board

    suite, planned = suites.read(path, token), dataclasses.replace(setup, device="cpu")
    jobs = jobs or (1 if setup.device.startswith("cuda") else workers.cores())
    if dry:
        return _say_plan(suite, planned, narrow, _existing(db), jobs, force)
    threads = max(1, workers.cores() // jobs)
    with execution.terminable(), workers.context(threads) as context:
        tasks = agenda.tasks(suite, planned, **narrow)  # while the server of processes starts
        agenda.look_up(tasks, _created(db, setup.folder, named), force, setup)
        statuses = [_status(task) for task in tasks]
        with board.watcher(quiet, sys.stderr.isatty(), statuses, jobs) as watch:
            _crew(db, setup, force, jobs, threads, watch, context).run(statuses)
    _end(path, statuses, quiet, " --token" if token else "")


def _say_plan(suite, setup, narrow: dict[str, Any], store, jobs: int, force: bool) -> None:
    """Print what there is to do, also where data are not here yet, and what papers published."""
    from flowbench import agenda
    from flowbench.cli import board
    from flowbench.report import suite as report
    from flowbench.report import terminal

    unready: list[agenda.Unready] = []
    tasks = agenda.tasks(suite, setup, **narrow, unready=unready)
    agenda.look_up(tasks, store, force, setup)
    published = report.published_table(suite)
    plan = board.plan_table(tasks, jobs, suite.head.title, unready)
    terminal.show([plan, *([published] if published else [])])


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
    measured = {name: store.measured(name) for name in suite.datasets}
    tried = {name: store.tried(name) for name in suite.datasets}
    entries = [
        Entry(
            task.cell.row.label,
            task.plan.spec,
            frozenset(runner.expected(task.plan, setup)),
            tuple(row for row in measured[task.cell.dataset] if row.spec.key == task.key),
            tuple(t for t in tried[task.cell.dataset] if t.spec.key == task.key),
            task.plan.protocol.seed,
        )
        for task in tasks
    ]
    remarks = {name: entry.remark for name, entry in plugins.datasets().items()}
    return Results(suite, entries, goals(), remarks, store.environments())


def _status(task):
    from flowbench.workers import Status

    word = "waiting" if task.missing else "failed" if task.trouble else "done"
    return Status(task, word, failure=task.trouble)


def _crew(db: str, setup, force: bool, jobs: int, threads: int, watch, context):
    """Who runs the cells, in processes of their own."""
    from flowbench import execution, workers

    own = ("watch", "note", "observe")  # of each process
    fields = [field.name for field in dataclasses.fields(setup) if field.name not in own]
    shared = {name: getattr(setup, name) for name in fields}

    def job(task):
        return execution.Job(task.request, task.key, _url(db), shared, force, threads)

    def made(name: str) -> bool:
        return (setup.folder / name / "network.safetensors").exists()

    return workers.Crew(execution.work, job, jobs, watch, made, context)


def _url(db: str) -> str:
    """The database's URL, whatever the folder of the worker."""
    return words.url(db if "://" in db else str(Path(db).resolve()))


def _existing(db: str):
    """The database, if there is one: a look at it makes none."""
    from flowbench.store import Store

    try:
        return Store.open_existing(_url(db))
    except Absent:
        return None


def _created(db: str, folder: Path, named: bool):
    from flowbench.cli.asking import made_folder
    from flowbench.store import Store

    made_folder(folder, named)
    return Store(_url(db))


def _end(path: Path, statuses, quiet: bool, token: str) -> None:
    """Say how it went; raises RunFailed if a cell failed."""
    failed = [status for status in statuses if status.word == "failed"]
    if failed:
        named = "; ".join(f"{s.task.cell.name}: {s.failure}" for s in failed[:NAMED])
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise RunFailed(f"{len(failed)} of {len(statuses)} runs failed: {named}{more}")
    if not quiet:
        click.echo(
            f"all {len(statuses)} runs are there; see flowbench compare --suite {path}{token}"
        )
