"""The views for other tools: the same numbers as Python's, and an older database that has none."""

import math
import sqlite3
import statistics
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command

from flowbench.records import Budget, Diverged, FlowbenchError, Score, Spec
from flowbench.store import Store, schema, views
from flowbench.store.engine import Database

CHANGED = [
    {},
    {"variant": "cd", "adaptive": True, "start": None},
    {"levels": [0.5, 2], "features": ["deit", "vgg"], "lr": 0.002, "k": 1},
]


def table(path: Path, name: str) -> list[dict]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f'select * from "{name}"')]


def measure(store: Store, spec: Spec, scores: list[Score], force: bool = False) -> None:
    with store.attempt(spec, {"device": "cpu"}, force) as attempt:
        for score in scores:
            attempt.add(score)


def scores(seed: int, shift: float = 0.0) -> list[Score]:
    found = [
        Score("fid", 10 * nfe + seed + shift, nfe, n=100, seed=stream, goal="min")
        for nfe in (1, 2, 4, 8, 20, 50, 0, 7)
        for stream in (0, 1)
    ]
    found.append(Score("fid", 0.5, subject="floor", n=100, goal="min"))
    found += [Score("train-seconds", 12.5), Score("train-images", 640.0)]
    return [*found, Score("train-seconds:teacher", 8.0), Score("train-images:teacher", 320.0)]


@pytest.fixture
def path(store: Store, spec: Spec, tmp_path: Path) -> Path:
    """Three variants with three seeds; one was made anew, one diverges, one has a NaN."""
    for seed in range(3):
        for changed in CHANGED:
            one = replace(spec, seed=seed, changed=changed, options=changed)
            measure(store, one, scores(seed))
    measure(store, one, scores(2, shift=0.25), force=True)
    with pytest.raises(Diverged), store.attempt(one, {}, force=True) as attempt:
        attempt.add(Score("fid", 1e9, 1, n=100))
        raise Diverged("the loss became nan at step 3")
    bad = replace(spec, seed=0, changed={"k": 9}, budget=Budget(20, 2))
    measure(store, bad, [Score("fid", math.nan, 1, n=100), Score("fid", math.inf, 2, n=100)])
    measure(store, replace(bad, seed=1), [Score("fid", 3.0, 1, n=100), Score("fid", 3.0, 2, n=100)])
    return tmp_path / "results.db"


def test_the_leaderboard_has_the_scores_that_python_lists(path: Path, store: Store) -> None:
    words = {-1: "run", 0: "auto"}
    expected = {
        (
            *(row.spec.dataset, row.spec.method, row.spec.variant, row.run, row.spec.seed),
            *(row.score.subject, row.score.name, words.get(row.score.nfe, str(row.score.nfe))),
            *(row.score.n, row.score.seed, row.score.goal, row.score.fingerprint),
            row.score.value if math.isfinite(row.score.value) else str(row.score.value),
        )
        for row in store.measured()
    }
    names = [
        "dataset",
        "method",
        "variant",
        "run",
        "seed",
        "subject",
        "metric",
        "nfe",
        "n",
        "noise",
    ]
    names += ["goal", "fingerprint"]
    rows = table(path, "leaderboard")
    for row in rows:
        row["value"] = row["value"] if row["kind"] == "finite" else row["kind"]
    found = {tuple(row[name] for name in (*names, "value")) for row in rows}
    assert found == expected
    assert len(rows) == len(expected)
    assert {row["outcome"] for row in rows} == {"ok"}


def test_the_columns_of_nfe_are_means_over_seeds(path: Path, store: Store) -> None:
    values = defaultdict(list)
    for row in store.measured():
        if row.score.subject == "model" and row.score.nfe in views.NFES.values():
            key = (row.spec.variant, row.spec.budget.steps, row.score.seed, row.score.nfe)
            values[key].append(row.score.value)
    compared = 0
    for row in table(path, "method_by_nfe"):
        assert row["seeds"] == row["runs"] == (2 if row["variant"] == "lmm k=9" else 3)
        for column, nfe in views.NFES.items():
            steps = int(row["budget"].split()[0])
            some = values.get((row["variant"], steps, row["noise"], nfe), [])
            if some and all(map(math.isfinite, some)):
                assert row[column] == pytest.approx(statistics.fmean(some), rel=1e-12)
                compared += 1
            else:
                assert row[column] is None
    assert compared == 3 * 7 * 2


