"""What commands print, whoever wrote it: nothing of it is a command to the terminal."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Colours, and what moves within lines that are drawn anew: what live tables and bars need.
OURS = r"\x1b\[[0-9;]*[mKA]|\x1b\[\?25[lh]|\r"
# Control characters, what turns the direction of text, and what cannot be seen.
ODD = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
EITHER = re.compile(f"({OURS})|{ODD}")


class Guarded:
    """A text stream on which what a terminal would obey becomes `?`.

    On a terminal colours and live tables stay, and there is no `buffer`: nothing goes around it.
    Bytes for a file or pipe are what a format of reports has made, and go there as they are.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what is left of the text; returns the length of it all."""
        if not isinstance(text, str):
            raise TypeError("a text is needed")
        plain = all(map(str.isprintable, text.split("\n")))  # many times faster than to search
        self._stream.write(text if plain else self._plain(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of the texts."""
        for line in lines:
            self.write(line)

    def _plain(self, text: str) -> str:
        live = self._stream.isatty()
        return EITHER.sub(lambda found: found[1] if live and found[1] else "?", text)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer" and self._stream.isatty():
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def outputs() -> Iterator[None]:
    """Guard both outputs of this process."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Guarded(sys.stdout), Guarded(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
