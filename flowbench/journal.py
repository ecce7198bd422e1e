"""The journal of each run, always on: what happened when, one line of JSON for an event."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowbench.events import Begun, Event
from flowbench.hookspecs import hookimpl
from flowbench.records import Score, Spec

FILE = "journal.jsonl"


@hookimpl
def observe(spec: Spec, event: Event, folder: Path) -> None:
    """Append the event, with the time in UTC; numbers that are not finite become null."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    parts = {"time": now, "event": type(event).__name__.lower(), **_fields(spec, event)}
    _append(folder / FILE, (json.dumps(_finite(parts), allow_nan=False) + "\n").encode())


def _fields(spec: Spec, event: Event) -> dict[str, Any]:
    if isinstance(event, Score):
        parts = event._asdict() | {"fingerprint": event.fingerprint}
        del parts["protocol"]  # the database has it, under the fingerprint
        return parts
    run = {"run": spec.name, "version": spec.version} if isinstance(event, Begun) else {}
    return asdict(event) | run


def _finite(parts: dict[str, Any]) -> dict[str, Any]:
    lost = [n for n, v in parts.items() if isinstance(v, float) and not math.isfinite(v)]
    return parts | dict.fromkeys(lost)


def _append(path: Path, line: bytes) -> None:
    """Write a whole line, on a line of its own where a crash has torn the last one."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a journal in their order; torn lines and those of others are left out."""
    for line in path.read_bytes().split(b"\n"):
        try:
            parts = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(parts, dict) and "event" in parts:
            yield parts
