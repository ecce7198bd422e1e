"""Charts: the numbers of a section and no others, safe against what strangers call things."""

import hashlib
import json
import math
import random
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from stored_rows import put, score, spec

from flowbench.cli.tables import opened
from flowbench.comparison.selection import Filter
from flowbench.comparison.view import Cell, Group, Section
from flowbench.events import Point as Loss
from flowbench.records import ADAPTIVE, RUN_LEVEL, Budget, FlowbenchError, Spec
from flowbench.report.charts import axes, export, gallery, placing, style, words
from flowbench.report.charts.dots import dots, straightness
from flowbench.report.charts.pareto import Point, front, pareto
from flowbench.report.charts.quality import quality
from flowbench.report.charts.training import POINTS, training
from flowbench.report.document import Chart

HOSTILE = '</svg><script>alert(1)</script>" onload=\\"x\\" ${datum} \\u0022 \x00\x1b\ud800'
DRAWN = {"svg", "g", "path", "line", "text", "tspan", "title", "desc", "rect", "defs", "clipPath"}


def cell(*values, goal="min", comparable=True):
    """A cell of one noise stream with a value for each training seed."""
    return Cell(
        {seed: {0: value} for seed, value in enumerate(values)}, goal, {}, False, comparable
    )


def section(cells, floors=None, dataset="toy"):
    """A section of these cells by (label, metric, NFE)."""
    labels = sorted({label for label, _, _ in cells})
    groups = [
        Group(label, Spec(label.split()[0], dataset, 0, Budget(1, 1)), (0,), {0: f"run-{label}"})
        for label in labels
    ]
    return Section(
        dataset, "d" * 64, 100, groups=groups, cells=cells, floors=floors or {}, floor_n=90
    )


def usual():
    """Two rows at two NFE with costs, S and a floor."""
    cells = {
        ("cfm", "fd", 1): cell(50.0, 54.0),
        ("cfm", "fd", 4): cell(5.0, 7.0),
        ("lmm", "fd", 1): cell(4.0, 4.2),
        ("lmm", "fd", 4): cell(3.0, 3.1),
    }
    for label, seconds, s in (("cfm", 10.0, 2.0), ("lmm", 30.0, 0.5)):
        cells[label, "train-seconds", RUN_LEVEL] = cell(seconds, goal="")
        cells[label, "train-images", RUN_LEVEL] = cell(100 * seconds, goal="")
        cells[label, "S", RUN_LEVEL] = cell(s, s)
        for nfe in (1, 4):
            cells[label, "ms-per-sample", nfe] = cell(0.5 * nfe)
    return section(cells, {"fd": cell(1.25)})


def tables(part):
    """The data of every mark of a specification."""
    if isinstance(part, dict):
        found = [part["values"]] if isinstance(part.get("values"), list) else []
        part = list(part.values())
    else:
        found = []
    for inner in part if isinstance(part, list) else []:
        found += [some for some in tables(inner) if some and isinstance(some[0], dict)]
    return found


def data(chart):
    """Every row of data in a chart, once."""
    rows = {json.dumps(row): row for some in tables(chart.spec) for row in some}
    return list(rows.values())


def numbers(chart):
    """The values of a chart by label and NFE."""
    return {(row["label"], row["nfe"]): row for row in data(chart) if "nfe" in row}


def looked_up(part):
    """All scales of a specification that give a label its colour or shape."""
    inner = list(part.values()) if isinstance(part, dict) else part
    found = [part] if isinstance(part, dict) and isinstance(part.get("range"), list) else []
    if isinstance(inner, list):
        found += [scale for some in inner for scale in looked_up(some)]
    return [scale for scale in found if isinstance(scale["range"][0], str)]


def texts(drawing):
    """All words that stand in a drawing."""
    parts = ElementTree.fromstring(drawing).iter()
    return [part.text for part in parts if part.tag.endswith(("}text", "}tspan")) and part.text]


