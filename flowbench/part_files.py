"""The file beside a file while that is written, and what killed processes have left of such."""

import glob
import os
import platform
import zlib
from pathlib import Path


def beside(path: Path) -> Path:
    """Where this process writes what will become `path`; what dead ones have left is removed.

    Only those of this host are known to be dead, so names tell hosts apart.
    """
    host = f"{zlib.crc32(platform.node().encode()):08x}"
    for part in path.parent.glob(f"{glob.escape(path.name)}.{host}-*.part"):
        pid = part.stem.rpartition("-")[2]
        if pid.isdigit() and not _alive(int(pid)):
            part.unlink(missing_ok=True)
    return path.with_name(f"{path.name}.{host}-{os.getpid()}.part")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
