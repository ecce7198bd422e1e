"""The view of a database: what a user asks for, read and built."""

import atexit
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flowbench import options, plugins
from flowbench.comparison import selection
from flowbench.comparison.build import build
from flowbench.comparison.selection import Filter
from flowbench.comparison.view import View
from flowbench.places import url
from flowbench.records import FlowbenchError, Measured, Spec, Tried
from flowbench.store import Store


def opened(db: str, asked: Filter) -> tuple[Store, View]:
    """The store and its view of what is asked for.

    `db` is a path or a URL. Raises FlowbenchError where there is nothing of it at all.
    """
    with _no_garbage():
        store = Store.open_existing(url(db))
        runs = store.specs() if asked != Filter() else None  # teachers that are not asked for
        measured, tried = scores(store, asked, runs)
        found = build(measured, tried, goals(), store.environments(), runs=runs)
    if not found.sections and not found.failed:
        raise FlowbenchError(_nothing(db, asked))
    return store, found


def goals() -> dict[str, str]:
    """The goal of each installed metric."""
    return {metric.name: metric.goal for metric in plugins.metrics()}


def scores(
    store: Store, asked: Filter, runs: Mapping[str, Spec] | None = None
) -> tuple[list[Measured], list[Tried]]:
    """The scores and attempts that are asked for; `runs` are all stored ones by key.

    Raises FlowbenchError for a method or data set that nobody knows.
    """
    measured = store.measured(asked.dataset, asked.methods, asked.seeds)
    tried = store.tried(asked.dataset, asked.methods, asked.seeds)
    _known(store, asked, {t.spec.method for t in tried}, {t.spec.dataset for t in tried})
    late = selection.attempts(tried, asked, runs)
    return selection.select(measured, tried, asked, runs), late


def _known(store: Store, asked: Filter, methods: set[str], datasets: set[str]) -> None:
    """Refuse names that neither a result nor a plugin has."""
    if set(asked.methods) <= methods and (asked.dataset is None or asked.dataset in datasets):
        return
    specs = [attempt.spec for attempt in store.tried()]
    for name in asked.methods:
        known = {*plugins.methods(), *(spec.method for spec in specs)}
        options.choose("method", name, sorted(known))
    if asked.dataset is not None:
        known = {*plugins.datasets(), *(spec.dataset for spec in specs)}
        options.choose("data set", asked.dataset, sorted(known))


def _nothing(db: str, asked: Filter) -> str:
    narrow = [f"--where {name}={value}" for name, value in asked.where]
    narrow += [f"--since {asked.since}"] if asked.since else []
    narrow += [f"--seed {','.join(map(str, asked.seeds))}"] if asked.seeds else []
    if narrow:
        return f"no scores in {db} fit {' '.join(narrow)}"
    method = next(iter(asked.methods), None) or "METHOD"
    what = f"flowbench run {method} --dataset {asked.dataset or 'DATASET'}"
    return f"{db} has no such scores; measure some with: {what}"


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep Python from looking for garbage among 100 000 records, a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor when the process ends, which takes a tenth of a second
        if "torch" in sys.modules:  # whose bindings complain about what is left then
            atexit.register(gc.unfreeze)
        if was:
            gc.enable()
