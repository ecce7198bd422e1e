"""`flowbench run --pdb`: Python's debugger where a plugin failed."""

import pdb
import sys
from typing import Any

import click

from flowbench import blame


class Debugger(pdb.Pdb):
    """Begins in the frame number `at` of a traceback, with those around it `up` and `down`."""

    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def get_stack(self, f: Any, t: Any) -> Any:
        """The frames, and which one to begin in."""
        stack, last = super().get_stack(f, t)
        begin = len(stack) - blame.depth(t) if t is not None else 0
        return stack, min(begin + self.at, last)


def examine(error: BaseException, method: Any) -> None:
    """Let the user look at the frames of an error; needs somebody who types."""
    if sys.stdin is None or sys.stdin.closed:
        click.echo("--pdb: there is nobody to type, so the debugger is left out", err=True)
        return
    click.echo(f"{blame.line(error, method)} (q ends the debugger)", err=True)
    debugger = Debugger(blame.position(error, method))
    debugger.reset()
    debugger.interaction(None, error.__traceback__)
