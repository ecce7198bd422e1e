"""What a format of reports is given: the results that were asked for, as plain as it wants them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowbench.comparison.view import View
    from flowbench.report.document import Document
    from flowbench.report.layout import Table


@dataclass(frozen=True)
class Report:
    """The leaderboard, from its numbers (`records`) to what a page shows (`document`).

    `view` holds everything as plain values: `view.sections` the rows that share a table,
    `view.failed` the attempts without a result. `compose` builds the document, with charts and
    pictures where it is told so.
    """

    view: "View"
    compose: Callable[[bool], "Document"]

    def document(self, figures: bool = False) -> "Document":
        """Tables, what stands behind their rows, published numbers, failures.

        With `figures` also charts and, unless `--no-pictures` was typed, pictures: of a large
        database they take minutes.
        """
        return self.compose(figures)

    def tables(self) -> list["Table"]:
        """Every table of the document, in the order in which it is read."""
        from flowbench.report import building

        return building.tables(self.document())

    def records(self) -> list[dict[str, Any]]:
        """One flat record for each number, unrounded, with all that decides what it compares with.

        Their keys are `report.text.FIELDS`, in this order; None stands for what is unknown.
        """
        from flowbench.report import text

        return text.records(self.view.sections)
