"""The flowbench command: parse, call, print. Nothing slow is imported before it is needed."""

import sys
from importlib import import_module

import click

from flowbench.records import FlowbenchError

COMMANDS = {
    "run": "run",
    "compare": "tables",
    "report": "tables",
    "show": "show",
    "methods": "lists",
    "datasets": "lists",
    "doctor": "doctor",
}
INTERRUPTED = 4

EPILOG = """\b
Exit codes:
  0  all that was asked for is there
  1  a defect in flowbench: please report it
  2  the words of the command are wrong; nothing was changed
  3  a run failed or diverged; what it had measured is stored
  4  interrupted; the same command goes on from the last checkpoint
"""


class Commands(click.Group):
    """Imports the module of a command when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return getattr(import_module(f"flowbench.cli.{COMMANDS[name]}"), name)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flowbench")
def cli() -> None:
    """Benchmark few-step generative models fairly: every evaluation is counted."""


def main() -> None:
    """Run the command line and exit with a documented code."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except FlowbenchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("interrupted; the same command goes on from here", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
