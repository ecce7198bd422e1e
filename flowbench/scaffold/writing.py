"""A folder of files that is written as a whole, or not at all, over nothing that was there."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from flowbench.records import FlowbenchError


def write(target: Path, files: Mapping[str, str]) -> None:
    """Make the folder `target` with these texts by path; raises FlowbenchError if it is there.

    They are written beside it first, so that a failure leaves nothing behind.
    """
    if os.path.lexists(target):
        raise FlowbenchError(f"{target} is there already: name another folder with --output")
    if not target.parent.is_dir():
        raise FlowbenchError(f"there is no folder {target.parent}: make it first")
    try:
        with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as part:
            staged = Path(part, target.name)
            staged.mkdir()
            for name, text in files.items():
                path = staged / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            os.rename(staged, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EIO):  # the command line has words for these
            raise
        raise FlowbenchError(f"{target} cannot be written: {error.strerror}") from error
