"""Reading: what is done, measured, tried and found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import event

from flowbench.records import FlowbenchError, Score, Spec
from flowbench.store import Store
from flowbench.store.leases import Superseded


def attempt(store: Store, spec: Spec, *scores: Score, force: bool = False) -> int:
    with store.attempt(spec, {"python": "3.11"}, force) as opened:
        for score in scores:
            opened.add(score)
    return opened.id


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    statements: list[str] = []

    def count(connection, cursor, statement, *rest) -> None:
        if statement.lower().startswith("select"):
            statements.append(statement)

    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", count)
    yield statements
    event.remove(engine, "before_cursor_execute", count)


def test_nothing_is_done_before_the_first_attempt(store: Store, spec: Spec) -> None:
    assert not store.done(spec, 0)


def test_done_depends_on_the_noise(store: Store, spec: Spec) -> None:
    score = Score("fid", 1.0, 2, n=100, seed=5)
    facts = (Score("seconds", 3.0), Score("straightness", 0.1, seed=5))
    attempt(store, spec, score, score._replace(n=50, subject="floor"), *facts)
    always, streams = {("model", "seconds", -1, 0)}, {("model", "straightness", -1, 0)}
    samples = {("model", "fid", 2, 100), ("floor", "fid", 2, 50)}
    assert set(store.done(spec, 5)) == always | streams | samples
    assert set(store.done(spec, 6)) == always
    assert not store.done(replace(spec, seed=9), 5)


def test_done_adds_up_over_attempts_of_any_outcome(store: Store, spec: Spec) -> None:
    for nfe, error in enumerate((ValueError, KeyboardInterrupt, FlowbenchError)):
        with pytest.raises(error), store.attempt(spec, {}) as opened:
            opened.add(Score("fid", 1.0, nfe, n=10))
            raise error("stop")
    dead = store.attempt(spec, {})
    dead.__enter__().add(Score("fid", 1.0, 8, n=10))
    assert {nfe for _, _, nfe, _ in store.done(spec, 0)} == {0, 1, 2, 8}


def test_force_leaves_nothing_done(store: Store, spec: Spec) -> None:
    attempt(store, spec, Score("fid", 1.0))
    with store.attempt(spec, {}, force=True) as opened:
        assert not store.done(spec, 0)
        assert len(store.measured()) == 1, "shown until the new generation is finished"
        opened.add(Score("kid", 1.0))
    assert set(store.done(spec, 0)) == {("model", "kid", -1, 0)}
    assert [found.score.name for found in store.measured()] == ["kid"]


def test_the_newest_of_equal_scores_is_measured(store: Store, spec: Spec) -> None:
    attempt(store, spec, Score("fid", 1.0, n=10), Score("kid", 1.0, n=10))
    last = attempt(store, spec, Score("fid", 2.0, n=10), Score("fid", 3.0, n=20))
    found = [(each.score.name, each.score.n, each.score.value) for each in store.measured()]
    assert found == [("fid", 10, 2.0), ("fid", 20, 3.0), ("kid", 10, 1.0)]
    assert [each.attempt for each in store.measured()] == [last, last, last - 1]


def test_the_newest_attempt_wins_and_an_older_one_writes_no_more(store: Store, spec: Spec) -> None:
    older = store.attempt(spec, {})
    late = older.__enter__()
    attempt(store, spec, Score("fid", 2.0))
    with pytest.raises(Superseded, match=r"attempt 1 was closed meanwhile \(lost\)"):
        late.add(Score("fid", 1.0))
    older.__exit__(None, None, None)
    assert [found.score.value for found in store.measured()] == [2.0]


def test_measured_does_not_depend_on_the_order_of_writing(spec: Spec) -> None:
    runs = [replace(spec, seed=seed) for seed in (2, 0, 1)]
    scores = [Score(name, 1.0, nfe) for name in ("kid", "fid") for nfe in (4, 1, 2)]
    results = []
    for step in (1, -1):
        store = Store("sqlite://")
        for run in runs[::step]:
            attempt(store, run, *scores[::step])
        results.append([(each.run, each.score) for each in store.measured()])
        store.close()
    assert results[0] == results[1]
    assert len(results[0]) == 18


@pytest.fixture
def filled(store: Store, spec: Spec) -> Store:
    for dataset in ("digits", "cifar10"):
        for method in ("lmm", "edm", "cfm"):
            for seed in (0, 1):
                run = replace(spec, dataset=dataset, method=method, seed=seed)
                attempt(store, run, Score("fid", 1.0))
    return store


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 12),
        ({"dataset": "digits"}, 6),
        ({"methods": ["lmm", "cfm"]}, 8),
        ({"seeds": [1]}, 6),
        ({"methods": (), "seeds": ()}, 12),
        ({"dataset": "cifar10", "methods": ["edm"], "seeds": {0, 1}}, 2),
        ({"dataset": "moons"}, 0),
    ],
)
def test_filters(filled: Store, filters: dict, count: int) -> None:
    measured, tried = filled.measured(**filters), filled.tried(**filters)
    assert len(measured) == len(tried) == count
    for found in (*measured, *tried):
        assert found.spec.dataset == filters.get("dataset", found.spec.dataset)
        assert found.spec.method in (filters.get("methods") or [found.spec.method])
        assert found.spec.seed in (filters.get("seeds") or [found.spec.seed])


def test_few_statements(filled: Store, spec: Spec) -> None:
    with counted(filled) as statements:
        filled.measured()
        filled.tried()
        filled.done(spec, 0)
        filled.artifacts(spec.name)
    assert len(statements) == 6


def test_find_by_name_key_prefix_or_attempt(store: Store, spec: Spec) -> None:
    other = replace(spec, dataset="moons", changed={})
    attempt(store, spec)
    second = attempt(store, other)
    for words in (other.name, other.key, other.name[:4], other.key[:12], str(second)):
        assert store.find(words) == other


def test_find_prefers_a_whole_name_to_a_prefix(store: Store, spec: Spec) -> None:
    attempt(store, spec)
    (found,) = store.tried()
    longer = replace(spec, seed=4)
    attempt(store, longer)
    with store._database.transaction(write=True) as connection:
        connection.exec_driver_sql(
            "update runs set name = ? where id = 2", (f"{found.run}-longer",)
        )
    assert store.find(found.run) == spec


@pytest.mark.parametrize("words", ["dig", "moons", "77", "9" * 30, "", "²"])
def test_find_nothing(store: Store, spec: Spec, words: str) -> None:
    attempt(store, spec)
    with pytest.raises(FlowbenchError, match="no run is called"):
        store.find(words)


def test_find_names_what_is_near(store: Store, spec: Spec) -> None:
    attempt(store, spec)
    with pytest.raises(FlowbenchError, match=f"nearest: {spec.name}"):
        store.find("digitz-lmm-s3")


def test_find_names_what_is_ambiguous(store: Store, spec: Spec) -> None:
    other = replace(spec, seed=4)
    attempt(store, spec)
    attempt(store, other)
    with pytest.raises(FlowbenchError, match=f"fits several runs: {spec.name}, {other.name}"):
        store.find("digits-lmm")
