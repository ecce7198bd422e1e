"""Writes what commands print, and the reference of hooks, into README.md and plugins/README.md.

`python benchmarks/readme.py` changes both files; with `--check` it only says whether they are
current. What is written stands between `<!-- KIND of: WHAT -->` and `<!-- end -->`:
`table N of: flowbench ...` (the Nth table, as Markdown, of the tracked results.db),
`output of: flowbench ...` (all that it prints), `source of: FILE`, and `hooks of: MODULE`.
"""

import inspect
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner

from flowbench.cli import cli

ROOT = Path(__file__).parent.parent
GUIDES = ("README.md", "plugins/README.md")
BLOCK = re.compile(
    r"(<!-- (table \d|output|source|hooks) of: (.*?) -->\n)(.*?)(<!-- end -->)", re.S
)
PLUGINS = ("FLOWBENCH_PLUGINS", "FLOWBENCH_DISABLED")  # another's plugins have no place here


def main(words: list[str]) -> int:
    """Write the guides, or say with exit code 1 which of them is not current."""
    old = []
    for name in GUIDES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        found = written(text)
        old += [name] * (found != text)
        if "--check" not in words:
            path.write_text(found, encoding="utf-8")
    if "--check" in words:
        print(f"{' and '.join(old)}: old, make readme" if old else "the guides are current")
    return int(bool(old) and "--check" in words)


def written(text: str) -> str:
    """The text with every block as it is today."""
    with _place():
        return BLOCK.sub(lambda m: m[1] + _block(m[2], m[3]) + m[5], text)


@contextmanager
def _place() -> Iterator[None]:
    """A folder with a copy of the tracked results.db and of the suites, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "results.db", folder)
        for suite in (ROOT / "benchmarks").glob("*.toml"):
            (Path(folder) / "benchmarks").mkdir(exist_ok=True)
            shutil.copy(suite, Path(folder) / "benchmarks")
        clean = {"FLOWBENCH_DB": "results.db", "COLUMNS": "80", **dict.fromkeys(PLUGINS, "")}
        with chdir(folder), patch.dict(os.environ, clean):
            yield


def _block(kind: str, what: str) -> str:
    """What stands between the marks of a block."""
    if kind == "hooks":
        return hooks(what)
    if kind == "source":
        path = ROOT / what
        return f"```python {path.name}\n{path.read_text(encoding='utf-8')}```\n"
    if kind == "output":
        return f"```text\n{_printed(what)}\n```\n"
    tables = re.split(r"^(?=\*\*.*\*\*$)", _printed(f"{what} --format md"), flags=re.M)
    return tables[int(kind.split()[1])].strip() + "\n"


def _printed(command: str) -> str:
    """What a command of flowbench prints, without spaces at the ends of lines."""
    done = CliRunner().invoke(cli, shlex.split(command)[1:], prog_name="flowbench")
    if done.exit_code:
        raise SystemExit(f"{command}: {done.output}")
    return "\n".join(line.rstrip() for line in done.output.strip().splitlines())


def hooks(module: str) -> str:
    """Every hook of a module: its signature, and its docstring."""
    found = ""
    for name, hook in vars(import_module(module)).items():
        if hasattr(hook, "flowbench_spec"):
            arguments = ", ".join(inspect.signature(hook).parameters)
            said = re.sub(r"`[^`]*`|\*", _plain, inspect.getdoc(hook) or "")
            found += f"#### `{name}({arguments})`\n\n{said}\n\n"
    return found.rstrip() + "\n"


def _plain(match: re.Match[str]) -> str:
    """A star that Markdown would take for emphasis, escaped; code as it is."""
    return match[0].replace("*", r"\*") if match[0] == "*" else match[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
