"""The commit that a source stands at."""

import subprocess
from functools import cache
from pathlib import Path


@cache
def state(path: Path) -> str | None:
    """Commit of the repository that tracks `path`, with `-dirty` if it was changed; or None."""
    folder = path if path.is_dir() else path.parent
    tracked = _git(folder, "ls-files", "--error-unmatch", "--", str(path))
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40") if tracked else None


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None where it is not there, or fails."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
