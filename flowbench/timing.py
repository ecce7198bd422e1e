"""One timing job at a time on a device, so that no run of this user is in another's measurement."""

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from flowbench import cache

POLL = 0.05  # seconds between looks at the lock
SHARED = ("/dev/shm", "/tmp")  # what the environment names may differ from job to job


@contextmanager
def alone(device: str, note: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold the device for a measurement; `note` hears if that has to be waited for.

    The lock goes with the process, however it ends. Where no file can be locked, nothing is held.
    """
    lock = _acquired(device, note)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquired(device: str, note: Callable[[str], None]) -> BaseFileLock | None:
    try:
        lock = FileLock(_place() / f"timing-{_name(device)}.lock", mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            note(f"waiting for another process that times its samples on {device}")
            lock.acquire(poll_interval=POLL)
    except OSError:  # a Timeout is one as well, but that of acquire() never comes
        return None
    return lock


def _name(device: str) -> str:
    """The device as the machine knows it, whatever number it has in this process."""
    if not device.startswith("cuda"):
        return device
    import torch

    facts = torch.cuda.get_device_properties(device)
    known = getattr(facts, "uuid", None) or f"{device}-{os.environ.get('CUDA_VISIBLE_DEVICES')}"
    return re.sub(r"[^\w-]", "-", f"cuda-{known}")


def _place() -> Path:
    """A folder of this user on this machine, the same for all that they start here.

    One in a place of all users that is not theirs is not used.
    """
    for shared in (*SHARED, tempfile.gettempdir()):
        with suppress(OSError):
            return _made(Path(shared) / f"flowbench-{os.getuid()}")
    return _made(cache.folder("locks"))


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise PermissionError(f"{folder} is another's")
    return folder
