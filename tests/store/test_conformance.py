"""What every database does alike: in memory, in a file of SQLite, on a server of PostgreSQL."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from other_workers import Worker

from flowbench.records import Artifact, Diverged, FlowbenchError, Score, Spec
from flowbench.store import Store
from flowbench.store.leases import Held, Superseded
from flowbench.store.merging import Source

ENVIRONMENT = {"python": "3.11.7", "torch": "2.4", "device": "cpu", "packages": {"numpy": "2"}}
VALUES = [math.nan, math.inf, -math.inf, 0.1 + 0.2, 0.0, 5e-324, -1.7e308]
ODD = "100% of 'it': \"ü\" \\ {braces} :name %(pyformat)s ; drop table runs; --"


def attempt(store: Store, spec: Spec, *scores: Score, force: bool = False) -> int:
    with store.attempt(spec, ENVIRONMENT, force) as opened:
        for score in scores:
            opened.add(score)
    return opened.id


def outcomes(store: Store) -> list[str]:
    return [tried.outcome for tried in store.tried()]


def ask(store: Store, question: str) -> list[tuple]:
    with store._database.transaction() as connection:
        if connection.dialect.name == "sqlite":  # views are for other tools, which trust them
            connection.exec_driver_sql("pragma trusted_schema=on")
        return [tuple(row) for row in connection.exec_driver_sql(question)]


def test_every_number_comes_back_bit_by_bit(anywhere: Store, spec: Spec) -> None:
    scores = [Score("fid", value, nfe, n=2**40, seed=7) for nfe, value in enumerate(VALUES)]
    attempt(anywhere, spec, *scores)
    found = sorted((row.score.nfe, row.score.value) for row in anywhere.measured())
    assert [value.hex() for _, value in found] == [value.hex() for value in VALUES]
    assert all(row.spec == spec for row in anywhere.measured())


def test_a_zero_has_no_sign_anywhere(anywhere: Store, spec: Spec) -> None:
    attempt(anywhere, spec, Score("fid", -0.0))
    assert math.copysign(1, anywhere.measured()[0].score.value) == 1


def test_every_field_comes_back(anywhere: Store, spec: Spec) -> None:
    score = Score("fid", 1.5, 2, "floor", 1000, 7, "min", {"reference": ODD, "dims": 64})
    odd = replace(spec, options={"word": ODD}, changed={"word": ODD})
    with anywhere.attempt(odd, ENVIRONMENT) as opened:
        opened.add(score)
        opened.note(ODD + "\n\ttwo lines")
        opened.artifact("network", Path("a/b.safetensors"), "11", 5_000_000_000)
    (found,), (tried,) = anywhere.measured(), anywhere.tried()
    assert (found.score, found.spec, found.attempt) == (score, odd, tried.id)
    assert tried.notes == (ODD + "\n\ttwo lines",) and tried.outcome == "ok"
    assert anywhere.environment(found.environment) == ENVIRONMENT
    assert anywhere.artifacts(spec.name) == []
    assert anywhere.artifacts(odd.name) == [Artifact("network", "a/b.safetensors", "11", 5 * 10**9)]
    assert anywhere.find(odd.name[:-3]) == anywhere.find(str(tried.id)) == odd
    assert anywhere.specs() == {odd.key: odd}
    done = anywhere.done(odd, 7)
    assert done == {("floor", "fid", 2, 1000): dict(score.protocol)}


def test_attempts_and_generations_are_counted(anywhere: Store, spec: Spec) -> None:
    for force in (False, True, False):
        attempt(anywhere, spec, Score("fid", 1.0), force=force)
    with pytest.raises(Diverged), anywhere.attempt(spec, {}, force=True):
        raise Diverged("loss is nan")
    found = [(t.number, t.generation, t.outcome) for t in anywhere.tried()]
    assert found == [(1, 1, "ok"), (2, 2, "ok"), (3, 2, "ok"), (4, 3, "diverged")]
    assert [(m.attempt, m.generation) for m in anywhere.measured()] == [(anywhere.tried()[2].id, 2)]


def test_the_same_score_twice_is_refused(anywhere: Store, spec: Spec) -> None:
    with anywhere.attempt(spec, {}) as opened:
        opened.add(Score("fid", 1.0))
        with pytest.raises(FlowbenchError, match="already holds the score fid"):
            opened.add(Score("fid", 2.0))
        opened.add(Score("fid", 2.0, 1))
    assert [row.score.value for row in anywhere.measured()] == [1.0, 2.0]


def test_a_run_is_held_and_taken_over_and_late_writes_are_refused(
    anywhere: Store, spec: Spec, elsewhere: Worker
) -> None:
    with elsewhere.at_work(anywhere, spec) as late:
        late.add(Score("fid", 1.0))
        with pytest.raises(Held), anywhere.attempt(spec, {}):
            pass
        assert outcomes(anywhere) == ["running"], "what was refused has left something"
        with anywhere.attempt(spec, {}, expired={late.id}) as opened:
            writes = (
                lambda: late.add(Score("kid", 1.0)),
                lambda: late.note("late"),
                lambda: late.artifact("network", "late.safetensors", "00", 1),
            )
            for write in writes:
                with pytest.raises(Superseded, match=r"attempt 1 was closed meanwhile \(lost\)"):
                    write()
            opened.add(Score("fid", 2.0))
    late.close()
    assert outcomes(anywhere) == ["lost", "ok"]
    assert [(m.score.name, m.score.value) for m in anywhere.measured()] == [("fid", 2.0)]
    assert anywhere.artifacts(spec.name) == [] and anywhere.tried()[0].notes == ()
    assert ask(anywhere, "select count(*) from scores") == [(2,)]


def test_force_does_not_take_over_who_lives(anywhere: Store, spec: Spec, elsewhere: Worker) -> None:
    with elsewhere.at_work(anywhere, spec) as late:
        with pytest.raises(Held), anywhere.attempt(spec, {}, force=True):
            pass
        with anywhere.attempt(spec, {}, force=True, expired={late.id}) as opened:
            assert (opened.number, opened.generation) == (2, 2)


def test_beats_are_counted_while_an_attempt_runs(
    anywhere: Store, spec: Spec, elsewhere: Worker
) -> None:
    others = [replace(spec, seed=seed) for seed in (4, 5)]
    with elsewhere.at_work(anywhere, spec) as one, elsewhere.at_work(anywhere, others[0]) as two:
        keys = [spec.key, *(other.key for other in others)]
        assert anywhere.beat([one.id, two.id]) == set()
        assert anywhere.beat([one.id, two.id + 1]) == {two.id + 1}
        assert anywhere.beat([]) == set()
        held = anywhere.holders(keys)
        assert {key: (h.attempt, h.beats) for key, h in held.items()} == {
            spec.key: (one.id, 2),
            others[0].key: (two.id, 1),
        }
        assert anywhere.conclude(two.id, "timeout", "took too long")
        assert anywhere.beat([one.id, two.id]) == {two.id}
        assert set(anywhere.holders(keys)) == {spec.key}
    assert anywhere.holders(keys) == {}
    assert outcomes(anywhere) == ["ok", "timeout"]


def test_text_that_is_none_is_stored_as_far_as_it_goes(anywhere: Store, spec: Spec) -> None:
    with pytest.raises(ValueError), anywhere.attempt(spec, {}) as opened:
        opened.note("a\0b\udcff")
        raise ValueError("bad \udcff name\0")
    (tried,) = anywhere.tried()
    assert (tried.notes, tried.error) == (("ab?",), "ValueError: bad ? name")


def test_a_name_that_is_no_text_is_one_line_and_nothing_is_stored(
    anywhere: Store, spec: Spec
) -> None:
    with anywhere.attempt(spec, {}) as opened:
        with pytest.raises(FlowbenchError, match="cannot hold text that is not Unicode"):
            opened.artifact("network", "\udcff.safetensors", "00", 1)
        with pytest.raises(FlowbenchError, match=r"64 bits|out of range"):
            opened.add(Score("fid", 1.0, n=2**70))
        opened.add(Score("fid", 1.0))
    assert anywhere.artifacts(spec.name) == [] and len(anywhere.measured()) == 1


def test_a_failed_transaction_leaves_nothing(anywhere: Store) -> None:
    with (
        pytest.raises(FlowbenchError, match="refused"),
        anywhere._database.transaction(write=True) as connection,
    ):
        for digest in ("'x'", "null"):
            row = f"insert into environments values ({digest}, '{{}}', '', '', '', '')"
            connection.exec_driver_sql(row)
    assert ask(anywhere, "select * from environments") == []


def test_the_views_have_the_numbers_that_python_lists(anywhere: Store, spec: Spec) -> None:
    words = {"a": True, "b": None, "c": [0.5, 2], "d": ["x", "y"], "e": 0.25, "f": ODD, "g": 1}
    for seed in (0, 1):
        one = replace(spec, seed=seed, changed=words)
        scores = [Score("fid", nfe + seed, nfe, n=100, goal="min") for nfe in (1, 2, 7)]
        attempt(anywhere, one, *scores, Score("train-seconds", 12.5))
    with pytest.raises(Diverged), anywhere.attempt(replace(spec, seed=9), {}):
        raise Diverged("loss is nan")
    board = ask(anywhere, "select run, variant, metric, nfe, value from leaderboard")
    expected = set()
    for m in anywhere.measured():
        nfe = "run" if m.score.nfe == -1 else str(m.score.nfe)
        expected.add((m.run, m.spec.variant, m.score.name, nfe, m.score.value))
    assert set(board) == expected and len(board) == len(expected) == 8
    means = "select seeds, nfe_1, nfe_2, nfe_4, others from method_by_nfe"
    assert ask(anywhere, means) == [(2, 1.5, 2.5, None, 2)]
    assert ask(anywhere, "select seed, outcome, reason from failures") == [
        (9, "diverged", "loss is nan")
    ]
    assert ask(anywhere, "select train_seconds from costs") == [(12.5,), (12.5,)]


@pytest.mark.parametrize("word", ["a\0b", "\ud83d", "\u2028", "two\nlines", "\x1b[2J"])
def test_an_option_that_would_break_a_view_or_a_terminal_is_refused(
    anywhere: Store, spec: Spec, word: str
) -> None:
    for changed in ({"word": word}, {"list": [word]}, {word: 1}):
        odd = replace(spec, changed=changed, options=changed)
        with pytest.raises(FlowbenchError, match="letters that cannot be printed") as raised:
            attempt(anywhere, odd, Score("fid", 1.0, 1))
        assert str(raised.value).isprintable()
    assert anywhere.tried() == [] and anywhere.specs() == {}


def test_rows_travel_from_each_database_into_each(
    anywhere: Store, spec: Spec, elsewhere: Worker
) -> None:
    store = Store("sqlite://")
    real = "digits-lmm-s3-" + spec.key[:8] + "/network.safetensors"
    with anywhere.attempt(spec, ENVIRONMENT) as opened:
        for nfe, value in enumerate(VALUES):
            opened.add(Score("fid", value, nfe, n=10))
        opened.artifact("network", real, "ab" * 32, 5)
    with elsewhere.at_work(anywhere, replace(spec, seed=4)):
        rows = anywhere.rows()
        assert rows.running == 1
        digest = "cd" * 32
        (told,) = store.merge([Source("theirs", "database", digest, rows)], lambda told: None)
        assert (told.attempts, told.scores, told.known) == (1, len(VALUES), 0)
        (again,) = anywhere.merge([Source("mine", "database", digest, store.rows())], print)
        assert (again.attempts, again.known) == (0, 1)
    assert [repr(m.score) for m in store.measured()] == [repr(m.score) for m in anywhere.measured()]
    assert ask(store, "select beats, birth from attempts") == [(0, "")]
