"""Results in Python: the tidy frame and the leaderboard hold what the store holds."""

import math
from pathlib import Path

import pytest
from stored_rows import floor, put, score, spec, timed

import flowbench
from flowbench import FlowbenchError
from flowbench.records import RUN_LEVEL
from flowbench.report.layout import number


@pytest.fixture
def filled(database):
    for seed in (0, 1):
        values = [score(1.0 + seed, seed=stream) for stream in (0, 1)]
        fact = score(7.0, "S", nfe=RUN_LEVEL, n=0)
        put(database, spec("cfm", seed), *values, fact, floor(0.5), timed(3.0))
    put(database, spec("<b>edm</b>"), score(math.nan, nfe=0))
    return str(database)


def test_every_score_is_a_row_with_all_that_decides_about_it(filled):
    frame = flowbench.results(filled)
    assert len(frame) == 11
    of_one = frame[(frame.metric == "fd") & (frame.seed == 1) & (frame.subject == "model")]
    assert list(of_one.stream) == [0, 1] and list(of_one.value) == [2.0, 2.0]
    assert set(of_one.nfe) == {1} and set(of_one.fingerprint_n) == {"100"}
    assert frame[frame.metric == "S"].nfe.isna().all(), "a fact of a whole run has no NFE"
    assert list(frame[frame.method == "<b>edm</b>"].nfe) == [0], "an adaptive solver"
    assert list(frame[frame.metric == "ms-per-sample"].fingerprint_device) == ["one CPU"] * 2
    means = frame[frame.subject == "model"].groupby(["metric", "seed"]).value.mean()
    assert means["fd", 0] == 1.0 and means["fd", 1] == 2.0


def test_a_frame_is_narrowed_as_compare_is(filled):
    assert set(flowbench.results(filled, methods="cfm").method) == {"cfm"}
    assert set(flowbench.results(filled, seeds=[1]).seed) == {1}
    assert len(flowbench.results(filled, where={"stream": 1, "n": 100})) == 2 + 4 + 2
    assert set(flowbench.results(Path(filled), seeds=1).seed) == {1}
    nothing = flowbench.results(filled, methods="cfm", since="2999-01-01")
    assert len(nothing) == 0 and {"metric", "value", "fingerprint_device"} < set(nothing.columns)
    with pytest.raises(FlowbenchError, match="no field of --where"):
        flowbench.results(filled, where=["nonsense=1"])


def test_a_leaderboard_is_what_report_prints(filled):
    board = flowbench.leaderboard(filled)
    (section,) = board.view.sections
    cell = section.cells["cfm", "fd", 1]
    assert cell.mean == 1.5 and cell.sampling_sd == 0.0
    assert number(cell) in repr(board)
    frame = board.frame()
    found = frame[(frame.metric == "fd") & (frame.label == "cfm")]
    assert list(found["mean"]) == [1.5] and list(found.sampling_seeds) == [2]
    assert frame[frame.metric == "S"].nfe.isna().all() and set(found.nfe) == {1}
    assert frame.sampling_sd.dtype == float and list(found.sampling_sd) == [0.0]


def test_a_notebook_shows_tables_and_runs_nothing_of_a_name(filled):
    page = flowbench.leaderboard(filled)._repr_html_()
    assert page.count("<table>") == 1 and "&lt;b&gt;edm&lt;/b&gt;" in page and "<b>" not in page


def test_a_database_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(FlowbenchError, match="no results yet"):
        flowbench.results(str(tmp_path / "none.db"))
    assert not list(tmp_path.iterdir())
