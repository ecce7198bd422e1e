"""Where results lie: the database behind a word, and the folder of runs beside it."""

from pathlib import Path

from flowbench.records import FlowbenchError


def url(db: str | Path) -> str:
    """A database URL from a URL or the path of an SQLite file."""
    return str(db) if "://" in str(db) else f"sqlite:///{db}"


def runs_folder(db: str, folder: Path | None = None) -> Path:
    """Where checkpoints, pairs and samples lie: `folder`, or `runs` beside the SQLite file."""
    path = url(db).removeprefix("sqlite:///")
    beside = (Path(path).parent if path != url(db) and path else Path()) / "runs"
    return (folder or beside).resolve()


def inside(folder: Path, name: str) -> Path:
    """A file in `folder` by its stored name; raises FlowbenchError for one that leads out of it."""
    root = folder.resolve()
    try:
        path = (root / name).resolve()
    except (OSError, ValueError):  # a name that no system takes
        path = Path()
    if not path.is_relative_to(root):
        raise FlowbenchError(f"a stored file {name!r} lies outside {folder}: it is not read")
    return path
