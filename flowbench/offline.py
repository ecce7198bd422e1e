"""No network: with `--offline` or FLOWBENCH_OFFLINE=1 a connection is an error, in workers too."""

import os
import sys
from functools import cache
from typing import Any

from flowbench.records import Absent, visible

VARIABLE = "FLOWBENCH_OFFLINE"
# What other packages are told in their own words, so that they do not even try.
OTHERS = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
NO = ("", "0", "false", "no", "off")
# What Python tells of before it connects, sends or asks for an address, and where the place stands.
PLACES = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}
CARRIERS = {"urllib3", "requests", "httpx", "httpcore", "anyio", "aiohttp", "asyncio"}


class Offline(Absent):
    """A connection that somebody wanted although there may be none."""


def wanted() -> bool:
    """Whether connections are forbidden."""
    return os.environ.get(VARIABLE, "").strip().lower() not in NO


def begin() -> dict[str, str | None]:
    """Forbid connections to this process and to those that it starts.

    Returns the variables that were changed, with what they were. Sockets of this machine's own
    processes (AF_UNIX) stay, and the driver of a database server, which has its own.
    """
    before = {name: os.environ.get(name) for name in (VARIABLE, *OTHERS)}
    os.environ |= {VARIABLE: "1", **OTHERS}
    obey()
    return before


def obey() -> None:
    """Watch this process, if connections are forbidden."""
    if wanted():
        _watch()


@cache
def _watch() -> None:
    sys.addaudithook(_hear)  # for good: it looks at the variable each time


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    # Names are None while the interpreter ends.
    if PLACES is not None and event in PLACES and wanted():
        place = arguments[PLACES[event]] if len(arguments) > PLACES[event] else None
        if not _local(event, place):
            raise Offline(
                f"--offline forbids the connection to {_words(place, arguments)} that {_who()}"
                " wants: give the file that it would fetch, or leave --offline out"
            )


def _local(event: str, place: Any) -> bool:
    """Whether it is a socket in the file system, or no place at all."""
    return place is None or (isinstance(place, str | bytes) and event.startswith("socket.conn"))


def _words(place: Any, arguments: tuple[Any, ...]) -> str:
    """`host:port`, as far as it is known."""
    if isinstance(place, tuple) and len(place) > 1:
        return visible(f"{place[0]}:{place[1]}")
    port = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], int | str) else ""
    return visible(f"{place}:{port}" if port else f"{place}")


def _who() -> str:
    """The package that is nearest to the connection and does not only carry it."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        own = frame.f_globals.get("__name__") == __name__
        if not own and package not in sys.stdlib_module_names | CARRIERS:
            loose = package.startswith("flowbench_file_")  # how plugins in files are called
            return os.path.basename(frame.f_code.co_filename) if loose else package
        frame = frame.f_back
    return "a program"
