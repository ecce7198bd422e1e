"""`flowbench doctor`: versions, device, data and plugins, and what is wrong with them."""

import click

from flowbench.cli import words

PACKAGES = [
    *["torch", "torchvision", "click", "pluggy", "sqlalchemy", "alembic", "clean-fid"],
    *["torch-fidelity", "rich", "lpips", "pot", "torchdiffeq", "scikit-learn", "pydantic"],
    *["safetensors", "numpy", "scipy", "matplotlib", "timm", "requests"],
]


@click.command()
@words.data_root
@words.database
def doctor(data_root, db) -> None:
    """Look at versions, device, data and plugins; exits with 3 if something is broken."""
    from importlib.metadata import version

    from flowbench import environment
    from flowbench.records import RunFailed

    click.echo(f"flowbench {version('flowbench')}, git {environment.git_state() or '-'}")
    for package in PACKAGES:
        click.echo(f"  {package} {_version(package)}")
    device = environment.device("auto")
    click.echo(f"device: {device} ({environment.device_name(device)})")
    found = words.extractors(None, None, False)
    for name in ("inception", "dinov2"):
        click.echo(f"weights of {name}: {found.get(name, 'none; see `flowbench weights list`')}")
    broken = _data(data_root) + _plugins() + _database(db)
    if broken:
        raise RunFailed(f"{broken} broken: see above")


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "missing: install flowbench again"


def _data(root) -> int:
    from flowbench import plugins
    from flowbench.records import Absent, FlowbenchError

    click.echo("data sets:")
    broken = 0
    for name, entry in plugins.datasets().items():
        try:
            found = "ok" if not entry.needs else f"{entry.load(root).train.shape[0]} images found"
        except Absent as error:
            found = f"not here: {error}"
        except FlowbenchError as error:
            found, broken = f"damaged: {error}", broken + 1
        click.echo(f"  {name}: {found}")
    return broken


def _plugins() -> int:
    from flowbench.discovery import listing

    rows = listing.rows()
    click.echo("methods:")
    for row in rows:
        if row.kind == "method":
            click.echo(f"  {row.name}: {row.state} [{row.plugin.origin}]")
    bad = [row for row in rows if row.state not in ("ok", "disabled")]
    for row in bad:
        click.echo(f"{row.state} plugin {row.name} [{row.plugin.origin}]: {row.why}")
    return len(bad)


def _database(db: str) -> int:
    from flowbench.records import Absent, FlowbenchError
    from flowbench.store import Store
    from flowbench.store.engine import Database

    try:
        runs = len({attempt.run for attempt in Store.open_existing(words.url(db)).tried()})
        click.echo(f"database {Database(words.url(db)).place}: {runs} runs")
    except Absent as error:
        click.echo(f"database: {error}")
    except FlowbenchError as error:
        click.echo(f"broken database: {error}")
        return 1
    return 0
