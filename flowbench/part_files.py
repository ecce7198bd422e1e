"""The file beside a file while that is written, and what killed processes have left of such."""

import glob
import os
import platform
import zlib
from pathlib import Path

from flowbench import process_table


def beside(path: Path) -> Path:
    """Where this process writes what will become `path`; what dead ones have left is removed.

    Only those of this host are known to be dead, so names tell hosts apart.
    """
    host = f"{zlib.crc32(platform.node().encode()):08x}"
    for part in path.parent.glob(f"{glob.escape(path.name)}.{host}-*.part"):
        pid = part.stem.rpartition("-")[2]
        if pid.isdigit() and not process_table.lives(int(pid)):
            part.unlink(missing_ok=True)
    return path.with_name(f"{path.name}.{host}-{os.getpid()}.part")


def replace(path: Path, content: bytes | bytearray) -> None:
    """Put a file of this content in the place of `path`, at once and on the disk, or not at all."""
    part = beside(path)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
