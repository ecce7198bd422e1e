"""What `torchrun` says of this process, and how it meets the others that were started with it.

Commands ask before they know whether torch is needed, so only a meeting imports it.
"""

import os
import time
from datetime import timedelta
from typing import Any

from flowbench.records import FlowbenchError

JOINING = timedelta(minutes=10)  # until all have come, who import and start at about one time
MEETING = timedelta(minutes=2)  # until the place is found where they meet, deaf to signals


def launched() -> int:
    """How many processes `torchrun` has started for this run; 1 without it.

    Schedulers and shells set some of its variables, too: its own is what tells. Raises
    FlowbenchError where they make no sense.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1
    size, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if not (size.isdecimal() and rank.isdecimal() and int(rank) < int(size)):
        raise FlowbenchError(
            f"WORLD_SIZE={size!r} and RANK={rank!r} are not what torchrun sets: start by torchrun,"
            " or unset TORCHELASTIC_RUN_ID to run alone"
        )
    return int(size)


def place() -> int:
    """The number of this process among those of its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched() > 1 else 0


def met() -> tuple[Any, int, int]:
    """The store in which all processes have said that they are here, and which one this is of how
    many; raises FlowbenchError where they do not come."""
    from torch import distributed as processes

    until = time.monotonic() + JOINING.total_seconds()
    try:
        store, rank, world = next(processes.rendezvous("env://", timeout=MEETING))
        names = [f"flowbench-{number}" for number in range(world)]
        store.set(names[rank], "here")
        while not store.check(names):  # a signal is heard between two looks
            if time.monotonic() > until:
                raise TimeoutError(f"it has waited for {JOINING}")
            time.sleep(0.02)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise FlowbenchError(
            f"the {launched()} processes of this run have not met ({reason(error)}): start all by"
            " one torchrun, or unset TORCHELASTIC_RUN_ID to run alone"
        ) from error
    return store, rank, world


def reason(error: Exception) -> str:
    """The first line of what an error says."""
    return str(error).strip().partition("\n")[0].rstrip(".")
