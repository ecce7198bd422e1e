"""The process that is killed: the real command line, with what kills it wrapped around a function.

What happens in it is traced into a file, a line each: `step` (of an optimiser), `kept` (a
checkpoint is in place), `pairs`, `opened` (an
attempt), `score` (is stored), `kill TIME`.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from crash_places import PLACES, TORN, Place, wrap

WORKER_DELAY = 1.0  # seconds that a worker of a suite lives on before it is killed


@dataclass
class Torn:
    """A file of which half is written before the process is killed."""

    file: Any
    kill: Callable[[], None]

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        """Write half, and be killed; a polite signal lets the rest follow."""
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        self.kill()
        return self.file.write(content[len(content) // 2 :])


@dataclass
class Watch:
    """Counts the calls at places, and kills at one of them."""

    trace: Path
    kill: dict[str, Any] | None = None  # place, moment, nth, signal
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, line: str) -> None:
        """Append to the trace, in one write that a kill cannot tear."""
        with open(self.trace, "ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def now(self, place: Place, moment: str) -> bool:
        """Whether this call, which was counted, is the one."""
        call = {"place": place.name, "moment": moment, "nth": self.counts[place.name]}
        return self.kill is not None and call.items() <= self.kill.items()

    def strike(self, pid: int | None = None) -> None:
        """Send the signal, to this process if not to another."""
        assert self.kill is not None
        self.note(f"kill {time.monotonic()}")
        with suppress(ProcessLookupError):
            os.kill(os.getpid() if pid is None else pid, self.kill["signal"])

    def around(self, place: Place) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """What makes a function one that counts and kills."""

        def make(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **named: Any) -> Any:
                if not place.fits((*arguments, *named.values())):
                    return function(*arguments, **named)
                self.counts[place.name] += 1
                if self.now(place, "before"):
                    self.strike()
                result = function(*arguments, **named)
                return self.after(place, result)

            return wrapped

        return make

    def after(self, place: Place, result: Any) -> Any:
        """What the caller gets once the function has ended."""
        if self.now(place, "torn"):
            return Torn(result, self.strike)
        if self.now(place, "worker"):
            threading.Timer(WORKER_DELAY, self.strike, [result.process.pid]).start()
        if self.now(place, "after"):
            self.strike()
        return result


def told(watch: Watch) -> None:
    """Trace what costs work."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *given: watch.note("step"))

    def heard(line: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **named: Any) -> Any:
                result = function(*arguments, **named)
                watch.note(line)
                return result

            return wrapped

        return make

    wrap("flowbench.checkpoints:save_state", heard("kept"))
    wrap("flowbench.pairs:Pairs._make", heard("pairs"))
    wrap("flowbench.store.attempts:open_attempt", heard("opened"))
    wrap("flowbench.store.attempts:Attempt.add", heard("score"))


def set_up(request: dict[str, Any]) -> Watch:
    """Become what the request describes: its folder, environment, sizes, defects and places."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGALRM):  # the server has its own
        signal.signal(number, signal.SIG_DFL)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, value in request["sizes"].items():
        module, _, attribute = name.partition(":")
        setattr(import_module(module), attribute, value)
    if request["defect"]:
        import crash_defects

        getattr(crash_defects, request["defect"])()
    watch = Watch(Path(request["trace"]), request["kill"])
    told(watch)
    for place in PLACES:
        if place.stage in request["stages"]:
            wrap(place.target, watch.around(place))
    return watch


def live(request: dict[str, Any], up: Callable[[], None]) -> int:
    """Carry out the command line of a request, `up` before it; returns its exit code."""
    watch = set_up(request)
    from flowbench.cli import main

    sys.argv = ["flowbench", *request["words"]]
    try:
        up()
        code = _command(main)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command is over, only our notes follow
    except KeyboardInterrupt:  # also between the two: as Python ends that was already leaving
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    Path(request["trace"]).with_suffix(".counts").write_text(json.dumps(watch.counts))
    return code


def _command(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


assert TORN in {place.target for place in PLACES}
