"""Rows from another database: proved, joined without hiding anything, refused where they lie."""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy.dialects import postgresql

from flowbench.records import Diverged, FlowbenchError, Measured, Score, Spec
from flowbench.store import Store, foreign, guard, portable, schema
from flowbench.store.engine import Database
from flowbench.store.merging import Merged, Source

SCORES = [
    Score("fid", 1.0, 1, n=10, goal="min", protocol={"data": "x", "reference": ["train", 5]}),
    Score("fid", math.nan, 2, n=10),
    Score("is", math.inf, 2, n=10, seed=1),
    Score("kid", -math.inf, 2, n=10),
    Score("S", 0.1 + 0.2),
]


def measure(
    store: Store, spec: Spec, scores: Sequence[Score] = SCORES, force: bool = False, file: str = "a"
) -> None:
    """An attempt that ends well; no two begin in the same millisecond."""
    time.sleep(0.002)
    with store.attempt(spec, {"python": "3.11", "packages": {"x": "1"}}, force) as attempt:
        for score in scores:
            attempt.add(score)
        attempt.note("a remark\nof two lines")
        attempt.artifact("network", f"{spec.name}/network.safetensors", file * 64, 7)


def fail(store: Store, spec: Spec) -> None:
    time.sleep(0.002)
    with pytest.raises(Diverged), store.attempt(spec, {}):
        raise Diverged("the loss became nan")


@pytest.fixture
def opened(tmp_path: Path):
    """Open stores by the names of their files."""
    stores: dict[str, Store] = {}

    def at(name: str) -> Store:
        if name not in stores:
            stores[name] = Store(f"sqlite:///{tmp_path / name}.db")
        return stores[name]

    yield at
    for store in stores.values():
        store.close()


def source(path: Path) -> Source:
    rows = foreign.read(path)
    return Source(path.name, "database", rows.digest, rows)


@pytest.fixture
def join(opened: Callable[[str], Store], tmp_path: Path):
    """Merge the databases of these names into that of the first."""

    def merge(name: str, *others: str) -> list[Merged]:
        sources = [source(tmp_path / f"{other}.db") for other in others]
        return opened(name).merge(sources, lambda told: None)

    return merge


def content(store: Store) -> list[str]:
    """What is shown, whatever the ids and origins are."""
    return [repr(row._replace(attempt=0, origin="")) for row in store.measured()]


def shown(store: Store, name: str = "fid") -> list[float]:
    return [row.score.value for row in store.measured() if row.score.name == name]


def origins(store: Store) -> list[str]:
    return [attempt.origin for attempt in store.tried()]


def test_everything_arrives(opened, join, spec: Spec) -> None:
    there, here = opened("there"), opened("here")
    for seed in range(3):
        measure(there, replace(spec, seed=seed))
    fail(there, replace(spec, seed=7))
    (told,) = join("here", "there")
    assert (told.runs, told.attempts, told.scores, told.known) == (4, 4, 15, 0)
    assert content(here) == content(there)
    for row in there.measured():
        assert here.environment(row.environment) == there.environment(row.environment)
        assert here.artifacts(row.run) == there.artifacts(row.run)
    mine, theirs = ([replace(t, id=0, origin="") for t in s.tried()] for s in (here, there))
    assert mine == theirs
    (name,) = {*origins(here)}
    assert here.origins() == {name: "there.db"}
    assert here.rows().digest != there.rows().digest  # as it knows where they come from


def test_merging_again_changes_nothing(opened, join, spec: Spec) -> None:
    measure(opened("there"), spec)
    join("here", "there")
    before = opened("here").rows()
    told = join("here", "there", "there", "here")
    assert [(one.runs, one.known) for one in told] == [(0, 1)] * 3
    assert opened("here").rows() == before


