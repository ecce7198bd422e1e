"""Which loose plugins a user wants, and which ones not: the variables and `flowbench.toml`."""

import os
from dataclasses import dataclass
from pathlib import Path

from flowbench import toml_files
from flowbench.records import FlowbenchError

FILE = Path("flowbench.toml")  # of the current folder only: what lies above may be a stranger's
PLUGINS, DISABLED = "FLOWBENCH_PLUGINS", "FLOWBENCH_DISABLED"
KEYS = ("paths", "disabled")


@dataclass(frozen=True)
class Wanted:
    """Files and folders with plugins, each with the word for it, and names that are left out."""

    paths: tuple[tuple[str, Path], ...]
    disabled: frozenset[str]


def wanted() -> Wanted:
    """What the environment and the file say; raises FlowbenchError for what cannot be meant."""
    said = _file()
    words = [word for word in os.environ.get(PLUGINS, "").split(os.pathsep) if word]
    paths: dict[Path, str] = {}
    for word in [*words, *said["paths"]]:
        path = Path(word).expanduser()
        if not (path.is_dir() or (path.is_file() and path.suffix == ".py")):
            where = f"--plugin, {PLUGINS} or {FILE}"
            raise FlowbenchError(f"there is no folder or .py file {word}, which {where} names")
        paths.setdefault(path.resolve(), word)
    left_out = [name.strip() for name in os.environ.get(DISABLED, "").split(",")]
    return Wanted(
        tuple((word, path) for path, word in paths.items()),
        frozenset([*filter(None, left_out), *said["disabled"]]),
    )


def _file() -> dict[str, list[str]]:
    """The table [plugins] of the file, empty where there is none."""
    if not FILE.is_file():
        return {key: [] for key in KEYS}
    try:
        table = toml_files.read(FILE).get("plugins", {})
    except (OSError, ValueError) as error:
        raise FlowbenchError(f"{FILE} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise FlowbenchError(f"{FILE}: plugins takes a table: [plugins]")
    for key in table.keys() - set(KEYS):
        raise FlowbenchError(f"{FILE}: [plugins] has no key {key}: it has {' and '.join(KEYS)}")
    for key, value in table.items():
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise FlowbenchError(f"{FILE}: {key} takes a list of texts, such as {key} = ['a']")
    return {key: table.get(key, []) for key in KEYS}