def test_the_numbers_of_a_quality_chart_are_those_of_the_section():
    found = usual()
    rows = numbers(quality(found, "fd"))
    assert set(rows) == {("cfm", 1), ("cfm", 4), ("lmm", 1), ("lmm", 4)}
    for (label, nfe), row in rows.items():
        own = found.cells[label, "fd", nfe]
        assert (row["value"], row["sd"], row["seeds"], row["x"]) == (own.mean, own.sd, 2, nfe)
        assert (row["low"], row["high"]) == (own.mean - own.sd, own.mean + own.sd)


def test_a_quality_chart_says_in_words_what_it_shows():
    summary = quality(usual(), "fd").summary
    assert "NFE 1: best lmm 4.100 ± 0.14, worst cfm 52 ± 2.8, of 2" in summary
    assert "lower is better" in summary and "(n = 90): 1.250" in summary


def test_the_floor_is_a_line_with_its_number():
    chart = quality(usual(), "fd")
    assert [row["floor"] for row in data(chart) if "floor" in row] == [1.25]
    assert {"floor", "1.250"} <= set(texts(export.svg(chart)))
    assert "floor" not in texts(export.svg(quality(section(usual().cells), "fd")))


def test_a_band_that_would_reach_below_zero_ends_at_a_logarithmic_axis():
    cells = usual().cells | {("lmm", "fd", 4): cell(0.1, 6.0)}
    rows = numbers(quality(section(cells), "fd"))
    assert 0 < rows["lmm", 4]["low"] < rows["lmm", 4]["value"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_left_out_and_counted(bad):
    cells = usual().cells | {("cfm", "fd", 1): cell(50.0, bad)}
    chart = quality(section(cells), "fd")
    assert ("cfm", 1) not in numbers(chart) and "not finite: 1 number." in chart.summary
    json.dumps(chart.spec, allow_nan=False)
    assert "not finite: 1 number." in pareto(section(cells), "fd", "ms-per-sample").summary


def test_where_data_are_missing_there_is_no_chart():
    empty = section({("cfm", "fd", 1): cell(math.nan), ("cfm", "fd", 2): cell(math.nan)})
    assert quality(empty, "fd") is None and quality(empty, "w2") is None
    assert dots(empty, "fd", 1) is None and straightness(empty) is None
    assert pareto(empty, "fd", "ms-per-sample") is None
    assert pareto(usual(), "fd", "parameters") is None
    assert training(empty, {}) is None
    assert gallery.charts(empty, ["fd"]) == ()


def test_one_nfe_is_drawn_as_dots_with_the_best_on_top():
    cells = {("a", "w2", 1): cell(3.0, 3.2), ("b", "w2", 1): cell(2.0, 2.1)}
    chart = quality(section(cells), "w2")
    assert chart.name == "quality-w2"
    assert [row["label"] for row in data(chart) if "label" in row] == ["b", "a"]


def test_an_adaptive_solver_stands_at_its_counted_evaluations_and_in_no_line():
    cells = usual().cells | {("cfm", "fd", ADAPTIVE): cell(1.0), ("lmm", "fd", ADAPTIVE): cell(2.0)}
    cells["cfm", "nfe", ADAPTIVE] = cell(37.5, goal="")
    chart = quality(section(cells), "fd")
    assert numbers(chart)["cfm", ADAPTIVE]["x"] == 37.5
    assert ("lmm", ADAPTIVE) not in numbers(chart)
    assert "its evaluations were not counted: 1." in chart.summary
    line = next(
        layer for layer in chart.spec["vconcat"][0]["layer"] if layer["mark"]["type"] == "line"
    )
    assert line["data"]["values"] and all(row["nfe"] for row in line["data"]["values"])


def point(cost, far):
    return Point("a", 1, cell(far), cell(cost), far)


def beaten(one, other):
    """Whether `other` is at least as good as `one` in both, and they are not equal."""
    a, b = (one.price.mean, one.far), (other.price.mean, other.far)
    return b[0] <= a[0] and b[1] <= a[1] and a != b


def test_the_front_is_what_a_search_through_all_pairs_finds():
    draw = random.Random(0)
    for _ in range(50):
        points = [point(draw.randint(1, 9), draw.randint(1, 9)) for _ in range(25)]
        found, best = front(points), math.inf
        expected = [p for p in points if not any(beaten(p, other) for other in points)]
        assert sorted(map(id, found)) == sorted(map(id, expected))
        for one in found:  # falls from left to right
            assert one.far <= best
            best = one.far


@pytest.mark.parametrize(
    "goal, best",
    [("min", {"a", "b"}), ("max", {"a", "c"}), ("floor", {"a", "c"}), ("", set())],
)
def test_the_front_follows_the_goal_of_the_metric(goal, best):
    values = {"a": (2.0, 5.0), "b": (2.5, 4.0), "c": (3.0, 6.6)}
    cells = {}
    for label, (cost, value) in values.items():
        cells[label, "m", 1] = cell(value, goal=goal)
        cells[label, "ms-per-sample", 1] = cell(cost)
    chart = pareto(section(cells, {"m": cell(7.0)}), "m", "ms-per-sample")
    rows = numbers(chart)
    assert {label for (label, _), row in rows.items() if row["front"]} == best


def test_numbers_of_different_protocols_have_no_front():
    cells = usual().cells | {("lmm", "fd", 4): cell(3.0, comparable=False)}
    chart = pareto(section(cells), "fd", "ms-per-sample")
    assert not any(row["front"] for row in numbers(chart).values())
    assert "No front" in chart.summary
    mixed = quality(section(cells), "fd").summary
    assert "do not rank" in mixed and "NFE 4: least lmm 3.000, most cfm 6.000" in mixed
    assert "The front" in pareto(usual(), "fd", "ms-per-sample").summary


def test_costs_of_a_whole_run_are_drawn_at_one_nfe():
    chart = pareto(usual(), "fd", "train-seconds")
    assert {place: row["cost"] for place, row in numbers(chart).items()} == {
        ("cfm", 1): 10.0,
        ("lmm", 1): 30.0,
    }
    assert set(numbers(pareto(usual(), "fd", "train-seconds", nfe=4))) == {("cfm", 4), ("lmm", 4)}


def test_what_cost_nothing_is_left_out_and_counted():
    cells = usual().cells | {("cfm", "train-seconds", RUN_LEVEL): cell(0.0)}
    chart = pareto(section(cells), "fd", "train-seconds")
    assert set(numbers(chart)) == {("lmm", 1)} and "cost nothing: 1." in chart.summary


def test_straightness_is_sorted_from_the_straightest():
    rows = [row for row in data(straightness(usual())) if "label" in row]
    assert [(row["label"], row["value"]) for row in rows] == [("lmm", 0.5), ("cfm", 2.0)]


def losses(stage, count, start=2.0):
    return [Loss(stage, i, 10 * i, start / i, 0.1 * i) for i in range(1, count + 1)]


def test_training_has_a_panel_for_each_row_and_goes_on_stage_after_stage():
    logs = {"cfm": {0: losses("train", 3)}, "lmm": {0: losses("pairs", 2) + losses("lines", 4)}}
    logs["cfm"][0].append(Loss("train", 4, 40, math.nan, 1.0))
    chart = training(usual(), logs)
    assert [panel["title"]["text"] for panel in chart.spec["concat"]] == ["cfm", "lmm"]
    rows = [row for row in data(chart) if "loss" in row]
    assert [row["images"] for row in rows if row["stage"] == "lines"] == [30, 40, 50, 60]
    assert [row["loss"] for row in rows if row["stage"] == "train"] == [2.0, 1.0, 0.6667]
    assert "do not compare" in chart.summary and "not finite: 1 number." in chart.summary
    assert "pairs 1.000, lines 0.5000" in chart.summary


def test_long_training_curves_are_averaged_not_cut():
    rows = [row for row in data(training(usual(), {"cfm": {0: losses("train", 199)}}))]
    assert len(rows) == POINTS and rows[-1]["images"] == 1990


def test_a_label_looks_the_same_whatever_order_it_comes_in():
    labels = [f"m{number % 9} v={number}" for number in range(35)]
    assert style.looks(labels) == style.looks(labels[::-1] + labels)
    found = style.looks(labels).values()
    assert len({(look.colour, look.shape) for look in found}) == 35
    methods = style.looks(["a", "a x=1", "b", "b x=1", "c", "d", "e", "f", "g"])
    assert len({methods[name].colour for name in "abcdefg"}) == 7


def test_a_label_has_the_same_colour_in_all_charts_of_a_document():
    labels = ["bot-cfm", "cfm", "edm", "lmm"]
    for chart in gallery.charts(usual(), ["fd"], labels):
        scales = [scale for scale in looked_up(chart.spec) if scale["range"][0].startswith("#")]
        assert scales
        for scale in scales:
            expected = [style.looks(labels)[label].colour for label in scale["domain"]]
            assert scale["range"] == expected


def test_short_labels_stay_different():
    labels = [f"{'x' * 40}{number}{'y' * 40}" for number in range(12)] + ["cfm"]
    found = words.short(labels)
    assert len(set(found.values())) == 13 and found["cfm"] == "cfm"
    assert max(map(len, found.values())) <= words.WIDEST


@pytest.mark.parametrize(
    "values", [[1, 2, 3], [0.001, 5, 900], [-3, 0, 4], [7], [0, 0], [2e6, 3e9]]
)
def test_an_axis_shows_its_values_and_can_be_read_back(values):
    axis = axes.fitted(values, 200)
    assert axis.log == (min(values) > 0 and max(values) / min(values) >= axes.WIDE)
    for value in values:
        assert 0 <= axis.at(value) <= 200
        assert axis.value(axis.at(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert 1 < len(axis.ticks) < 15


def test_labels_cover_neither_points_nor_each_other_where_there_is_room():
    spots = [(50.0, 50.0), (150.0, 50.0), (50.0, 120.0)]
    found = placing.placed(spots, [["a label"]] * 3, [*spots, (70.0, 50.0)], (300, 200), (7, 13))
    boxes = [(left, top - 6.5, left + 49, top + 6.5) for _, (left, top) in found]
    for number, box in enumerate(boxes):
        for x, y in [*spots, (70.0, 50.0)]:
            assert not (box[0] < x < box[2] and box[1] < y < box[3])
        for other in boxes[:number]:
            apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1]
            assert apart or other[3] <= box[1]


def test_a_label_without_room_becomes_its_short_form():
    crowd = [(float(x), float(y)) for x in range(0, 300, 8) for y in range(0, 200, 8)]
    found = placing.placed([(20.0, 20.0)], [["a very long label", "1"]], crowd, (300, 200), (7, 13))
    assert found[0][0] == "1"


def test_an_svg_takes_the_colours_of_the_page_and_says_what_it_shows():
    chart = quality(usual(), "fd")
    root = ElementTree.fromstring(export.svg(chart))
    used = {part.get(name) for part in root.iter() for name in ("fill", "stroke")}
    assert {f"var(--ink, {style.INK})", f"var(--grid, {style.GRID})"} <= used
    assert not used & {style.INK, style.MUTED, style.GRID, "#000", "#888", "black"}
    title, description = root[0], root[1]
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert (title.text, description.text) == (chart.title, chart.summary)


def test_svgs_of_a_page_share_no_id_and_load_nothing():
    charts = [*gallery.charts(usual(), ["fd"]), quality(usual(), "S2") or dots(usual(), "fd", 4)]
    logs = {"cfm": {0: losses("train", 3)}}
    drawings = [export.svg(chart) for chart in (*charts, training(usual(), logs))]
    ids = [e.get("id") for d in drawings for e in ElementTree.fromstring(d).iter() if e.get("id")]
    assert len(ids) == len(set(ids)) and len(ids) >= 2 * len(drawings)
    for drawing in drawings:
        assert "href" not in drawing and drawing.count("http") == 1  # the name of the format
        for link in drawing.split("url(#")[1:]:
            assert link.partition(")")[0] in ids


def test_an_svg_is_the_same_every_time_and_in_every_process():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_charts as t, hashlib;"
        "from flowbench.report.charts import export;"
        "print(hashlib.sha256(t.export.svg(t.quality(t.usual(), 'fd')).encode()).hexdigest())"
    )
    first = export.svg(quality(usual(), "fd"))
    assert export.svg(quality(usual(), "fd")) == first
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, env={"PYTHONHASHSEED": "7"})
    assert other.stdout.strip() == hashlib.sha256(first.encode()).hexdigest(), other.stderr


