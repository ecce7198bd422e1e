"""Scores that are read by columns are those that were stored, in order and once each."""

import math

import pytest
from stored_rows import MACHINE, score, spec

from flowbench.records import Diverged
from flowbench.store import Store, scores


def some(place):
    """Scores whose order of storing is not that of reading, some of them not finite."""
    found = [score(v, nfe=nfe) for nfe, v in ((4, math.nan), (1, math.inf), (2, -math.inf))]
    return [*found, score(place, "a", 16), score(place, "b", n=0), score(place, "a", 2)]


@pytest.fixture
def store(database):
    """Four runs stored from the last to the first; the attempts at two of them broke off."""
    found = Store(f"sqlite:///{database}")
    for seed in (3, 2, 1, 0):
        for again in (True, False) if seed in (1, 2) else (False,):
            try:
                with found.attempt(spec(seed=seed), MACHINE) as attempt:
                    kept = some(seed + again / 2)
                    for one in kept[:3] + kept[4:] if again else kept[2:]:
                        attempt.add(one)
                    if again:
                        raise Diverged("broken off")
            except Diverged:
                pass
    return found


@pytest.mark.parametrize("many", [1, 2, 500])
def test_every_score_is_read_once_however_many_attempts_one_statement_takes(
    store, monkeypatch, many
):
    monkeypatch.setattr(scores, "MANY", many)
    read = store.measured()
    assert [row.run for row in read] == sorted(row.run for row in read)
    for seed in range(4):
        rows = [row for row in read if row.spec.seed == seed]
        broken = seed in (1, 2)
        assert len(rows) == (6 if broken else 4) and len({id(row.spec) for row in rows}) == 1
        places = [(row.score.name, row.score.nfe, row.score.n) for row in rows]
        assert places == sorted(places)
        # What both attempts measured is the later one's.
        assert [row.score.value for row in rows if row.score.name == "a"] == [seed, seed]
        assert len({row.attempt for row in rows}) == 1 + broken
        odd = [row.score.value for row in rows if row.score.name == "fd"]
        assert sum(map(math.isnan, odd)) == broken
        assert odd.count(math.inf) == broken and odd.count(-math.inf) == 1


def test_what_one_protocol_says_is_one_object(store):
    """Fingerprints are made once for each, and thousands of scores share a few."""
    kept = {id(row.score.protocol) for row in store.measured() if row.score.n}
    assert len(kept) == 1


def test_a_place_without_scores_gives_none(database):
    found = Store(f"sqlite:///{database}")
    assert found.measured() == []
    with found.attempt(spec(), MACHINE):
        pass
    assert found.measured() == [] and len(found.tried()) == 1
