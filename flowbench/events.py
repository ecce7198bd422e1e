"""What happens in a run, as observers hear of it: it begins, a loss, a score, how it ends."""

from dataclasses import dataclass

from flowbench.records import Score


@dataclass(frozen=True)
class Begun:
    """An attempt at a run begins: the first is 1, those that go on count on.

    `generation` grows with every `--force`, which trains anew.
    """

    attempt: int
    generation: int = 1


@dataclass(frozen=True)
class Point:
    """The mean loss of a stage since the point before, NaN where it was not finite.

    `step` and `images` count from the start of the stage, `seconds` over all attempts at it.
    """

    stage: str
    step: int
    images: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Ended:
    """An attempt has ended: `outcome` is ok, failed, diverged or interrupted (`records.Tried`)."""

    outcome: str
    error: str = ""


Event = Begun | Point | Score | Ended