def hostile():
    """A section in which everything that a stranger names is markup."""
    cells = {}
    for label in (HOSTILE, "__proto__", "2024-01-01", "cfm"):
        for nfe in (1, 2):
            cells[label, HOSTILE, nfe] = cell(1.0 + nfe, 2.0)
            cells[label, "ms-per-sample", nfe] = cell(float(nfe))
        cells[label, "S", RUN_LEVEL] = cell(1.0, 2.0)
    return section(cells, {HOSTILE: cell(1.0)}, dataset=HOSTILE)


def test_names_of_strangers_stay_text():
    found = hostile()
    logs = {HOSTILE: {0: losses(HOSTILE, 3) + losses("b", 3)}}
    charts = gallery.charts(found, [HOSTILE], logs=logs)
    assert len(charts) == 4
    for chart in charts:
        drawing = export.svg(chart)
        root = ElementTree.fromstring(drawing)
        assert {part.tag.partition("}")[2] for part in root.iter()} <= DRAWN
        assert not any(name.startswith("on") for part in root.iter() for name in part.attrib)
        assert "<script" not in drawing and "\x00" not in drawing
        assert any("script" in text for text in texts(drawing))
        assert words.slug(chart.name) == chart.name
        drawing.encode()


@pytest.mark.parametrize(
    "suffix, start",
    [(".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")],
)
def test_a_chart_is_saved_by_the_suffix_of_its_file(tmp_path, suffix, start):
    export.save(quality(usual(), "fd"), tmp_path / f"x{suffix}")
    content = (tmp_path / f"x{suffix}").read_bytes()
    assert content.startswith(start) and b"var(--" not in content
    if suffix != ".pdf":  # whose renderer writes parts in any order
        export.save(quality(usual(), "fd"), tmp_path / f"y{suffix}")
        assert (tmp_path / f"y{suffix}").read_bytes() == content


