"""What a disk says that takes no more, and what to do about it: full, broken, or read-only."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowbench.records import RunFailed

AGAIN = "then run the same command again"
CURES = {
    errno.ENOSPC: f"free some space, {AGAIN}",
    errno.EDQUOT: f"free some space of your quota, {AGAIN}",
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), {AGAIN}",
    errno.EIO: f"the disk or its network failed: see to it, {AGAIN}",
    errno.EROFS: f"make it writable or name another folder, {AGAIN}",
    errno.EACCES: f"ask for the right to it or name another folder, {AGAIN}",
    errno.EPERM: f"ask for the right to it or name another folder, {AGAIN}",
}
FORBIDDEN = (errno.EACCES, errno.EPERM)  # may be said of reading, too


class Unwritten(RunFailed):
    """A file that could not be written for a reason outside of flowbench; nothing else is lost."""


def line(error: OSError, path: Path | str) -> str:
    """`runs/x/train.pt cannot be written: No space left on device: free some space, ...`."""
    verb = "opened" if error.errno in FORBIDDEN else "written"
    return f"{path} cannot be {verb}: {error.strerror}: {CURES[error.errno or 0]}"


def unwritten(error: BaseException, path: Path | None = None) -> Unwritten | None:
    """What to raise in the place of an error of a disk that refuses, with a cure.

    None for other errors, such as that of a folder where a file should be. Without `path` the
    error itself says which file it is about.
    """
    if not isinstance(error, OSError) or error.errno not in CURES:
        return None
    return Unwritten(line(error, path or error.filename or "a file"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises Unwritten with the name of the file and a cure for what a disk refuses inside."""
    try:
        yield
    except OSError as error:
        found = unwritten(error, path)
        if found is None:
            raise
        raise found from error
