"""What every method has to keep: one list of checks, for `flowbench check` and for pytest.

class TestMine(MethodContract):
    method = Mine(width=16)
"""

from typing import Any

from flowbench.testing.catalogue import CHECKS, Examination
from flowbench.testing.check import Check, Result
from flowbench.testing.laws import Affine
from flowbench.testing.subject import Subject
from flowbench.testing.toys import BUDGET, Killed, Stop, Straight, toy, toy_teacher

__all__ = [
    "BUDGET",
    "CHECKS",
    "Affine",
    "Check",
    "Examination",
    "Killed",
    "MethodContract",
    "Result",
    "Stop",
    "Straight",
    "Subject",
    "toy",
    "toy_teacher",
]


def __getattr__(name: str) -> Any:
    """`MethodContract`, imported when it is asked for: only it needs pytest."""
    if name != "MethodContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flowbench.testing import contract

    return contract.MethodContract
