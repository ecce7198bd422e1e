"""Where results lie: the database behind a word, and the folder of runs beside it."""

from pathlib import Path


def url(db: str | Path) -> str:
    """A database URL from a URL or the path of an SQLite file."""
    return str(db) if "://" in str(db) else f"sqlite:///{db}"


def runs_folder(db: str, folder: Path | None = None) -> Path:
    """Where checkpoints, pairs and samples lie: `folder`, or `runs` beside the SQLite file."""
    path = url(db).removeprefix("sqlite:///")
    beside = (Path(path).parent if path != url(db) and path else Path()) / "runs"
    return (folder or beside).resolve()
