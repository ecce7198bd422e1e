"""Sums whose order hangs on the terms alone, not on who has added them up."""

import torch
from torch import Tensor


class Pairwise:
    """A sum of terms, pair by pair, and of the pairs again: halves that are summed elsewhere give
    the same bits.

    A term has tensors by number; one that lacks a number adds nothing to it. Only as many terms are
    held as the tree has levels.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, dict[int, Tensor]]] = []  # with the level in the tree

    def add(self, term: dict[int, Tensor]) -> None:
        """Take the next term, whose tensors may be changed."""
        level = 0
        while self._held and self._held[-1][0] == level:
            term, level = _joined(self._held.pop()[1], term), level + 1
        self._held.append((level, term))

    @property
    def sum(self) -> dict[int, Tensor]:
        """The sum of all terms; there are no others."""
        total: dict[int, Tensor] = {}
        while self._held:
            total = _joined(self._held.pop()[1], total)
        return total


def _joined(first: dict[int, Tensor], second: dict[int, Tensor]) -> dict[int, Tensor]:
    both = [number for number in first if number in second]
    if both:
        torch._foreach_add_([first[n] for n in both], [second[n] for n in both])
    return {**second, **first}