def test_what_is_here_stays_what_is_shown(opened, join, spec: Spec) -> None:
    here, there = opened("here"), opened("there")
    measure(here, spec, [Score("fid", 1.0, 1)])
    measure(there, spec, [Score("fid", 2.0, 1), Score("kid", 2.0, 1)])
    measure(there, spec, [Score("fid", 3.0, 1)], force=True)
    (told,) = join("here", "there")
    assert (told.runs, told.attempts, told.hidden, told.shown) == (1, 2, 1, 0)
    assert shown(here) == [1.0]
    assert here.done(spec, 0).keys() == {("model", "fid", 1, 0)}
    assert [(t.number, t.generation) for t in here.tried()] == [(2, -1), (3, 0), (1, 1)]
    measure(here, spec, [Score("fid", 4.0, 1)], force=True)
    assert shown(here) == [4.0]
    assert here.tried()[-1].number == 4


def test_a_run_that_was_never_finished_here_shows_the_merged_one(opened, join, spec: Spec) -> None:
    here = opened("here")
    fail(here, spec)
    measure(opened("there"), spec, [Score("fid", 2.0, 1)])
    (told,) = join("here", "there")
    assert (told.hidden, told.shown) == (0, 1)
    assert shown(here) == [2.0]
    assert here.tried()[-1].outcome == "diverged"  # the last is the user's own


def test_of_two_sources_of_one_run_the_first_is_shown(opened, join, spec: Spec) -> None:
    for name, value in (("b", 2.0), ("c", 3.0)):
        measure(opened(name), spec, [Score("fid", value, 1)])
        measure(opened(name), replace(spec, seed=int(10 * value)), [Score("kid", value, 1)])
    join("bc", "b", "c")
    join("cb", "c")
    join("cb", "b")
    assert shown(opened("bc")) == [2.0]
    assert shown(opened("cb")) == [3.0]
    assert shown(opened("bc"), "kid") == shown(opened("cb"), "kid") == [2.0, 3.0]
    assert {*origins(opened("bc"))} == {*origins(opened("cb"))}


def test_a_source_continues_its_own_runs(opened, join, spec: Spec) -> None:
    there, here = opened("there"), opened("here")
    measure(there, spec, [Score("fid", 1.0, 1)])
    join("here", "there")
    measure(there, spec, [Score("fid", 2.0, 2)])
    join("here", "there")
    assert shown(here) == [1.0, 2.0]
    measure(there, spec, [Score("fid", 3.0, 1)], force=True)
    join("here", "there")
    assert shown(here) == shown(there) == [3.0]
    measure(here, spec, [Score("kid", 1.0, 1)])
    measure(there, spec, [Score("fid", 4.0, 1)], force=True)
    join("here", "there")
    assert shown(here) == [3.0]


def test_an_attempt_at_a_merged_run_goes_on(opened, join, spec: Spec) -> None:
    there, here = opened("there"), opened("here")
    measure(there, spec, [Score("fid", 1.0, 1)])
    join("here", "there")
    assert here.done(spec, 0).keys() == {("model", "fid", 1, 0)}
    measure(here, spec, [Score("fid", 2.0, 2)])
    assert [(t.number, t.generation, bool(t.origin)) for t in here.tried()] == [
        (1, 1, True),
        (2, 1, False),
    ]
    assert shown(here) == [1.0, 2.0]


def test_force_does_not_join_what_was_interrupted_elsewhere(opened, join, spec: Spec) -> None:
    there, here = opened("there"), opened("here")
    measure(there, spec)
    with pytest.raises(KeyboardInterrupt), there.attempt(spec, {}, force=True):
        raise KeyboardInterrupt
    join("here", "there")
    measure(here, spec, force=True)
    assert [t.generation for t in here.tried()] == [1, 2, 3]


def test_the_origin_is_kept_over_two_hops(opened, join, spec: Spec, tmp_path: Path) -> None:
    measure(opened("a"), replace(spec, seed=0))
    first = foreign.read(tmp_path / "a.db").digest
    measure(opened("b"), replace(spec, seed=1))
    join("b", "a")
    second = foreign.read(tmp_path / "b.db").digest
    join("c", "b")
    assert origins(opened("b")) == [first, ""]
    assert origins(opened("c")) == [first, second]
    assert opened("c").origins() == {first: "a.db", second: "b.db"}


