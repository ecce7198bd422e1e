"""Licences: their texts, and the terms under which somebody else's method may be copied."""

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution

EXPRESSIONS = {  # as users type them, and as SPDX does
    "mit": "MIT",
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "none": "",
}
FILES = ("LICENSE", "LICENCE", "COPYING")


@dataclass(frozen=True)
class Terms:
    """The SPDX expression of a licence and its whole text; empty where they are not known."""

    expression: str = ""
    text: str = ""

    @property
    def notices(self) -> list[str]:
        """The lines that say whose copyright it is."""
        lines = [line.strip() for line in self.text.splitlines()]
        return [line for line in lines if line.lower().startswith("copyright (c)")]


def terms(name: str) -> Terms:
    """The terms of an installed distribution, unknown for what is none."""
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError):
        return Terms()
    said = found.metadata.get_all("License-Expression") or [""]
    return Terms(said[0], _text(found))


def _text(found: Distribution) -> str:
    """The first file of a distribution that is called a licence, or nothing."""
    for path in sorted(found.files or [], key=lambda path: len(path.parts)):
        if path.name.upper().startswith(FILES) and path.suffix != ".py":
            with suppress(OSError, UnicodeDecodeError):
                return path.read_text(encoding="utf-8")
    return ""


def together(own: str, other: str) -> str:
    """The SPDX expression of a package whose files are under both; empty where its own is."""
    if not own or not other or own == other:
        return own
    return f"{own} AND ({other})" if " " in other else f"{own} AND {other}"
