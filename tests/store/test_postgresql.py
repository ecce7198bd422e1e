"""A real server: many at once, connections that are cut, passwords that nobody sees, no rights."""

from collections import Counter

import pytest
from alembic import command
from servers import PASSWORD, Server
from test_store_processes import SAME_RUN

from flowbench.records import FlowbenchError, Score, Spec
from flowbench.store import Store, schema
from flowbench.store.engine import Database

CUT = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"


@pytest.fixture
def url(server: Server) -> str:
    return server.new()


def name_in(url: str) -> str:
    """The name of the database in a URL."""
    return url.partition("?")[0].rpartition("@/")[2]


def cut(server: Server, url: str) -> None:
    """End every connection to a database, as a server that restarts does."""
    with server.connect() as connection:
        connection.execute(CUT, (name_in(url),))


def test_the_server_listens_on_no_network(server: Server) -> None:
    with server.connect() as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("",)
        assert connection.execute("show server_encoding").fetchone() == ("UTF8",)


def test_four_processes_create_and_share_one_run(start, url: str) -> None:
    for process in start(SAME_RUN, 4):
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    store = Store(url)
    assert [(t.number, t.outcome) for t in store.tried()] == [(n, "ok") for n in range(1, 5)]
    assert len(store.measured()) == 20 and len(store.specs()) == 1
    store.close()


def test_a_connection_that_was_cut_is_opened_again(server: Server, store: Store, spec: Spec, url):
    with store.attempt(spec, {}) as attempt:
        attempt.add(Score("fid", 1.0))
        cut(server, url)
        attempt.add(Score("kid", 1.0))
        cut(server, url)
        assert store.beat([attempt.id]) == set()
        cut(server, url)
    assert [t.outcome for t in store.tried()] == ["ok"] and len(store.measured()) == 2


def test_a_cut_within_a_transaction_is_one_line_and_leaves_nothing(
    server: Server, store: Store, spec: Spec, url: str
) -> None:
    with store.attempt(spec, {}) as attempt:
        with (
            pytest.raises(FlowbenchError, match="was cut off from its server") as raised,
            attempt._writing() as connection,
        ):
            connection.exec_driver_sql("update attempts set notes = '[\"half\"]'")
            cut(server, url)
            connection.exec_driver_sql("select 1")
        assert "\n" not in str(raised.value) and PASSWORD not in str(raised.value)
        attempt.add(Score("fid", 1.0))
    assert [(t.outcome, t.notes) for t in store.tried()] == [("ok", ())]


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_an_older_schema_on_a_server_is_upgraded(url: str, spec: Spec, revision: str) -> None:
    database = Database(url)
    with database.transaction(write=True) as connection:
        command.upgrade(schema.configure(connection), revision)
        names, row = "key, name, method, dataset, seed, spec, created", "0, '{}', 'then'"
        row = f"('key', 'digits-old', 'lmm', 'digits', {row})"
        connection.exec_driver_sql(f"insert into runs ({names}) values {row}")
        names = "run_id, number, generation, host, pid, started, outcome, notes"
        row = "(1, 1, 1, 'host', 7, 'then', 'running', '[]')"
        connection.exec_driver_sql(f"insert into attempts ({names}) values {row}")
    store = Store(url)
    with store.attempt(spec, {}) as attempt:
        attempt.add(Score("fid", 1.0, 1))
    with database.transaction() as connection:
        assert schema.revision(connection) == schema.HEAD
        found = connection.exec_driver_sql("select beats, birth, origin from attempts where id = 1")
        assert tuple(found.one()) == (0, "", "")
        assert connection.exec_driver_sql("select value from leaderboard").scalars().all() == [1.0]
    database.close()
    store.close()


def test_a_newer_schema_on_a_server_is_refused(store: Store, url: str) -> None:
    with store._database.transaction(write=True) as connection:
        connection.exec_driver_sql("update flowbench_alembic_version set version_num = '0999'")
    with pytest.raises(FlowbenchError, match=f"schema 0999, but .* up to {schema.HEAD}"):
        Store(url)


UPGRADE = """
store = Store(url)
with store.attempt(spec, {}) as attempt:
    attempt.add(Score("fid", 1.0, 1))
"""


def test_three_processes_upgrade_at_once(start, url: str) -> None:
    database = Database(url)
    with database.transaction(write=True) as connection:
        command.upgrade(schema.configure(connection), "0001")
    for process in start(UPGRADE, 3):
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    store = Store(url)
    assert Counter(t.outcome for t in store.tried()) == {"ok": 3}
    store.close()
    database.close()


def test_merges_at_once_do_not_wait_for_each_other_for_ever(start, url: str, spec: Spec) -> None:
    merge = """
from flowbench.store.merging import Source
rows = []
for name in ("a", "b", "c"):
    source = Store("sqlite://")
    for seed in range(5):
        with source.attempt(Spec("lmm", "digits", seed, Budget(10, 2)), {"name": name}) as attempt:
            attempt.add(Score("fid", 1.0, number))
    rows.append(Source(name, "database", (name + str(number)) * 32, source.rows()))
store = Store(url)
store.merge(rows if number % 2 else rows[::-1], lambda told: None)
"""
    for process in start(merge, 3):
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    store = Store(url)
    assert len(store.tried()) == 3 * 3 * 5 and len(store.origins()) == 9
    store.close()


def test_a_reader_with_a_snapshot_stops_no_writer(store: Store, spec: Spec) -> None:
    with store._database.transaction() as reader:
        assert reader.exec_driver_sql("select count(*) from scores").scalar_one() == 0
        with store.attempt(spec, {}) as attempt:
            attempt.add(Score("fid", 1.0))
    assert len(store.measured()) == 1


def test_a_user_without_rights_is_told_so(server: Server, store: Store, url: str, spec: Spec):
    role = f"guest_{name_in(url)}"
    with server.connect() as connection:
        connection.execute(f"create role {role} login password '{PASSWORD}'")
    guest = url.replace("//bench:", f"//{role}:")
    with pytest.raises(FlowbenchError, match="does not let you write"):
        Store(guest).measured()
    with server.connect(name_in(url)) as connection:
        connection.execute(f"grant select on all tables in schema public to {role}")
    reader = Store.open_existing(guest)
    assert reader.measured() == []
    with pytest.raises(FlowbenchError, match="does not let you write"), reader.attempt(spec, {}):
        pass
    reader.close()
