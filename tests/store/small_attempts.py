"""Small attempts at a run, made here or by other processes."""

import subprocess
from collections.abc import Callable, Iterable

from flowbench.records import Score

Start = Callable[[str, int], list[subprocess.Popen[str]]]


def put(store, spec, *nfes):
    """An attempt that has ended, with a score at each NFE."""
    with store.attempt(spec, {"python": "3.11"}) as attempt:
        for nfe in nfes:
            attempt.add(Score("fid", nfe + 0.5, nfe))
    return attempt


def finish(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Wait for processes, each of which has to end well."""
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors[-2000:]) == (0, "")
