"""What `compare`, `report` and `chart` share: the view of a database, and what catalogues say."""

from collections.abc import Callable, Sequence
from typing import Any

from flowbench.entries import Dataset


def opened(db: str, asked: Any) -> tuple[Any, Any]:
    """The store and its view of what a Filter asks for."""
    from flowbench.comparison import opening

    return opening.opened(db, asked)


def ledger(section: Any) -> Any:
    """The table of `report` for a section, with what the catalogues say of its data set."""
    from flowbench.report import sections

    remark, order, _ = catalogue(section.dataset)
    return sections.ledger(section, remark, order)


def catalogue(dataset: str) -> tuple[str, list[str], Dataset | None]:
    """What the catalogues say of a data set: remark, order of the metrics, its entry."""
    return catalogues()(dataset)


def catalogues() -> Callable[[str], tuple[str, list[str], Dataset | None]]:
    """`catalogue` for many data sets, for which each plugin is asked once."""
    from flowbench import plugins

    datasets, order = plugins.datasets(), [metric.name for metric in plugins.metrics()]

    def of(dataset: str) -> tuple[str, list[str], Dataset | None]:
        entry: Dataset | None = datasets.get(dataset)
        return (entry.remark if entry else "", order, entry)

    return of


def check_metrics(sections: Sequence[Any], metrics: Sequence[str]) -> None:
    """Raise FlowbenchError for a metric that was measured nowhere."""
    from flowbench import options

    known = dict.fromkeys(name for section in sections for name in _bare(section).values())
    for section in sections:
        metrics = [_bare(section).get(name, name) for name in metrics]
    for name in metrics:
        if name != "all":
            options.choose("metric", name, known)


def chosen_metrics(section: Any, metrics: Sequence[str]) -> list[str]:
    """The metrics of `metrics` that a section has, without their n.

    None asked for: the headlines, or what there is; `all`: every one that has a goal.
    """
    from flowbench.comparison.naming import HEADLINES, OTHERWISE

    bare = _bare(section)
    known = bare.values()
    if not metrics:
        for words in (HEADLINES, OTHERWISE):
            names = [name for name in words if name in known]
            if set(names) - {"S"}:
                return names
        metrics = ["all"]
    if "all" in metrics:
        _, order, _ = catalogue(section.dataset)
        judged = {bare[name] for (_, name, _), cell in section.cells.items() if cell.goal}
        every = dict.fromkeys((*order, "S", "S2", "nll", *sorted(judged)))
        return [name for name in every if name in known]
    asked = dict.fromkeys(bare.get(name, name) for name in metrics)
    return [name for name in asked if name in known]


def _bare(section: Any) -> dict[str, str]:
    """The names of a section's columns, and what each is called without its n."""
    from flowbench.comparison.naming import COUNTED, named

    counted = {named(name, section.n): name for name in COUNTED}
    return {name: counted.get(name, name) for name in (*section.metrics, *section.facts)}
