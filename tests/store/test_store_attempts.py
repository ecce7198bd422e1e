"""Writing: what an attempt stores, how it is numbered, and how it ends."""

import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from flowbench.records import Artifact, Diverged, FlowbenchError, RunFailed, Score, Spec, digest
from flowbench.store import Store
from flowbench.store.engine import Database

ENVIRONMENT = {"python": "3.11.7", "torch": "2.4", "device": "cpu", "packages": {"numpy": "2"}}


class OddOutcome(FlowbenchError):
    outcome = "no such outcome"


def attempt(store: Store, spec: Spec, *scores: Score, force: bool = False) -> int:
    with store.attempt(spec, ENVIRONMENT, force) as opened:
        for score in scores:
            opened.add(score)
    return opened.id


def test_every_field_survives(store: Store, spec: Spec) -> None:
    score = Score("fid", 0.1 + 0.2, 2, "floor", 1000, 7, "min", {"reference": "abc", "dims": 64})
    id = attempt(store, spec, score)

    (found,) = store.measured()
    assert found.score == score
    assert found.spec == spec
    assert (found.run, found.attempt, found.generation) == (spec.name, id, 1)
    assert found.environment == digest(ENVIRONMENT)
    assert store.environment(found.environment) == ENVIRONMENT


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.0, -1e308, 5e-324])
def test_extreme_values_survive(store: Store, spec: Spec, value: float) -> None:
    attempt(store, spec, Score("fid", value))
    assert store.measured()[0].score.value == value


def test_nan_survives(store: Store, spec: Spec) -> None:
    attempt(store, spec, Score("fid", math.nan))
    assert math.isnan(store.measured()[0].score.value)


def test_scores_survive_a_reopened_file(store: Store, spec: Spec, url: str) -> None:
    attempt(store, spec, Score("fid", 1.0))
    again = Store(url)
    assert again.measured() == store.measured() != []
    again.close()


def test_two_stores_in_memory_are_apart(spec: Spec) -> None:
    one, two = Store("sqlite://"), Store("sqlite://")
    attempt(one, spec, Score("fid", 1.0))
    assert len(one.measured()) == 1
    assert two.measured() == []
    one.close()
    two.close()


def test_an_attempt_is_tried(store: Store, spec: Spec) -> None:
    id = attempt(store, spec)
    (tried,) = store.tried()
    assert (tried.id, tried.run, tried.spec, tried.number) == (id, spec.name, spec, 1)
    assert (tried.outcome, tried.error) == ("ok", "")
    assert tried.environment == digest(ENVIRONMENT)
    started, ended = datetime.fromisoformat(tried.started), datetime.fromisoformat(tried.ended)
    assert started <= ended
    assert started.tzname() == "UTC"


def test_an_attempt_runs_until_it_is_left(store: Store, spec: Spec) -> None:
    with store.attempt(spec, ENVIRONMENT):
        (tried,) = store.tried()
    assert (tried.outcome, tried.ended) == ("running", "")


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (FlowbenchError("wrong word"), "failed", "wrong word"),
        (RunFailed("out of memory"), "failed", "out of memory"),
        (Diverged("loss is nan"), "diverged", "loss is nan"),
        (OddOutcome("odd"), "failed", "odd"),
        (ValueError("no good"), "failed", "ValueError: no good"),
        (ValueError("bad \udcff name\0"), "failed", "ValueError: bad ? name"),
        (KeyboardInterrupt(), "interrupted", ""),
        (SystemExit(3), "interrupted", ""),
        (GeneratorExit(), "interrupted", ""),
    ],
)
def test_what_ends_an_attempt_is_stored_and_raised(
    store: Store, spec: Spec, error: BaseException, outcome: str, text: str
) -> None:
    with pytest.raises(type(error)) as raised, store.attempt(spec, ENVIRONMENT) as opened:
        opened.add(Score("fid", 1.0))
        raise error
    assert raised.value is error
    (tried,) = store.tried()
    assert (tried.outcome, tried.error) == (outcome, text)
    assert tried.ended
    assert len(store.measured()) == 1