def test_failures_are_the_last_attempts_that_did_not_end_well(path: Path, store: Store) -> None:
    last = {attempt.run: attempt for attempt in store.tried()}
    expected = [t for t in last.values() if t.outcome not in ("ok", "running")]
    (row,) = table(path, "failures")
    assert [(t.run, t.error, t.number) for t in expected] == [
        (row["run"], row["reason"], row["attempt"])
    ]
    assert (row["outcome"], row["reason"]) == ("diverged", "the loss became nan at step 3")
    assert row["variant"] == "lmm features=['deit', 'vgg'] k=1 levels=[0.5, 2] lr=0.002"


def test_costs_tell_the_share_of_the_teacher(path: Path) -> None:
    rows = table(path, "costs")
    assert len(rows) == 9
    names = ("train_seconds", "teacher_seconds", "train_images", "teacher_images")
    assert {tuple(row[name] for name in names) for row in rows} == {(12.5, 8.0, 640.0, 320.0)}


def test_an_upgraded_database_has_the_views_of_a_new_one(path: Path, tmp_path: Path) -> None:
    old = age(path, tmp_path / "old.db")
    Store(f"sqlite:///{old}").close()
    for name in views.texts("sqlite"):
        assert table(old, name) == table(path, name)


def test_a_view_of_the_user_is_not_replaced(path: Path, tmp_path: Path) -> None:
    old = age(path, tmp_path / "old.db")
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("create view costs as select 'mine' as whose")
    with pytest.raises(FlowbenchError, match='view "costs" already exists'):
        Store(f"sqlite:///{old}")
    assert table(old, "costs") == [{"whose": "mine"}]
    with closing(sqlite3.connect(old)) as connection:
        found = connection.execute("select version_num from flowbench_alembic_version")
        assert found.fetchall() == [("0001",)]


def test_the_texts_are_for_both_databases() -> None:
    sqlite, postgresql = views.texts("sqlite"), views.texts("postgresql")
    assert list(sqlite) == list(postgresql)
    assert sqlite["leaderboard"] != postgresql["leaderboard"]
    assert all("%" not in text and "{" not in text for text in sqlite.values())
    assert all("%" not in text for text in postgresql.values())  # a placeholder to its driver


def age(path: Path, old: Path) -> Path:
    """The same results as the first revision stored them."""
    database = Database(f"sqlite:///{old}")
    with database.transaction(write=True, foreign_keys=False) as connection:
        command.upgrade(schema.configure(connection), "0001")
    database.close()
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("attach ? as new", (str(path),))
        for name in ("environments", "runs", "attempts", "scores", "artifacts"):
            columns = [row[1] for row in connection.execute(f"pragma main.table_info({name})")]
            some = ", ".join(columns)
            connection.execute(f"insert into main.{name} ({some}) select {some} from new.{name}")
    return old


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_old_read_only_database_is_still_read(path: Path, tmp_path: Path, mode: str) -> None:
    old = age(path, tmp_path / "old.db")
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(f"pragma journal_mode={mode}")
    before = old.read_bytes()
    store = Store.open_existing(f"sqlite:///file:{old}?mode=ro&uri=true")
    new = Store(f"sqlite:///{path}")
    assert repr(store.measured()) == repr(new.measured())  # as NaN equals nothing
    spec = store.measured()[0].spec
    with pytest.raises(FlowbenchError, match=r"old\.db.* is read-only"), store.attempt(spec, {}):
        pass
    assert old.read_bytes() == before
    assert not list(tmp_path.glob("*.bak*"))


def test_scores_at_another_nfe_are_counted(path: Path) -> None:
    found = {(row["variant"], row["noise"]): row["others"] for row in table(path, "method_by_nfe")}
    others = {key: count for key, count in found.items() if key[0] != "lmm k=9"}
    assert set(others.values()) == {3} and len(others) == 6, "NFE 7 of three seeds"
    assert found["lmm k=9", 0] == 0
    assert {"nfe_5", "nfe_18", "nfe_35", "nfe_79", "nfe_160"} <= set(views.NFES)
