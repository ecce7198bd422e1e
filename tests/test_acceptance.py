"""What a new user is promised, measured in fewer steps than the default; a minute or two each."""

import json

import pytest


def scores(flowbench, dataset):
    """{(method, metric, nfe): mean} of everything measured on a data set."""
    code, output = flowbench("report", "--dataset", dataset, "--format", "json")
    assert code == 0
    rows = json.loads(output)["scores"]
    return {(row["method"] or "floor", row["metric"], row["nfe"]): row["mean"] for row in rows}


@pytest.mark.slow
def test_on_digits_lines_beat_the_others_at_one_and_two_evaluations(flowbench, tmp_path):
    fewer = ["--steps", "750"]  # of 1000
    for method in ("edm", "cfm", "lmm"):
        assert flowbench("run", method, "--dataset", "digits", "--nfe", "1,2", *fewer)[0] == 0
    found = scores(flowbench, "digits")
    for rival in ("edm", "cfm"):
        assert found[rival, "fd-clf", 1] > 10 * found["lmm", "fd-clf", 1]
        assert found[rival, "fd-clf", 2] > 3 * found["lmm", "fd-clf", 2]
    assert found["lmm", "memorised", 1] < 0.02
    assert found["lmm", "S", "run"] < 0.3 * found["cfm", "S", "run"]
    assert 1 < found["floor", "fd-clf", "run"] < 2
    sheet = tmp_path / "sheet.png"
    assert flowbench("compare", "--nfe", "1,2", "--sheet", str(sheet))[0] == 0
    from PIL import Image

    with Image.open(sheet) as picture:
        assert picture.size[0] > 1000 and picture.size[1] > 6 * 48


@pytest.mark.slow
def test_on_the_mixture_of_table_1_lines_are_straight_and_find_both_modes(flowbench):
    half = ["--steps", "2000"]  # of the default, which is the paper's table
    assert flowbench("run", "lmm", "--dataset", "mog128", "--nfe", "1", *half)[0] == 0
    found = scores(flowbench, "mog128")
    assert found["lmm", "in-mode", 1] >= 0.90
    assert found["lmm", "S", "run"] < 0.12
    assert found["lmm", "w2-mode", 1] < 0.20
    assert 0.98 < found["floor", "in-mode", "run"] < 1
