"""The flowbench command: parse, call, print. Nothing slow is imported before it is needed."""

import os
from importlib import import_module
from keyword import iskeyword

import click

from flowbench.records import FlowbenchError

COMMANDS = {
    "run": "run",
    "pairs": "pairs",
    "compare": "compare",
    "report": "report",
    "chart": "chart",
    "published": "published",
    "show": "show",
    "why": "why",
    "reproduce": "reproduce",
    "export": "bundle",
    "merge": "bundle",
    "methods": "lists",
    "datasets": "lists",
    "networks": "lists",
    "data": "data",
    "ref": "ref",
    "weights": "weights",
    "import": "imports",
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
  5  nothing that compares: the numbers differ in their fingerprints, or there are none
  6  a check failed: --fail-on found such a verdict, reproduce found other numbers
"""


class Failure(click.ClickException):
    """A FlowbenchError on its way to the user: one line, a documented exit code, no traceback."""

    def __init__(self, error: FlowbenchError):
        # It may quote words of strangers, which a terminal would take for commands.
        super().__init__("".join(c if c.isprintable() else "?" for c in str(error)))
        self.exit_code = error.exit_code  # type: ignore[misc]


class Commands(click.Group):
    """Imports the module of a command when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        function = f"{name}_" if iskeyword(name) else name
        return getattr(import_module(f"flowbench.cli.{COMMANDS[name]}"), function)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FlowbenchError as error:
            raise Failure(error) from error
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on from the last checkpoint", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flowbench")
def cli() -> None:
    """Benchmark few-step generative models fairly: every evaluation is counted."""


def main() -> None:
    """Run the command line."""
    # Threads of libgomp that wait for each other spin for milliseconds by default. Where other
    # programs use the same cores, that makes training several times slower; this wait is shorter.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    cli()
