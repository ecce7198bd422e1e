"""A plugin as it is found: its name, kind and place; nothing of it has been imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["method", "observer", "extension"]


@dataclass(frozen=True)
class Plugin:
    """A class, or for an extension a module, behind one of the three doors.

    `distribution` is what was installed, or the file or folder as the user wrote it, which has no
    `version`. `hooks` are those that the source seems to implement, None where it cannot be told;
    `needs` the requirements that it declares; `problem` why the source cannot be read, or nothing.
    `disabled` is what the user left out.
    """

    name: str
    kind: Kind
    module: str
    attribute: str = ""  # the class in the module
    distribution: str = "unknown"
    version: str = ""
    path: Path | None = None
    folder: Path | None = None  # of files that are modules of one package
    loose: bool = False
    hooks: frozenset[str] | None = None
    needs: tuple[str, ...] = ()
    summary: str = ""
    problem: str = ""
    disabled: bool = False

    @property
    def origin(self) -> str:
        """Where it came from: `flowbench 0.1.0`, or `./my_method.py`."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def address(self) -> str:
        """The name that no other plugin has: `flowbench-rectified:rectified`."""
        return f"{self.distribution}:{self.name}"

    def implements(self, hook: str) -> bool:
        """Whether it may implement a hook."""
        return self.hooks is None or hook in self.hooks
