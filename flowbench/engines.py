"""What a crew asks of those that carry out its jobs: begin, say how far it is, end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowbench.execution import Ended


@dataclass(frozen=True)
class Death:
    """How a job ended that did not say so itself.

    `outcome` is what its attempt is recorded as; a `fault` of the machine may pass.
    """

    outcome: str
    words: str
    fault: bool


class Handle(Protocol):
    """A job: `attempt` is there once it has said so, `ended` when it has ended by itself."""

    attempt: int | None
    ended: Ended | None
    overdue: bool
    superseded: bool

    @property
    def queued(self) -> bool:
        """Whether it waits for a place to run at."""
        ...

    @property
    def distant(self) -> bool:
        """Whether it gives its own sign of life, and ends itself at its limit."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it is queued or runs."""
        ...

    def read(self) -> Iterator[Any]:
        """What it has said since the last look; an Ended is its last word."""
        ...

    def limit(self, seconds: float, conclude: Callable[[Any], object]) -> None:
        """End it so long from now; `conclude` stores that before."""
        ...

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        ...

    def death(self) -> Death:
        """How it ended, of one that is not alive and has not said so."""
        ...

    def close(self) -> None:
        """Leave nothing of it behind, now that it has ended."""
        ...


class Engine(Protocol):
    """Where jobs run."""

    def start(self, job: Any, name: str) -> Handle:
        """Begin a job, or hand it to a queue under this name."""
        ...

    def wait(self, handles: Sequence[Any], seconds: float) -> None:
        """Return when one of these may have something to say, at the latest so long from now."""
        ...

    def stop(self, handles: Sequence[Any]) -> None:
        """End them: first they may store where they are."""
        ...
