"""The flowbench command: parse, call, print. Nothing slow is imported before it is needed."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword

import click

from flowbench import disk
from flowbench.cli import doors, guarded, streams
from flowbench.records import FlowbenchError, visible

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
    "plugins": "plugins",
    "check": "check",
    "new": "new",
    "data": "data",
    "ref": "ref",
    "weights": "weights",
    "import": "imports",
    "doctor": "doctor",
    "db": "db",
}
GO_ON = ("run", "pairs", "data", "ref", "weights", "reproduce")  # from what they have kept
INTERRUPTED = 4
UNWRITTEN = 3

EPILOG = """\b
Exit codes:
  0  all that was asked for is there
  1  a defect in flowbench: please report it
  2  the words of the command are wrong; nothing was changed
  3  a run failed or diverged, or a disk is full or read-only; what it had measured is stored
  4  interrupted; the same command goes on from the last checkpoint, if it makes any
  5  nothing that compares: the numbers differ in their fingerprints, or there are none
  6  a check failed: --fail-on found such a verdict, reproduce found other numbers
"""


class Failure(click.ClickException):
    """A FlowbenchError on its way to the user: one line, a documented exit code, no traceback."""

    def __init__(self, error: FlowbenchError):
        super().__init__(visible(str(error)))
        self.exit_code = error.exit_code  # type: ignore[misc]


class Unwritten(click.ClickException):
    """Output or a file that a disk refused, as one line."""

    exit_code = UNWRITTEN

    def __init__(self, error: OSError, words: str):
        output = f"the output cannot be written: {error.strerror}"
        super().__init__(visible(words) if error.filename else output)


@contextmanager
def _room() -> Iterator[None]:
    """Raises Unwritten for a disk that is full, broken or not to be written to."""
    try:
        yield
    except OSError as error:
        found = disk.unwritten(error)
        if found is None:
            raise
        # What is left in the buffer would fail again when the process ends.
        sys.stdout = io.StringIO()
        raise Unwritten(error, str(found)) from error


class Commands(click.Group):
    """Imports the module of a command when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        function = f"{name}_" if iskeyword(name) else name
        return doors.add(getattr(import_module(f"flowbench.cli.{COMMANDS[name]}"), function))

    def make_context(self, *args, **given) -> click.Context:
        with _room():  # --help prints here
            return super().make_context(*args, **given)

    def invoke(self, ctx: click.Context) -> object:
        try:
            _require_place()
            with _room(), guarded.outputs(), doors.told():
                result = super().invoke(ctx)
                sys.stdout.flush()
        except FlowbenchError as error:
            raise Failure(error) from error
        except KeyboardInterrupt:
            more = "; the same command goes on from the last checkpoint"
            click.echo(f"interrupted{more * (ctx.invoked_subcommand in GO_ON)}", err=True)
            ctx.exit(INTERRUPTED)
        return result


def _require_place() -> None:
    """Raise FlowbenchError where the folder of the command is gone, on which paths build."""
    try:
        os.getcwd()
    except OSError:
        raise FlowbenchError(
            "the folder that you are in does not exist any more: cd to another one"
        ) from None


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flowbench")
@click.option(
    "--offline",
    is_flag=True,
    envvar="FLOWBENCH_OFFLINE",
    help="Forbid every connection, but that to the server of --db.",
)
@click.pass_context
def cli(ctx: click.Context, offline: bool) -> None:
    """Benchmark few-step generative models fairly: every evaluation is counted."""
    if offline:
        doors.without_network(ctx)


def main() -> None:
    """Run the command line."""
    # Threads of libgomp that wait for each other spin for milliseconds by default. Where other
    # programs use the same cores, that makes training several times slower; this wait is shorter.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    streams.secure()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends every command as Ctrl-C does
    cli()
