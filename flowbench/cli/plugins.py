"""`flowbench plugins`: what is installed or lies in files, its state, and why."""

import json

import click

from flowbench.records import visible

KINDS = ("method", "dataset", "network", "metric", "report", "observer", "extension")


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only these.")
@click.option("--why", metavar="NAME", help="Why a plugin is not ok, with its traceback.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def plugins(kind, why, as_json) -> None:
    """List every plugin: name, kind, state, version, distribution and file.

    States: ok; broken; shadowed: two have one name; unavailable: what it needs is missing;
    disabled: by FLOWBENCH_DISABLED=NAME,... or by flowbench.toml. Besides what is installed, the
    files and folders of --plugin, FLOWBENCH_PLUGINS and flowbench.toml are looked at.
    """
    from flowbench.discovery import listing

    rows = [row for row in listing.rows() if kind in (None, row.kind)]
    if why is not None:
        return _why(why, rows)
    if as_json:
        click.echo(json.dumps([_record(row) for row in rows], indent=1))
        return
    _table(rows)


def _why(name: str, rows) -> None:
    """Print all that is known of why a plugin is as it is."""
    from flowbench import options

    options.choose("plugin", name, dict.fromkeys(row.name for row in rows))
    for row in rows:
        if row.name == name:
            click.echo(visible(f"{row.kind} {name} [{row.plugin.origin}] is {row.state}"))
            for text in filter(None, (row.why, row.trace)):
                click.echo("\n".join(map(visible, text.splitlines())))


def _record(row) -> dict[str, str]:
    plugin = row.plugin
    return {
        "name": row.name,
        "kind": row.kind,
        "state": row.state,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "file": str(row.file or ""),
        "why": row.why,
    }


def _table(rows) -> None:
    from flowbench.report import terminal
    from flowbench.report.layout import Table, Text

    names = ("name", "kind", "state", "version", "distribution", "file")
    cells = [[Text(_record(row)[name]) for name in names] for row in rows]
    notes = [f"{row.state}: {row.why}" for row in rows if row.why]
    terminal.show([Table("Plugins", list(names), cells, notes, labels=len(names))])
