"""The list of all checks, and the examination that carries them out on one method."""

import time
import traceback
from collections.abc import Iterator, Sequence

from flowbench import options
from flowbench.records import FlowbenchError
from flowbench.testing import answers, breakdowns, drawing, learning, metadata
from flowbench.testing.check import GROUPS, Check, Found, Result
from flowbench.testing.subject import Subject

CHECKS: tuple[Check, ...] = (
    *metadata.CHECKS,
    *drawing.CHECKS,
    *learning.CHECKS,
    *answers.CHECKS,
    *breakdowns.CHECKS,
)
BY_ID = {check.id: check for check in CHECKS}


def chosen(only: Sequence[str] = (), quick: bool = False) -> list[Check]:
    """The checks of these ids or groups (none: all), with `quick` those that are not slow.

    Raises FlowbenchError for an id that is not there.
    """
    known = [*BY_ID, *GROUPS]
    words = [options.choose("check", word.upper(), known) for word in only]
    found = [c for c in CHECKS if not words or c.id in words or c.id[0] in words]
    return [check for check in found if not (quick and check.slow and check.id not in words)]


class Examination:
    """One method's results; each check is carried out once, and those that it stands on first."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.results: dict[str, Result] = {}

    def results_of(self, checks: Sequence[Check]) -> Iterator[Result]:
        """The result of each check, as soon as it is there."""
        for check in checks:
            yield self.result(check)

    def result(self, check: Check) -> Result:
        """What comes of a check."""
        if check.id not in self.results:
            self.results[check.id] = self._carry_out(check)
        return self.results[check.id]

    def _carry_out(self, check: Check) -> Result:
        for id in check.after:
            if self.result(BY_ID[id]).outcome not in ("pass", "warn"):
                return Result(check, "skip", f"{id} did not pass")
        begun = time.monotonic()
        try:
            check.run(self.subject)
        except Found as found:
            return Result(check, found.outcome, str(found), time.monotonic() - begun)
        except Exception as error:
            return Result(check, "fail", _told(error), time.monotonic() - begun)
        return Result(check, "pass", "", time.monotonic() - begun)


def _told(error: Exception) -> str:
    """An exception that nobody expected, in one line, with its place."""
    line = str(error).partition("\n")[0]
    if isinstance(error, FlowbenchError):
        return line
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {line}{place}"
