"""In which manner `flowbench run` does its work: anew, silently, under a debugger, profiled."""

import os
from dataclasses import dataclass, fields
from typing import Any

# The profiler's libraries write their diaries to the terminal unless they are told not to.
SILENCE = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@dataclass(frozen=True)
class Manner:
    """What the options of these names say; `debug` is --pdb, `threads` are the processor's."""

    force: bool = False
    quiet: bool = False
    debug: bool = False
    profile: bool = False
    threads: int | None = None

    @classmethod
    def of(cls, asked: dict[str, Any]) -> "Manner":
        """Take its words out of those of the command."""
        return cls(**{field.name: asked.pop(field.name) for field in fields(cls)})

    def prepare(self) -> None:
        """Set what has to be set before torch is imported."""
        for name, value in SILENCE.items() if self.profile else ():
            os.environ.setdefault(name, value)