def test_a_print_is_white_and_a_drawing_transparent(tmp_path):
    from PIL import Image

    export.save(quality(usual(), "fd"), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)
    assert "<rect" not in export.svg(quality(usual(), "fd"))


def test_the_specification_is_saved_as_it_is(tmp_path):
    chart = quality(usual(), "fd")
    export.save(chart, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == chart.spec
    assert "vega-lite" in chart.spec["$schema"] and '"url"' not in json.dumps(chart.spec)


def test_every_specification_follows_the_schema_of_vega_lite():
    import altair
    from jsonschema import ValidationError

    charts = [*gallery.charts(usual(), ["fd"]), dots(usual(), "fd", 1)]
    charts.append(training(usual(), {"lmm": {0: losses("pairs", 2) + losses("lines", 4)}}))
    for chart in charts:
        altair.Chart.from_dict(chart.spec, validate=True)
    with pytest.raises(ValidationError):
        altair.Chart.from_dict(charts[0].spec | {"vconcat": 3}, validate=True)


@pytest.mark.parametrize("name", ["x.gif", "x", "x.html", "x.svg.txt"])
def test_another_suffix_is_refused_with_those_there_are(tmp_path, name):
    with pytest.raises(FlowbenchError, match=r"\.svg, \.png, \.pdf, \.json"):
        export.save(Chart("x", "x", "x", {}), tmp_path / name)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(FlowbenchError, match="cannot be written"):
        export.save(quality(usual(), "fd"), tmp_path / "x" / "y.svg")


@pytest.fixture
def results(database):
    """A database with two data sets, and the folder of the test."""
    for dataset in ("digits", "moons"):
        run = spec("cfm", dataset=dataset)
        put(database, run, score(3.0, nfe=1), score(2.0, nfe=2), score(0.5, "S", -1, n=0))
    return database.parent


def test_the_command_draws_the_chart_that_the_view_has(flowbench, results):
    out = results / "x.json"
    assert flowbench("chart", "quality", "--dataset", "moons", "-o", str(out)) == (
        0,
        f"wrote {out}\n",
    )
    found = opened(str(results / "results.db"), Filter("moons"))[1].sections[0]
    assert json.loads(out.read_text()) == quality(found, "fd").spec
    words_of = ("--dataset", "moons", "--nfe", "2", "-o", str(out))
    assert flowbench("chart", "quality", *words_of)[0] == 0
    rows = [row for some in tables(json.loads(out.read_text())) for row in some]
    assert {row["value"] for row in rows if "value" in row} == {2.0}


@pytest.mark.parametrize(
    "said, answer",
    [
        ("quality", "2 tables fit (1 digits, 100 samples, 10 x 2; 2 moons, 100 samples, 10 x 2)"),
        ("quality", "choose one with --dataset, --where or --table NUMBER"),
        ("quality --table 3", "2 tables fit"),
        ("quality --dataset moon", "did you mean moons?"),
        ("quality --table 1 --metric fdd", "no metric 'fdd': did you mean fd?"),
        ("quality --table 1 --metric S", "`chart straightness`"),
        ("quality --table 1 --nfe 7", "no numbers at --nfe 7: there are 1, 2"),
        ("cost --table 1 --nfe 3", "no numbers at --nfe 3: there are 1, 2"),
        ("quality --table 1 --metric all", "a chart has one metric"),
        ("cost --table 1 --nfe 1,2", "cost is drawn at one --nfe, not at 2"),
        ("time --table 1", "has no numbers for time"),
        ("straightness --table 1 --nfe 1", "takes neither --metric nor --nfe"),
        ("training --table 1", "has a training log"),
        ("quality --table 1 -o x.gif", "has to end in .svg, .png, .pdf, .json"),
        ("pie", "is not one of"),
    ],
)
def test_the_command_answers_a_mistake_in_one_line(flowbench, results, said, answer):
    out = [] if "-o" in said else ["-o", str(results / "x.svg")]
    code, output = flowbench("chart", *said.split(), *out)
    error = output.partition("Error: ")[2].strip()
    assert code == 2 and answer in error and "\n" not in error
    assert not (results / "x.svg").exists()


def test_the_command_draws_one_of_several_tables(flowbench, results):
    out = results / "x.svg"
    assert flowbench("chart", "straightness", "--table", "2", "-o", str(out))[0] == 0
    assert "S: moons, 100 samples" in out.read_text()


def titles(part):
    """All titles of axes in a specification."""
    inner = list(part.values()) if isinstance(part, dict) else part
    found = [part["title"]] if isinstance(part, dict) and isinstance(part.get("title"), str) else []
    return found + [t for some in inner for t in titles(some)] if isinstance(inner, list) else []


def test_an_axis_names_the_nfe_where_one_is_drawn():
    one = "fd @ 4 (lower is better)"
    assert one in titles(pareto(usual(), "fd", "train-seconds", nfe=4).spec)
    cells = {key: cell for key, cell in usual().cells.items() if key[2] != 1}
    assert one in titles(quality(section(cells), "fd").spec)
    for chart in (quality(usual(), "fd"), pareto(usual(), "fd", "ms-per-sample")):
        assert "fd (lower is better)" in titles(chart.spec)
    assert "S (lower is better)" in titles(straightness(usual()).spec)


def test_the_command_names_the_rows_that_it_leaves_out(flowbench, database):
    put(database, spec("cfm", dataset="moons"), score(3.0, nfe=1), score(2.0, nfe=2))
    put(database, spec("edm", dataset="moons"), score(1.0, nfe=2))
    out = str(database.parent / "x.json")
    code, output = flowbench("chart", "quality", "--nfe", "1", "-o", out)
    assert code == 0 and "left out, since without fd @ 1: edm\n" in output
    assert "left out" not in flowbench("chart", "quality", "-o", out)[1]