def test_the_same_content_has_the_same_origin(opened, spec: Spec, tmp_path: Path) -> None:
    measure(opened("a"), spec)
    opened("a").close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("vacuum into ?", (str(tmp_path / "copy.db"),))
    copy, original = (foreign.read(tmp_path / name) for name in ("copy.db", "a.db"))
    assert (tmp_path / "copy.db").read_bytes() != (tmp_path / "a.db").read_bytes()
    assert copy.digest == original.digest


def test_what_still_runs_stays_there(opened, join, spec: Spec) -> None:
    there = opened("there")
    with there.attempt(spec, {}) as attempt:
        attempt.add(Score("fid", 1.0))
        (told,) = join("here", "there")
        assert (told.runs, told.attempts) == (0, 0)
    assert there.rows().running == 0
    join("here", "there")
    assert shown(opened("here")) == [1.0]


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("digest", 0, lambda: "f" * 64)
        for statement in statements:
            connection.execute(statement)


def test_an_attempt_with_other_content_is_a_conflict(
    opened, join, spec: Spec, tmp_path: Path
) -> None:
    measure(opened("there"), spec)
    join("here", "there")
    edit(tmp_path / "there.db", "update scores set value = 9 where name = 'S'")
    measure(opened("there"), replace(spec, seed=9))
    before = opened("here").rows()
    with pytest.raises(FlowbenchError, match=rf"{spec.name}.*attempt 1.*other content; nothing"):
        join("here", "there")
    assert opened("here").rows() == before


LIES = {
    "update scores set fingerprint = '0123456789abcdef' where name = 'fid'": "score fid of .*print",
    "update scores set protocol = '{\"reference\": \"y\"}' where name = 'fid'": "score fid of",
    "update scores set n = 20 where name = 'fid'": "score fid of",
    "update runs set spec = json_set(spec, '$.options.sigma', 0.25)": "another key than its spec",
    "update runs set spec = json_set(spec, '$.dataset', '../../x')": "that is no name",
    "update runs set spec = json_set(spec, '$.method', 5)": "method is not",
    "update runs set spec = json_set(spec, '$.extra', 5)": "has not the columns",
    "update runs set spec = json_remove(spec, '$.code')": "another key than its spec",
    "update runs set spec = json_remove(spec, '$.budget')": "has not the columns steps, batch",
    "update runs set spec = json_remove(spec, '$.seed')": "no readable spec",
    "update runs set spec = json_set(spec, '$.budget.steps', 0)": "no readable spec",
    "update runs set spec = json_set(spec, '$.sources', json('{\"x\": 1}'))": "sources is not",
    "update runs set key = digest()": "another key than its spec",
    'update environments set json = \'{"python": "3.12"}\'': "environment .* another hash",
    "update attempts set environment = 'x'": "environment is not",
    "update attempts set environment = digest()": "unknown environment",
    "update attempts set origin = digest()": "unknown origin",
    "update attempts set started = 'yesterday'": "started is not a UTC time",
    "update attempts set pid = 'x'": "pid is not",
    "update attempts set generation = 1e9": "generation is not",
    "update attempts set host = char(27)": "host is not a printable text",
    "update attempts set notes = '[1]'": "notes is not texts",
    "update attempts set error_text = cast(x'ff41' as text)": "error_text is not",
    "update scores set name = char(27) || '[2J' where name = 'S'": "name is not a printable text",
    "update scores set value = 'much' where name = 'S'": "value is not",
    "update scores set value = 9e999 where name = 'S'": "value is not",
    "update scores set nfe = -2 where name = 'S'": "nfe is not",
    "update scores set protocol = '{'": "malformed JSON",
    "update scores set protocol = '{\"x\": NaN}'": "malformed JSON",
    "update scores set protocol = '[]'": "protocol is not",
    "update scores set protocol = x'ff00'": "protocol|malformed",
    "update artifacts set path = '../network.safetensors'": "has a file at",
    "update artifacts set path = '/etc/passwd'": "has a file at",
    "update artifacts set path = 'digits-edm-s0-01234567/network.safetensors'": "has a file at",
    "update artifacts set path = replace(path, 'network.safetensors', 'train.pt')": "has a file at",
    "update artifacts set path = replace(path, 'network', '../network')": "has a file at",
    "update artifacts set sha256 = 'x'": "sha256 is not a hash",
    "update artifacts set bytes = -1": "bytes is not a size",
}