def test_the_type_of_an_error_is_stored(store: Store, spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(Diverged), store.attempt(spec, ENVIRONMENT):
        raise Diverged("loss is nan")
    with Database(f"sqlite:///{tmp_path / 'results.db'}").transaction() as connection:
        found = connection.exec_driver_sql("select error_type, error_text from attempts").one()
    assert tuple(found) == ("Diverged", "loss is nan")


def test_a_failure_to_store_the_outcome_does_not_hide_the_error(
    store: Store, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, error: BaseException | None = None) -> None:
        raise FlowbenchError("disk full")

    with pytest.raises(ValueError, match="first") as raised, store.attempt(spec, {}) as opened:
        monkeypatch.setattr(type(opened), "close", refuse)
        raise ValueError("first")
    assert "disk full" in raised.value.__notes__[0]


def test_an_unfinished_attempt_is_lost_when_the_next_one_opens(store: Store, spec: Spec) -> None:
    other = replace(spec, seed=4)
    unfinished = [store.attempt(each, ENVIRONMENT) for each in (spec, other)]
    for each in unfinished:
        each.__enter__().add(Score("fid", 1.0))
    attempt(store, spec)

    by_run = {(tried.spec.seed, tried.number): tried for tried in store.tried()}
    assert by_run[3, 1].outcome == "lost"
    assert by_run[3, 1].ended
    assert by_run[3, 2].outcome == "ok"
    assert by_run[4, 1].outcome == "running"
    assert len(store.measured()) == 2
    # It was not dead after all: what is stored stays.
    unfinished[0].__exit__(None, None, None)
    assert store.tried(seeds=[3])[0].outcome == "lost"


def test_attempts_are_numbered_within_their_run(store: Store, spec: Spec) -> None:
    other = replace(spec, seed=4)
    for each in (spec, other, spec, spec):
        attempt(store, each)
    numbers = [(tried.spec.seed, tried.number) for tried in store.tried()]
    assert numbers == [(3, 1), (3, 2), (3, 3), (4, 1)]
    assert len({tried.id for tried in store.tried()}) == 4


def test_force_starts_a_generation(store: Store, spec: Spec) -> None:
    generations = []
    for force in (True, False, True, False, True):
        with store.attempt(spec, ENVIRONMENT, force) as opened:
            generations.append((opened.number, opened.generation))
    assert generations == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]
    assert [tried.generation for tried in store.tried()] == [1, 1, 2, 2, 3]


def test_equal_environments_are_one_row(store: Store, spec: Spec, url: str) -> None:
    attempt(store, spec)
    attempt(store, spec)
    with store.attempt(spec, {"python": "3.12"}):
        pass
    with Database(url).transaction() as connection:
        rows = connection.exec_driver_sql("select python from environments order by 1").all()
    assert [row[0] for row in rows] == ["3.11.7", "3.12"]


def test_an_attempt_without_environment(store: Store, spec: Spec) -> None:
    with store.attempt(spec, {}) as opened:
        opened.add(Score("fid", 1.0))
    assert store.tried()[0].environment == store.measured()[0].environment == ""
    assert store.environment("") == {}


def test_an_unknown_environment_is_an_error(store: Store) -> None:
    with pytest.raises(FlowbenchError, match="abc"):
        store.environment("abc")


def test_the_same_score_twice_is_an_error(store: Store, spec: Spec) -> None:
    score = Score("fid", 1.0, 2, n=100)
    with store.attempt(spec, ENVIRONMENT) as opened:
        opened.add(score)
        others = ({"nfe": 1}, {"n": 10}, {"seed": 1}, {"subject": "floor"}, {"name": "kid"})
        for change in others:
            opened.add(score._replace(**change))
        with pytest.raises(FlowbenchError, match=r"already holds the score fid \(nfe=2, n=100"):
            opened.add(score._replace(value=2.0))
    assert len(store.measured()) == 6
    assert {found.score.value for found in store.measured()} == {1.0}


def test_notes_are_appended(store: Store, spec: Spec, url: str) -> None:
    with store.attempt(spec, ENVIRONMENT) as opened:
        opened.note("first")
        opened.note("second")
    with Database(url).transaction() as connection:
        notes = connection.exec_driver_sql("select notes from attempts").scalar_one()
    assert notes == '["first", "second"]'


def test_artifacts_of_the_latest_generation(store: Store, spec: Spec) -> None:
    with store.attempt(spec, ENVIRONMENT) as opened:
        opened.artifact("weights", Path("a/old.pt"), "00", 1)
    with store.attempt(spec, ENVIRONMENT, force=True) as opened:
        opened.artifact("weights", Path("a/b.pt"), "11", 2)
        opened.artifact("grid", "a/b.png", "22", 5_000_000_000)
    with store.attempt(spec, ENVIRONMENT) as opened:
        opened.artifact("weights", "a/b.pt", "33", 4)
    with store.attempt(replace(spec, seed=9), ENVIRONMENT) as opened:
        opened.artifact("weights", "other.pt", "44", 1)
    assert store.artifacts(spec.name) == [
        Artifact("weights", "a/b.pt", "33", 4),
        Artifact("grid", "a/b.png", "22", 5_000_000_000),
    ]
    assert store.artifacts("nothing") == []


def test_a_number_beyond_64_bits_is_one_line(store: Store, spec: Spec) -> None:
    with (
        pytest.raises(FlowbenchError, match="64 bits"),
        store.attempt(replace(spec, seed=2**70), {}),
    ):
        pass
    assert store.tried() == []
