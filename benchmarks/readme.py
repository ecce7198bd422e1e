"""Writes the tables of README.md: each by the command that stands in the comment above it.

`python benchmarks/readme.py` changes README.md; with `--check` it only says whether it is current.
"""

import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner

from flowbench.cli import cli

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- table (\d) of: flowbench (.*?) -->\n)(.*?)(<!-- end -->)", re.S)


def main(words: list[str]) -> int:
    """Write README.md, or say with exit code 1 that it is not current."""
    text = README.read_text(encoding="utf-8")
    found = written(text)
    if "--check" in words:
        print("README.md is current" if found == text else "README.md is old: make readme")
        return int(found != text)
    README.write_text(found, encoding="utf-8")
    return 0


def written(text: str) -> str:
    """The text with every table as its command prints it today, from the tracked results.db."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(shutil.copy(ROOT / "results.db", folder))
        return BLOCK.sub(lambda m: m[1] + _table(m[3], int(m[2]), database) + m[5], text)


def _table(command: str, number: int, database: Path) -> str:
    """One of the tables that a command prints, counted from 1."""
    words = [
        str(ROOT / word) if word.startswith("benchmarks/") else word
        for word in shlex.split(command)
    ]
    done = CliRunner().invoke(cli, [*words, "--db", str(database), "--format", "md"])
    if done.exit_code:
        raise SystemExit(f"flowbench {command}: {done.output}")
    found = re.split(r"^(?=\*\*.*\*\*$)", done.output, flags=re.M)[number]
    return found.strip().replace(f"{ROOT}/", "") + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
