"""Broken products, which the matrix has to catch; the victim puts one in place before its life."""

from pathlib import Path
from typing import Any

from crash_places import wrap


def in_place() -> None:
    """Files are written where they belong, not beside and renamed."""

    def make(write: Any) -> Any:
        def wrapped(path: Path, content: bytes) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(content)

        return wrapped

    wrap("flowbench.checkpoints:write", make)


def uncommitted() -> None:
    """Scores are stored when the attempt ends, all at once."""
    waiting: list[tuple[Any, Any]] = []

    def keep(add: Any) -> Any:
        def wrapped(self: Any, score: Any) -> None:
            waiting.append((self, score))

        wrapped.now = add  # type: ignore[attr-defined]
        return wrapped

    def flush(close: Any) -> Any:
        from flowbench.store.attempts import Attempt

        def wrapped(self: Any, *error: Any) -> None:
            for attempt, score in waiting:
                Attempt.add.now(attempt, score)  # type: ignore[attr-defined]
            close(self, *error)

        return wrapped

    wrap("flowbench.store.attempts:Attempt.add", keep)
    wrap("flowbench.store.attempts:Attempt.close", flush)


def step_back() -> None:
    """A stage goes on from the step before the one that its checkpoint is of."""

    def make(read: Any) -> Any:
        def wrapped(self: Any) -> Any:
            state = read(self)
            return state and state | {"step": max(0, state["step"] - 1)}

        return wrapped

    wrap("flowbench.training:Run._read", make)


def reseeded() -> None:
    """What goes on draws other random numbers than what was interrupted would have."""
    wrap("flowbench.training:set_random_state", lambda restore: lambda *given: None)


def from_scratch() -> None:
    """No checkpoint is ever read: all is right in the end, and all work was lost."""
    wrap("flowbench.training:Run._read", lambda read: lambda self: None)


def unrecorded() -> None:
    """How an attempt ended is not stored, unless it went well."""

    def make(close: Any) -> Any:
        return lambda self, error=None: None if error else close(self)

    wrap("flowbench.store.attempts:Attempt.close", make)


def littering() -> None:
    """What was written beside a file stays there."""

    def make(unlink: Any) -> Any:
        return lambda self, **given: None if self.suffix == ".part" else unlink(self, **given)

    wrap("pathlib:Path.unlink", make)
