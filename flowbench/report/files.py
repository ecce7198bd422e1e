"""The files of runs, in one folder and no larger than expected: they may be a stranger's."""

from pathlib import Path
from typing import Any


def found(store: Any, run: str, folder: Path, most: int) -> dict[str, list[Path]]:
    """The files of a run by role, the newest last.

    Left out is what is not there, has more than `most` bytes, or lies outside `folder`.
    """
    root, files = folder.resolve(), dict[str, list[Path]]()
    for artifact in store.artifacts(run):
        path = _inside(root, artifact.path)
        if path is not None and path.stat().st_size <= most:
            files.setdefault(artifact.role, []).append(path)
    return files


def _inside(root: Path, name: str) -> Path | None:
    """A file below `root` by its relative name."""
    try:
        path = (root / name).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None
    except (OSError, ValueError):  # a name that no system takes
        return None
