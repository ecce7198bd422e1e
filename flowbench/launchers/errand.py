"""A job on its way to a node: all that it needs there, and nothing that is slow to import."""

import os
import sys
from dataclasses import dataclass, field
from typing import Any

from flowbench import faults

# What reaches a job of the driver's environment. A password of the database is none of it.
PASSED = ("FLOWBENCH_", "GOMP_", "MLFLOW_", "WANDB_")
KEPT = ("FLOWBENCH_DB",)


@dataclass(frozen=True)
class Errand:
    """A pickled execution.Job, where it is from, and the file that it writes its post to.

    `timeout` are seconds from its begin, `gpus` how many it was given.
    """

    job: bytes = field(repr=False)
    post: str
    timeout: float | None
    gpus: float
    environment: dict[str, str] = field(repr=False)
    folder: str
    places: tuple[str, ...]  # where Python finds modules

    def __call__(self) -> Any:
        """Do it, and return its Ended; the process ends with one that was asked to end."""
        ended = self.done()
        if ended is None:
            raise SystemExit(faults.INTERRUPTED)
        return ended

    def done(self) -> Any:
        """Do it, and return its Ended, or None for one that was asked to end."""
        self._settle()
        from flowbench.launchers import node

        return node.carry_out(self)

    def checkpoint(self) -> Any:
        """What submitit queues again before a job is ended: the same, which goes on from there."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _settle(self) -> None:
        """Make this process as the driver's was."""
        os.environ.update(self.environment)
        sys.path.extend(place for place in self.places if place not in sys.path)
        if os.path.isdir(self.folder):
            os.chdir(self.folder)


def surroundings() -> dict[str, str]:
    """What a job takes from the environment of this process."""
    passed = {name: text for name, text in os.environ.items() if name.startswith(PASSED)}
    return {name: text for name, text in passed.items() if name not in KEPT}
