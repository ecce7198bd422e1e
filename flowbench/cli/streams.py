"""Input and outputs of the process: closed, broken, full or of few letters, they end no run."""

import codecs
import io
import os
import select
import sys
from typing import Any

import click

STREAMS = ("stdin", "stdout", "stderr")


class Output(io.RawIOBase):
    """A descriptor whose reader may go away: what comes after that is dropped, without an error."""

    def __init__(self, descriptor: int):
        super().__init__()
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        """Write some of the content; returns how many bytes."""
        while True:
            try:
                return os.write(self.descriptor, content)
            except BlockingIOError:  # somebody else made the pipe one that does not wait
                select.select([], [self.descriptor], [])
            except BrokenPipeError:
                _discard(self.descriptor)
                return memoryview(content).nbytes


def _discard(descriptor: int) -> None:
    """Let all that is written from now on go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def secure() -> None:
    """Make the standard streams of this process such that no command fails because of them.

    A closed one would give its number to the next file, such as the database, and whatever a
    library prints would go there. Letters that an output does not know are written as `?` on a
    terminal, and elsewhere as `\\xe9`.
    """
    if os.name != "posix":
        return
    for number in range(len(STREAMS)):
        try:
            os.fstat(number)
        except OSError:  # it is closed, and the lowest number that is free
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _output(sys.stdout, 1), _output(sys.stderr, 2)


def _output(before: Any, descriptor: int) -> Any:
    raw = Output(descriptor)
    encoding = "utf-8" if before is None else before.encoding
    errors = "replace" if raw.isatty() else "backslashreplace"
    if codecs.lookup(encoding).name == "utf-8":
        errors = "surrogateescape"  # names of files as they are
    live = descriptor == 2 or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors, line_buffering=live, write_through=live
    )


def tell(text: str) -> None:
    """Say something on the way, on standard error; nobody waits for a reader who does not read."""
    if _free(sys.stderr):
        click.echo(text, err=True)


def _free(stream: Any) -> bool:
    """Whether a line can be written at once."""
    try:
        return bool(select.select([], [stream.fileno()], [], 0)[1])
    except (OSError, ValueError, AttributeError):  # no file of the system: nothing to wait for
        return True
