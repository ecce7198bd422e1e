"""`flowbench compare` and `flowbench report`: tables from the database."""

from pathlib import Path

import click

from flowbench.cli import words
from flowbench.records import Dataset, FlowbenchError, RunFailed


@click.command()
@click.argument("methods", nargs=-1, type=words.Name("method"))
@click.option("--dataset", type=words.Name("dataset"), help="Only this one.  [default: all]")
@click.option("--nfe", type=words.NFE, help="Columns.  [default: all that were measured]")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAMES",
    help="With commas, or several times; all: every one.  [default: the headlines]",
)
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also draw a PNG: a row of samples per method, the same noise in each column.",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
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
    type=click.Choice(["table", "md"]),
    default="table",
    show_default=True,
)
@words.runs
@words.data_root
@words.database
def compare(methods, suite, figure, strict, metrics, folder, data_root, db, **asked) -> None:
    """Compare METHODS: one table a data set, mean ± standard deviation over seeds, best in bold."""
    metrics, met = [name for some in metrics for name in some.split(",")], True
    its = {name: asked.pop(name) for name in ("token", "feature_weights")}
    if suite is not None:
        store, rows, met = _suite(suite, methods, db, data_root, metrics, **asked, **its)
    elif strict or any(its.values()):
        raise FlowbenchError("--strict belongs to --suite, as do --token and --feature-weights")
    else:
        store, rows = _compared(db, methods, metrics, folder, **asked)
    if figure:
        from flowbench.cli import pictures

        pictures.figure(store, rows, words.runs_folder(db, folder), data_root, "cpu", figure)
    if strict and not met:
        raise RunFailed(f"not every expectation of {suite} is met")


def _suite(
    suite, methods, db, data_root, metrics, dataset, nfe, sheet, form, token, feature_weights
):
    """Print the tables and verdicts of a suite; returns store, rows, and whether all are met."""
    from flowbench.cli import suite as suites

    if methods or dataset or sheet:
        raise FlowbenchError("--suite says what to compare: METHODS, --dataset, --sheet do not")
    setup = suites.looking(data_root, feature_weights)
    return suites.compare(suite, db, setup, metrics, nfe or (), form, token)


def _compared(db: str, methods, metrics, folder, dataset, nfe, sheet, form: str):
    """Print a table for each section; returns the store, and label and run of each row."""
    from flowbench.report import layout, terminal, text

    store, found, over = _sections(db, dataset, methods)
    joined = {(section.dataset, section.data, section.n) for section in over}
    found = [s for s in found if (s.dataset, s.data, s.n) not in joined] + over
    tables = []
    for section in found:
        remark, order, entry = catalogue(section.dataset)
        names = _names(section, metrics, order)
        tables.append(layout.matrix(section, names, nfe, methods, entry, remark))
    if form == "md":
        click.echo(text.markdown(tables), nl=False)
    else:
        terminal.show(tables)
    if sheet:
        _draw(store, found, nfe, words.runs_folder(db, folder), sheet)
    return store, [(group.label, group.spec) for section in found for group in section.groups]


@click.command()
@click.option("--dataset", type=words.Name("dataset"), help="Only this one.  [default: all]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file.  [default: print]",
)
@words.database
def report(dataset, form, output, db) -> None:
    """Every method at every NFE with all its metrics and costs: the leaderboard."""
    from flowbench.report import terminal, text

    _, found, over = _sections(db, dataset, ())
    found += over
    if form == "table" and output is None:
        terminal.show(map(ledger, found))
        return
    if form in ("csv", "json"):
        content = {"csv": text.as_csv, "json": text.as_json}[form](found)
    else:
        content = text.markdown(map(ledger, found))
    if output is None:
        click.echo(content, nl=False)
    else:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(content, encoding="utf-8")
        except OSError as error:
            raise FlowbenchError(f"{output} cannot be written: {error}") from error
        click.echo(f"wrote {output}", err=True)


def _sections(db: str, dataset: str | None, methods):
    """The store, its sections, and those over several noise streams.

    Raises FlowbenchError where nothing fits.
    """
    from flowbench import compare, options, plugins, streams
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    measured = store.measured(dataset)
    known = {row.spec.method for row in measured} | set(plugins.methods())
    for name in methods:
        options.choose("method", name, sorted(known))
    if dataset is not None:
        options.choose(
            "data set", dataset, {*plugins.datasets(), *(r.spec.dataset for r in measured)}
        )
    chosen = [row for row in measured if not methods or row.spec.method in methods]
    tried = [row for row in store.tried(dataset) if not methods or row.spec.method in methods]
    found = compare.sections(chosen, tried, goals())
    if not found:
        raise FlowbenchError(_nothing(db, dataset, methods, tried))
    return store, found, streams.sections(chosen, found, goals())


def _nothing(db: str, dataset: str | None, methods, tried) -> str:
    what = f"flowbench run {methods[0] if methods else 'METHOD'} --dataset {dataset or 'DATASET'}"
    failed = [
        f"{t.run}: {t.outcome} {t.error}" for t in tried if t.outcome not in ("ok", "running")
    ]
    more = f" (tried: {'; '.join(failed)})" if failed else ""
    return f"{db} has no such scores{more}; measure some with: {what}"


def ledger(section):
    """The table of `report` for a section, with what the catalogues say of its data set."""
    from flowbench.report import layout

    remark, order, _ = catalogue(section.dataset)
    return layout.ledger(section, remark, order)


def goals() -> dict[str, str]:
    """The goal of each installed metric."""
    from flowbench import plugins

    return {metric.name: metric.goal for metric in plugins.metrics()}


def catalogue(dataset: str):
    """What the catalogues say of a data set: remark, order of the metrics, its entry."""
    from flowbench import plugins

    entry: Dataset | None = plugins.datasets().get(dataset)
    order = [metric.name for metric in plugins.metrics()]
    return (entry.remark if entry else "", order, entry)


def _names(section, metrics, order) -> list[str]:
    """The metrics to show; raises FlowbenchError for one that was not measured."""
    from flowbench import options
    from flowbench.compare import HEADLINES, OTHERWISE, named

    known = [*section.metrics, *section.facts]
    metrics, order = ([named(name, section.n) for name in some] for some in (metrics, order))
    if not metrics:
        names = [n for n in (named(name, section.n) for name in HEADLINES) if n in known]
        return names if set(names) - {"S"} else [name for name in OTHERWISE if name in known]
    if "all" in metrics:
        return [name for name in order if name in known]
    return [options.choose("metric", name, known) for name in metrics]


def _draw(store, sections, nfe, folder: Path, sheet: Path) -> None:
    """Write the sheet of all sections whose samples are images."""
    from flowbench.report import sheet as drawing

    rows = []
    for section in sections:
        for asked in nfe or section.nfes:
            for group in section.groups:
                role = f"samples-nfe{asked or 'auto'}"
                files = [a for a in store.artifacts(group.spec.name) if a.role == role]
                if files:
                    samples = drawing.images(folder / files[-1].path, 20)
                    if samples is not None:
                        rows.append((f"{group.label}, NFE {asked or 'auto'}", samples))
    drawing.draw(rows, sheet)
    click.echo(f"wrote {sheet}", err=True)
