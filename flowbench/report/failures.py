"""Runs that did not end well, with their reasons."""

from collections.abc import Sequence

from flowbench.records import Tried
from flowbench.report.layout import Table, Text


def table(failed: Sequence[Tried]) -> Table | None:
    """A row for each run whose last attempt failed; None where none did."""
    if not failed:
        return None
    columns = ["method", "dataset", "seed", "run", "attempt", "outcome", "reason"]
    found = Table("Runs that did not end well", columns, [], labels=len(columns))
    for attempt in failed:
        spec = attempt.spec
        words = [spec.variant, spec.dataset, str(spec.seed), attempt.run, str(attempt.number)]
        found.rows.append([Text(word) for word in (*words, attempt.outcome, attempt.error)])
        found.tags.append({"dataset": spec.dataset, "method": spec.method})
    return found
