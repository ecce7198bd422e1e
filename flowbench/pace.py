"""When a stage of training is looked at, saved and stopped: for all ranks by one clock."""

import time

from flowbench import interruption, ranks

TICK = 0.5  # seconds between looks at the loss: each look waits for the device
MEETING = 0.1  # seconds between two meetings of ranks, which cost some of their time
SHARE = 20  # saving takes at most one part in so many of the time, where the state is large


class Pace:
    """What is due after a step: `look` at the loss, `save` the state, `stop`.

    `steps` is the number of the last step. One process decides after every step. Several meet now
    and then, so that all do the same after the same step; a signal to one of them stops all.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.look = self.save = self.stop = False
        self._asked, self._pause = False, 0.0
        self._seen = self._saved = self._met = time.monotonic()
        self._last = self._next = 0  # steps of two meetings

    def meet(self, step: int, now: float, every: float) -> None:
        """Decide what is due after `step`, at the time `now`; states are `every` seconds apart."""
        self._asked = interruption.asked() or self._asked
        self.look = self.save = self.stop = False
        if ranks.count() > 1 and step < self._next and step != self.steps:
            return
        found = ranks.gathered((self._asked, self._decide(step, now, every)))
        self.stop = any(asked for asked, _ in found)
        self.look, save, self._next = found[0][1]
        self.save = save or self.stop
        self._seen = now if self.look else self._seen
        self._met, self._last = now, step

    def _decide(self, step: int, now: float, every: float) -> tuple[bool, bool, int]:
        """Whether to look and to save, and the step of the next meeting."""
        last = step == self.steps
        # Where the state takes seconds to write, it is written less often.
        wait = max(every, SHARE * self._pause * (self._pause > 1))
        rate = (step - self._last) / max(now - self._met, 1e-9)
        more = int(MEETING * rate) if every else 1
        save = last or now - self._saved >= wait
        return last or now - self._seen >= TICK, save, step + max(1, more)

    def saved(self, begun: float) -> None:
        """The state was saved, from the time `begun` on."""
        self._saved = time.monotonic()
        self._pause = self._saved - begun
