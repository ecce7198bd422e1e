"""`flowbench show`: everything that is stored about one run."""

from collections.abc import Iterator

import click

from flowbench.cli import words
from flowbench.records import RUN_LEVEL, Score, Spec


@click.command()
@click.argument("run")
@words.database
def show(run: str, db: str) -> None:
    """Show RUN: a name, the number of an attempt, or the start of a name or key."""
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    spec = store.find(run)
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
    yield "  options " + " ".join(f"{name}={value}" for name, value in spec.options.items())


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
