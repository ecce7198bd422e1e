"""Passwords in URLs: no message, row, representation or traceback of the store shows one."""

import pickle
import traceback
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import PASSWORD, Server

from flowbench.records import FlowbenchError, Score, Spec
from flowbench.store import Store
from flowbench.store.complaints import shown_text
from flowbench.store.engine import Database

SECRET = "s3cret-word"
NOWHERE = "host=/nowhere-at-all"
URLS = {
    "no server": f"postgresql://user:{SECRET}@/name?{NOWHERE}",
    "no server on TCP": f"postgresql://user:{SECRET}@127.0.0.1:1/name",
    "password in the query": f"postgresql://user@/name?{NOWHERE}&password={SECRET}",
    "in capitals": f"postgresql://user@/name?{NOWHERE}&PASSWORD={SECRET}",
    "password of a key": f"postgresql://user@/name?{NOWHERE}&sslpassword={SECRET}",
    "an unknown option": f"postgresql://user:{SECRET}@/name?{NOWHERE}&nonsense=1",
    "a wrong option": f"postgresql://user:{SECRET}@/name?{NOWHERE}&connect_timeout=soon",
    "a wrong port": f"postgresql://user:{SECRET}@host:port/name",
    "a driver that is missing": f"postgresql+asyncpg://user:{SECRET}@host/name",
    "an unknown driver": f"postgresql+nothing://user:{SECRET}@host/name",
    "another server": f"mysql://user:{SECRET}@host/name",
    "no colon": f"postgresql//user:{SECRET}@host/name",
    "neither": f"postgresql//host/name?password={SECRET}",
    "an at in it": f"postgresql//user:{SECRET}@{SECRET}@host/name",
    "sqlite with a host": f"sqlite://user:{SECRET}@host/name",
}


def said(error: BaseException) -> str:
    """All that a program may show of an error: its chain, notes and traceback included."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_what_is_wrong_with_a_url_is_said_without_its_password(url: str) -> None:
    for opening in (Store, Store.open_existing):
        with pytest.raises(FlowbenchError) as raised:
            opening(url)
        assert SECRET not in said(raised.value)
        assert "\n" not in str(raised.value)


def test_the_user_sees_which_database_it_was() -> None:
    url = URLS["password in the query"].replace("user@", f"user:{SECRET}@")
    with pytest.raises(
        FlowbenchError, match=r"//user:\*\*\*@/name\?.*password=hidden is not there"
    ):
        Store(url)
    database = Database(url)
    assert SECRET not in repr(database) + str(vars(database)) + database.place


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="ascii", min_codepoint=33), min_size=4, max_size=12))
def test_no_password_is_shown_of_a_text_that_is_no_url(secret: str) -> None:
    if "&" not in secret:
        assert f"<{secret}>" not in shown_text(f"postgresql//u:<{secret}>@host/name")
        assert f"<{secret}>" not in shown_text(f"postgresql//host/name?password=<{secret}>&a=b")


@pytest.fixture
def remote(server: Server) -> Iterator[tuple[Store, str]]:
    url = server.new()
    store = Store(url)
    yield store, url
    store.close()


def test_a_wrong_password_is_not_repeated(server: Server) -> None:
    for secret in ("wrong-pw", "wr%ng:/?#[]@ pw", "wröng-pw", "'; drop table runs"):
        with pytest.raises(FlowbenchError, match="does not let you in") as raised:
            Store(server.url("postgres", secret))
        assert secret not in said(raised.value)


def test_nothing_that_is_stored_or_fails_shows_it(remote: tuple[Store, str], spec: Spec) -> None:
    store, url = remote
    assert PASSWORD not in repr(store._database._engine) + repr(vars(store._database))
    with store.attempt(spec, {"python": "3"}) as attempt:
        attempt.add(Score("fid", 1.0))
        with pytest.raises(FlowbenchError) as raised:
            attempt.add(Score("fid", 1.0, n=2**70))
        assert PASSWORD not in said(raised.value)
        with pytest.raises(FlowbenchError) as raised, attempt._writing() as connection:
            connection.exec_driver_sql("select nonsense")
        assert PASSWORD not in said(raised.value)
    with store._database.transaction() as connection:
        tables = ("environments", "runs", "attempts", "scores", "artifacts", "origins")
        rows = [connection.exec_driver_sql(f"select * from {table}").all() for table in tables]
    assert rows[2] and PASSWORD not in repr(rows) and "postgresql" not in repr(rows)
    assert PASSWORD not in repr(store.rows().tables)
    assert url not in repr(pickle.dumps([m._asdict() for m in store.measured()]))
