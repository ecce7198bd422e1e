"""Databases of strangers: whatever command opens one, nothing in it acts, and lies are one line."""

import sqlite3
from contextlib import closing

import pytest
from stored_rows import put, score, spec

from flowbench.records import FlowbenchError
from flowbench.store import Store, guard

COMMANDS = (
    ("compare",),
    ("report", "--output", "{out}.md"),
    ("show", "{run}"),
    ("export", "--bundle", "{out}.zip"),
    ("doctor",),
)
ACTS = {
    "a trigger": "create trigger t after insert on attempts begin delete from scores; end",
    "a trigger of an upgrade": "create trigger t after update on flowbench_alembic_version"
    " begin delete from scores; end",
    "a view": "alter table scores rename to hidden; create view scores as select * from hidden",
    "a view of the age": "alter table flowbench_alembic_version rename to hidden;"
    " create view flowbench_alembic_version as select * from hidden",
    "a virtual table": "drop table artifacts; create virtual table artifacts using fts4(path)",
    "a generated column": "alter table artifacts add column x integer as (1 + 1)",
}
LIES = {
    "text for a value": "update scores set value = 'much'",
    "text for a count": "update scores set n = 'many'",
    "bytes for a name": "update scores set name = x'00ff'",
    "text for a seed": "update runs set seed = 'x'",
    "a fraction of a generation": "update attempts set generation = 0.5",
    "bytes for an error": "update attempts set error_text = x'1b5b'",
    "no text": "update attempts set error_text = cast(x'ff41' as text)",
    "another kind": "update scores set kind = 'much', value = null",
    "another outcome": "update attempts set outcome = 'won'",
    "no JSON": "update scores set protocol = '{'",
    "NaN in JSON": "update scores set protocol = '{\"x\": NaN}'",
    "JSON of another form": "update scores set protocol = '[]'",
    "bytes for JSON": "update runs set spec = x'7b7d'",
    "deep JSON": "update scores set protocol = '{\"x\": ' || replace(hex(zeroblob(50000)), '0',"
    " '[') || '}'",
    "another spec": "update runs set spec = '{}'",
    "a method of another type": "update runs set spec = json_set(spec, '$.method', 5)",
    "escapes in a spec": "update runs set spec = json_set(spec, '$.method', char(27) || '[2J')",
    "notes that are none": "update attempts set notes = '[1]'",
    "an environment that is none": "update environments set json = '[]'",
}


@pytest.fixture
def filled(database):
    """The path of a database with a run."""
    put(database, spec(), score(1.0))
    return database


def edit(path, statements):
    """Change a file as a stranger would, whatever the checks in it say."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("pragma foreign_keys=off")
        connection.execute("pragma ignore_check_constraints=on")
        for statement in statements.split("; "):
            if "trigger" in statement:
                return connection.executescript(statements)
            connection.execute(statement)


def content(path):
    """All that a database holds."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        return list(connection.iterdump())


def outcomes(flowbench, path, tmp_path):
    """(command, exit code, output) of every command that only looks at a database."""
    places = {"out": str(tmp_path / "out"), "run": spec().name}
    for words in COMMANDS:
        asked = [word.format(**places) for word in words]
        yield words[0], *flowbench(*asked, "--db", str(path))


def refused(flowbench, path, tmp_path, words):
    before = content(path)
    for command, code, output in outcomes(flowbench, path, tmp_path):
        assert code == (3 if command == "doctor" else 2), (command, output)
        line = next(line for line in output.splitlines() if str(path) in line and words in line)
        assert line.isprintable() and "Traceback" not in output
    assert content(path) == before
    assert not list(tmp_path.glob("out.*"))


def test_what_flowbench_wrote_is_read(flowbench, filled, tmp_path):
    for command, code, output in outcomes(flowbench, filled, tmp_path):
        assert code == 0, (command, output)


@pytest.mark.parametrize("what", ACTS)
def test_what_would_act_is_not_opened(flowbench, filled, tmp_path, what):
    edit(filled, ACTS[what])
    refused(flowbench, filled, tmp_path, "which flowbench never makes")
    before = content(filled)
    run = ("run", "cfm", "--dataset", "moons", "--steps", "2", "--samples", "20", "--nfe", "1")
    code, output = flowbench(*run, "--db", str(filled))
    assert code == 2 and "which flowbench never makes" in output
    assert content(filled) == before


@pytest.mark.parametrize("what", LIES)
def test_values_that_flowbench_never_writes_are_one_line(flowbench, filled, tmp_path, what):
    edit(filled, LIES[what])
    refused(flowbench, filled, tmp_path, "")


def test_a_trigger_does_not_fire_while_an_older_database_is_upgraded(flowbench, tmp_path):
    from alembic import command

    from flowbench.store import schema
    from flowbench.store.engine import Database

    path = tmp_path / "old.db"
    database = Database(f"sqlite:///{path}")
    with database.transaction(write=True) as connection:
        command.upgrade(schema.configure(connection), "0001")
    database.close()
    insert = "insert into environments values ('d', '{}', '', '', '', '')"
    edit(path, insert)
    edit(
        path,
        "create trigger t after update on flowbench_alembic_version"
        " begin delete from environments; end",
    )
    before = content(path)
    code, output = flowbench("compare", "--db", str(path))
    assert code == 2 and "the trigger t, which flowbench never makes" in output
    assert content(path) == before and not list(tmp_path.glob("*.bak*"))
    edit(path, "drop trigger t")
    Store(f"sqlite:///{path}").close()
    assert 'INSERT INTO "environments"' in "".join(content(path))  # without it, it is upgraded


def test_no_function_of_a_schema_is_trusted(filled):
    """What a view of a stranger may call is what cannot do harm."""
    edit(filled, "create view v as select fts3_tokenizer('simple') as x")
    store = Store.open_existing(f"sqlite:///{filled}")
    with (
        pytest.raises(FlowbenchError, match="refused: "),
        store._database.transaction() as connection,
    ):
        connection.exec_driver_sql("select x from v").all()


def test_a_value_beyond_all_measure_is_not_read(flowbench, filled, monkeypatch):
    monkeypatch.setattr(guard, "LONGEST", 2**16)
    edit(filled, "update scores set protocol = '[\"' || hex(zeroblob(40000)) || '\"]'")
    code, output = flowbench("compare", "--db", str(filled))
    assert code == 2 and "too big" in output


def test_no_extension_is_loaded(filled):
    store = Store.open_existing(f"sqlite:///{filled}")
    with (
        pytest.raises(FlowbenchError, match=r"not authorized|no such function"),
        store._database.transaction() as connection,
    ):
        connection.exec_driver_sql("select load_extension('/tmp/x.so')").all()
