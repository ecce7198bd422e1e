"""What a job says on its way, through a file that its node and the driver both see."""

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Begun:
    """A job has begun to run, on that host."""

    host: str


@dataclass(frozen=True)
class Paused:
    """A job has stored where it is, because it was asked to end."""


def send(path: str, message: Any) -> None:
    """Add a message; a file that cannot be written costs no more than that."""
    data = pickle.dumps(message)
    try:
        with open(path, "ab") as file:
            file.write(LENGTH.pack(len(data)) + data)
    except OSError:
        pass  # the scores are what counts


class Box:
    """The driver's end of it."""

    def __init__(self, path: Path):
        self.path, self._at = path, 0

    def new(self) -> Iterator[Any]:
        """The messages since the last look; one that is cut short is left for the next."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return
        while len(data) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(data)
            whole = LENGTH.size + size
            if len(data) < whole:
                return
            self._at += whole
            yield pickle.loads(data[LENGTH.size : whole])
            data = data[whole:]
