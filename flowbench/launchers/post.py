"""What a job says on its way, through a file that its node and the driver both see."""

import base64
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Begun:
    """A job has begun to run, on that host."""

    host: str


@dataclass(frozen=True)
class Paused:
    """A job has stored where it is, because it was asked to end."""


def send(path: str, message: Any) -> None:
    """Add a message as a line; a file that cannot be written costs no more than that."""
    line = base64.b64encode(pickle.dumps(message))
    try:
        with open(path, "ab") as file:
            file.write(b"\n" + line + b"\n")  # the first ends what a full disk has cut short
    except OSError:
        pass  # the scores are what counts


class Box:
    """The driver's end of it."""

    def __init__(self, path: Path):
        self.path, self._at = path, 0

    def new(self) -> Iterator[Any]:
        """The messages since the last look.

        One that is not yet whole is left for the next, one that is damaged is passed over.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        found = map(_message, whole.split(b"\n"))
        yield from (message for message in found if message is not None)


def _message(line: bytes) -> Any:
    """What was sent as this line; None for none, and for one that is damaged."""
    try:
        return pickle.loads(base64.b64decode(line, validate=True)) if line else None
    except Exception:  # a damaged pickle raises anything
        return None