@pytest.mark.parametrize("statement", LIES, ids=lambda text: text[7:70])
def test_what_was_tampered_with_is_refused(opened, spec: Spec, tmp_path: Path, statement) -> None:
    measure(opened("there"), spec)
    path = tmp_path / "there.db"
    edit(path, "pragma foreign_keys=off", "pragma ignore_check_constraints=on", statement)
    opened("there").close()
    with pytest.raises(FlowbenchError, match=LIES[statement]) as raised:
        foreign.read(path)
    text = str(raised.value)
    assert text.startswith(str(path))
    assert text.isprintable()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("value", [nested(900), nested(100_000), '{"x": 1' + "0" * 5000 + "}"])
@pytest.mark.parametrize("column", ["scores.protocol", "runs.spec", "environments.json"])
def test_monstrous_json_is_refused(opened, spec: Spec, tmp_path: Path, value, column) -> None:
    measure(opened("there"), spec)
    table, name = column.split(".")
    with closing(sqlite3.connect(tmp_path / "there.db")) as connection, connection:
        connection.execute(f"update {table} set {name} = ?", ('{"deep": ' + value + "}",))
    with pytest.raises(FlowbenchError):
        foreign.read(tmp_path / "there.db")


def test_a_value_beyond_all_measure_is_not_even_read(
    opened, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(opened("there"), spec)
    monkeypatch.setattr(guard, "LONGEST", 2**16)
    edit(
        tmp_path / "there.db", "update scores set protocol = '[\"' || hex(zeroblob(40000)) || '\"]'"
    )
    with pytest.raises(FlowbenchError, match="too big"):
        foreign.read(tmp_path / "there.db")


def test_triggers_and_additions_do_not_matter(opened, join, spec: Spec, tmp_path: Path) -> None:
    measure(opened("there"), spec)
    expected = content(opened("there"))
    edit(
        tmp_path / "there.db",
        "alter table scores add column extra text default 'x'",
        "create trigger t after insert on scores begin delete from scores; end",
        "create table more (x)",
        "create view everything as select * from scores",
        "create index i on scores (value)",
    )
    join("here", "there")
    assert content(opened("here")) == expected


@pytest.mark.parametrize(
    "replacement",
    ["create view scores as select * from hidden", "create virtual table scores using fts4(a)"],
)
def test_a_view_in_the_place_of_a_table_is_refused(
    opened, spec: Spec, tmp_path: Path, replacement: str
) -> None:
    measure(opened("there"), spec)
    edit(tmp_path / "there.db", "alter table scores rename to hidden", replacement)
    with pytest.raises(FlowbenchError, match="no database of flowbench: it has no table scores"):
        foreign.read(tmp_path / "there.db")


def test_a_schema_that_shouts_is_refused_in_one_line(opened, spec: Spec, tmp_path: Path) -> None:
    measure(opened("there"), spec)
    edit(
        tmp_path / "there.db",
        "pragma writable_schema=on",
        "update sqlite_master set sql = char(27, 10) || 'create table \"' where name = 'runs'",
    )
    with pytest.raises(FlowbenchError) as raised:
        foreign.read(tmp_path / "there.db")
    assert str(raised.value).isprintable()


def test_a_broken_page_is_never_merged(opened, spec: Spec, tmp_path: Path) -> None:
    for seed in range(6):
        measure(opened("there"), replace(spec, seed=seed))
    opened("there").close()
    path, refused = tmp_path / "there.db", 0
    expected, whole = foreign.read(path), path.read_bytes()
    for page in range(0, len(whole), 4096):
        at = slice(page + 2000, page + 4090)
        path.write_bytes(whole[: at.start] + bytes(b ^ 0x5A for b in whole[at]) + whole[at.stop :])
        try:
            assert foreign.read(path) == expected  # a page of an index, or what is free of a page
        except FlowbenchError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert str(error).isprintable()
    assert refused > 10


def test_another_kind_of_database_is_refused(tmp_path: Path) -> None:
    edit(tmp_path / "x.db", "create table runs (id)")
    with pytest.raises(FlowbenchError, match="is no database of flowbench"):
        foreign.read(tmp_path / "x.db")


def test_a_newer_schema_is_refused(opened, spec: Spec, tmp_path: Path) -> None:
    measure(opened("there"), spec)
    edit(tmp_path / "there.db", "update flowbench_alembic_version set version_num = '0999'")
    with pytest.raises(FlowbenchError, match=f"schema '0999'.*up to {schema.HEAD}.*pip install"):
        foreign.read(tmp_path / "there.db")


def test_the_first_schema_is_read_as_it_is(opened, join, spec: Spec, tmp_path: Path) -> None:
    measure(opened("new"), spec)
    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    with database.transaction(write=True) as connection:
        command.upgrade(schema.configure(connection), "0001")
    database.close()
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection, connection:
        connection.execute("attach ? as new", (str(tmp_path / "new.db"),))
        for name in foreign.TABLES:
            columns = ", ".join(
                row[1] for row in connection.execute(f"pragma main.table_info({name})")
            )
            connection.execute(f"insert into {name} ({columns}) select {columns} from new.{name}")
    before = (tmp_path / "old.db").read_bytes()
    join("here", "old")
    assert content(opened("here")) == content(opened("new"))
    assert (tmp_path / "old.db").read_bytes() == before
    assert {path.name for path in tmp_path.glob("old*")} == {"old.db"}


def test_reading_leaves_no_files_and_sees_what_is_not_checkpointed(
    opened, spec: Spec, tmp_path: Path
) -> None:
    there = opened("there")
    measure(there, spec)
    assert (tmp_path / "there.db-wal").stat().st_size  # the rows are only there
    assert len(foreign.read(tmp_path / "there.db")["scores"]) == len(SCORES)
    there.close()
    assert len(foreign.read(tmp_path / "there.db")["scores"]) == len(SCORES)
    assert [path.name for path in tmp_path.iterdir()] == ["there.db"]


def test_two_runs_of_one_name_are_refused(opened, join, spec: Spec, tmp_path: Path) -> None:
    measure(opened("there"), spec)
    measure(opened("here"), replace(spec, seed=8))
    edit(tmp_path / "here.db", f"update runs set name = '{spec.name}'")
    before = content(opened("here"))
    with pytest.raises(FlowbenchError, match="as the name of another run"):
        join("here", "there")
    assert content(opened("here")) == before


def test_nothing_arrives_if_a_file_cannot_be_placed(opened, spec: Spec, tmp_path: Path) -> None:
    measure(opened("there"), spec)

    def place(told: Sequence[Merged]) -> None:
        raise FlowbenchError("no room")

    with pytest.raises(FlowbenchError, match="no room"):
        opened("here").merge([source(tmp_path / "there.db")], place)
    assert opened("here").tried() == []
    assert opened("here").origins() == {}


def test_the_questions_compile_for_a_server() -> None:
    for query in portable._queries([], origins=True).values():
        text = str(query.compile(dialect=postgresql.dialect()))
        assert text.startswith("SELECT")


def test_rows_survive_being_lines(opened, spec: Spec) -> None:
    measure(opened("there"), spec)
    rows = opened("there").rows()
    for table in portable.COLUMNS:
        assert [json.loads(line) for line in portable.lines(rows[table])] == rows[table]


def test_measured_rows_know_their_origin(opened, join, spec: Spec) -> None:
    measure(opened("there"), spec)
    join("here", "there")
    rows: list[Measured] = opened("here").measured()
    assert {row.origin for row in rows} == {*origins(opened("here"))}
