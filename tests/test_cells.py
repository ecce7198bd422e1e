"""The cells of a section: made when they are asked for, and the same in whatever order."""

import os
import random
import subprocess
import sys
import weakref

import pytest
from stored_rows import IMAGES, floor, put, score, spec, timed

from flowbench.comparison.build import build
from flowbench.comparison.cells import Maker
from flowbench.comparison.fingerprint import Reader
from flowbench.records import RUN_LEVEL, Measured
from flowbench.report.sections import matrix


def rows():
    """Two methods with three seeds: a biased metric, two streams, another protocol, facts."""
    found = []
    for method in ("cfm", "edm"):
        for seed in range(3):
            run = spec(method, seed)
            some = [floor(0.5), score(0.1 * seed, "S", RUN_LEVEL, 0), timed(1.0 + seed)]
            some += [score(seed + nfe, nfe=nfe) for nfe in (1, 2)]
            some += [score(10 - seed, "fid", seed=stream) for stream in (0, 1)]
            other = IMAGES | {"ema": method == "cfm"}
            some += [score(2.0, "kid", protocol=other), score(1.0, "prc", 4, goal="")]
            found += [Measured(run.name, run, one, 1, 1, "") for one in some]
    return found


@pytest.fixture
def made(monkeypatch):
    """The metric of each cell that was made, in order."""
    names, usual = [], Maker.cell

    def cell(self, rows):
        names.append(rows[0].score.name)
        return usual(self, rows)

    monkeypatch.setattr(Maker, "cell", cell)
    return names


def test_the_names_of_cells_are_known_before_any_is_made(made):
    section = build([row for row in rows() if row.score.name != "fid"]).sections[0]
    assert section.nfes == [1, 2, 4] and section.facts == ["S"]
    assert sorted(section.metrics) == sorted(["fd", "prc", "ms-per-sample", "kid"])
    assert section.levels["cfm"] == {1, 2, 4, RUN_LEVEL} and len(section.cells) == 11
    assert ("cfm", "fd", 1) in section.cells and ("cfm", "fd", 4) not in section.cells
    assert made == []


def test_a_column_is_made_once_and_no_other(made):
    section = build([row for row in rows() if row.score.name != "fid"]).sections[0]
    assert section.cells["cfm", "fd", 1].mean == 2 and made == ["fd", "fd"]
    assert section.cells["edm", "fd", 1].seeds == 3 and made == ["fd", "fd"]
    assert section.cells.get(("cfm", "fd", 4)) is None and made == ["fd", "fd"]
    assert [key[2] for key, _ in section.some(["fd"])] == [1, 2, 1, 2] and made == ["fd"] * 4


def test_every_order_of_asking_gives_the_same_cells():
    first = [dict(section.cells) for section in build(rows()).sections]
    assert sum(map(len, first)) == 18
    for seed in range(5):
        again = build(rows()).sections
        for cells, section in zip(first, again, strict=True):
            keys = list(cells)
            random.Random(seed).shuffle(keys)
            assert {key: section.cells[key] for key in keys} == cells
            assert list(section.cells) == list(cells)


def test_a_cell_that_is_not_there_is_a_key_error():
    with pytest.raises(KeyError, match="nowhere"):
        build(rows()).sections[0].cells["nowhere", "fd", 1]


def test_a_table_makes_the_cells_that_it_shows(made):
    section = build(rows()).sections[0]
    del made[:]  # of metrics over noise streams the least is needed first
    matrix(section, ["fd"])
    assert set(made) == {"fd"}


def test_compare_makes_no_cell_of_another_metric(flowbench, database, made):
    for seed in range(3):
        some = [score(1.0 + seed), score(2.0, "kid"), score(3.0, "sw2")]
        put(database, spec(seed=seed), *some)
    code, output = flowbench("compare", "--metric", "kid")
    assert code == 0 and "kid @ 1" in output and set(made) == {"kid"}
    del made[:]
    assert flowbench("report")[0] == 0 and set(made) == {"fd", "kid", "sw2"}


def test_a_reader_leaves_nothing_beside_the_database(database):
    """Nobody looks for garbage at the end of `compare`, and so nobody would close by chance."""
    put(database, spec(), score(1.0))
    before = sorted(database.parent.iterdir())
    line = [sys.executable, "-m", "flowbench", "compare", "--db", str(database)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLOWBENCH")}
    subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL)
    assert sorted(database.parent.iterdir()) == before and before


def test_a_run_lives_as_long_as_what_knows_it_by_its_identity():
    """Else another would get its address, and its fields."""
    reader, run = Reader({}), spec()
    row = Measured("any", run, score(1.0), 1, 1, "")
    assert reader.fields(row)["budget"] == "10 x 2"
    known = weakref.ref(run)
    del row, run
    assert known() is not None
