"""`flowbench show`: everything that is stored about one run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words
from flowbench.records import RUN_LEVEL, Score, Spec

PICTURE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("run")
@click.option(
    "--trajectories",
    type=PICTURE,
    help="Also draw noise, samples, trajectories coloured by time, and the field at the start.",
)
@click.option(
    "--samples",
    type=PICTURE,
    help="Also draw the samples: the same noise, a column for each number of evaluations.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@words.runs
@words.data_root
@words.database
def show(run: str, trajectories, samples, device: str, folder, data_root, db: str) -> None:
    """Show RUN: a name, the number of an attempt, or the start of a name or key."""
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    spec = store.find(run)
    if trajectories or samples:
        from flowbench.cli import pictures

        place = (words.runs_folder(db, folder), data_root, device)
        if trajectories:
            pictures.draw_trajectories(store, spec, *place, trajectories)
        if samples:
            pictures.draw_samples(store, spec, *place, samples)
    _print(store, spec)
    for picture in filter(None, (trajectories, samples)):
        click.echo(f"wrote {picture}", err=True)


def _print(store, spec: Spec) -> None:
    """Everything that is stored about a run, as lines."""
    for line in (*_spec(spec), *_attempts(store, spec), *_scores(store, spec)):
        click.echo(line)
    for file in store.artifacts(spec.name):
        click.echo(f"file {file.role}: {file.path} ({file.bytes} bytes, {file.sha256[:16]})")


def _spec(spec: Spec) -> Iterator[str]:
    yield spec.name
    yield f"  {spec.variant} on {spec.dataset}, seed {spec.seed}; method from {spec.version}"
    yield f"  {spec.budget.steps} steps of {spec.budget.batch}"
    yield f"  key {spec.key}\n  data {spec.data}\n  code {spec.code}"
    yield f"  teacher {spec.teacher or 'none'}"
    if spec.setting:
        yield "  setting " + " ".join(
            f"{name}={_flat(value)}" for name, value in spec.setting.items()
        )
    for role, facts in spec.sources.items():
        yield f"  {role} from {' '.join(f'{name}={value!r}' for name, value in facts.items())}"
    yield "  options " + " ".join(f"{name}={value}" for name, value in spec.options.items())


def _flat(value: Any) -> str:
    """The settings of a backbone as one word."""
    if not isinstance(value, dict):
        return str(value)
    return ",".join(f"{name}={part}" for name, part in value.items()).replace(" ", "")


def _attempts(store, spec: Spec) -> Iterator[str]:
    seen = ""
    for attempt in store.tried(spec.dataset):
        if attempt.run == spec.name:
            line = f"attempt {attempt.number} (generation {attempt.generation}): {attempt.outcome},"
            yield f"{line} {attempt.started} to {attempt.ended or '?'} {attempt.error}".rstrip()
            seen = attempt.environment
    facts = [f"{k} {v}" for k, v in store.environment(seen).items() if k != "packages" and v]
    yield "environment of the last: " + ", ".join(facts)


def _scores(store, spec: Spec) -> Iterator[str]:
    from flowbench.report.layout import plain

    for row in store.measured(spec.dataset):
        if row.run == spec.name:
            yield f"score {_name(row.score)}: {plain(row.score.value)}"


def _name(score: Score) -> str:
    floor = "floor of " if score.subject == "floor" else ""
    at = "" if score.nfe == RUN_LEVEL else f" @ {score.nfe or 'auto'}"
    n = f" (n = {score.n})" if score.n else ""
    return f"{floor}{score.name}{at}{n}"
