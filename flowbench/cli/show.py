"""`flowbench show`: everything that is stored about one run."""

import click

from flowbench.cli import words


@click.command()
@click.argument("run")
@words.database
def show(run, db) -> None:
    """Show RUN (a name, an attempt's number, or the start of either's key)."""
    from flowbench.records import RUN_LEVEL
    from flowbench.report.layout import plain
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    spec = store.find(run)
    click.echo(
        f"{spec.name}\n  key {spec.key}\n  {spec.variant} on {spec.dataset}, seed {spec.seed}"
    )
    click.echo(f"  {spec.budget.steps} steps of {spec.budget.batch}; method from {spec.version}")
    click.echo(f"  data {spec.data}\n  code {spec.code}\n  teacher {spec.teacher or '-'}")
    click.echo("  options " + " ".join(f"{k}={v}" for k, v in spec.options.items()))
    tried = [attempt for attempt in store.tried(spec.dataset) if attempt.run == spec.name]
    for attempt in tried:
        line = f"attempt {attempt.number} (generation {attempt.generation}): {attempt.outcome}"
        click.echo(f"{line}, {attempt.started} to {attempt.ended or '-'} {attempt.error}".rstrip())
    surroundings = store.environment(tried[-1].environment) if tried else {}
    facts = [f"{k} {v}" for k, v in surroundings.items() if k != "packages" and v]
    click.echo("environment: " + ", ".join(facts))
    click.echo("scores:")
    for row in store.measured(spec.dataset):
        if row.run == spec.name:
            score = row.score
            at = "" if score.nfe == RUN_LEVEL else f" @ {score.nfe or 'auto'}"
            floor = "floor " if score.subject == "floor" else ""
            n = f"  n = {score.n}" if score.n else ""
            click.echo(f"  {floor}{score.name}{at}: {plain(score.value)}{n}")
    click.echo("files:")
    for file in store.artifacts(spec.name):
        click.echo(f"  {file.role}: {file.path} ({file.bytes} bytes, sha256 {file.sha256[:16]})")
