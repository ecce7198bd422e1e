"""What to do when the memory of a device runs out while rows are made that need not go together."""

import gc
from collections.abc import Callable

from flowbench.records import RunFailed


def fewer(batch: int, thing: str, make: str, made: str, note: Callable[[str], None]) -> int:
    """Half of the `batch` that did not fit, after giving free what the try has used.

    Raises RunFailed where that was one.
    """
    if batch == 1:
        raise RunFailed(f"the device has no room to {make} a single {thing}: use another")
    note(f"the device is full: {batch // 2} {thing}s are {made} together from here on")
    gc.collect()  # the frames of the failed try hold each other, and what it has used
    return batch // 2
