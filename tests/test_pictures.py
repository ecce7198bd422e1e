"""Pictures of stored runs: files of the right size, and mistakes in one line."""

import numpy as np
import pytest
from PIL import Image

from flowbench.cli import pictures
from flowbench.records import FlowbenchError
from flowbench.report import panel
from flowbench.report import samples as samples_of
from flowbench.store import Store

SMALL = ["--steps", "10", "--batch", "16", "--samples", "40", "--nfe", "1,2", "-o", "width=8"]


def line(size, colour):
    """An image (2, `size`, `size`, 1) of one level."""
    return np.full((2, size, size, 1), colour, np.uint8)


def measures(path):
    with Image.open(path) as picture:
        return picture.size


def row(label="cfm", speed=1.0, **changes):
    """A row of the panel in which everything stands."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-2, 2, 3)] * 2), -1).reshape(-1, 2)
    parts = {
        "noise": rng.standard_normal((50, 2)),
        "data": rng.standard_normal((50, 2)),
        "samples": rng.standard_normal((50, 2)),
        "evaluations": "NFE 1",
        "times": np.linspace(0, 1, 5),
        "states": rng.standard_normal((5, 20, 2)),
        "points": grid,
        "arrows": -speed * grid,
        "straightness": 6.6,
    }
    return panel.Row(label, **(parts | changes))


def drawn(rows, out, monkeypatch):
    """The axes of a panel, instead of its file."""
    figures = []
    monkeypatch.setattr(panel, "save", lambda figure, out: figures.append(figure))
    panel.draw(rows, out)
    return np.array(figures[0].axes[: 4 * len(rows)]).reshape(-1, 4)


def texts(square):
    return [text.get_text() for text in square.texts]


def test_all_squares_of_a_panel_share_limits_and_scale(tmp_path, monkeypatch):
    axes = drawn([row("a"), row("b", speed=3.0)], tmp_path / "x.png", monkeypatch)
    assert len({square.get_xlim() + square.get_ylim() for square in axes.flat}) == 1
    assert {square.get_aspect() for square in axes.flat} == {1.0}
    slow, fast = (square.collections[0] for square in axes[:, 3])
    assert slow.scale == fast.scale  # so the longer arrow is the faster one
    assert f"arrow = v / {slow.scale:g}" in axes[0, 3].get_title()
    assert np.abs(fast.U).max() == pytest.approx(3 * np.abs(slow.U).max())
    assert texts(axes[0, 2]) == ["S = 6.600"]
    assert [square.get_ylabel() for square in axes[:, 0]] == ["a", "b"]


def test_colours_of_a_trajectory_are_its_times(tmp_path, monkeypatch):
    one = row()
    lines = drawn([one], tmp_path / "x.png", monkeypatch)[0, 2].collections[0]
    assert len(lines.get_segments()) == 4 * 20
    np.testing.assert_allclose(lines.get_array()[:4], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(lines.get_segments()[1], one.states[1:3, 0])
    assert (lines.norm.vmin, lines.norm.vmax) == (0, 1)


def test_a_row_says_what_it_has_not(tmp_path, monkeypatch):
    nothing = dict.fromkeys(("samples", "times", "states", "points", "arrows"))
    axes = drawn([row(**nothing), row()], tmp_path / "x.png", monkeypatch)
    assert texts(axes[0, 1]) == ["no samples"]
    assert texts(axes[0, 2]) == texts(axes[0, 3]) == ["no field"]


def test_samples_beyond_the_limits_are_counted(tmp_path, monkeypatch):
    far = np.array([[0.0, 0.0], [99.0, 0.0], [np.nan, 0.0]])
    axes = drawn([row(samples=far)], tmp_path / "x.png", monkeypatch)
    assert texts(axes[0, 1]) == ["NFE 1, 2 of 3 outside"]


def test_a_panel_grows_with_its_rows(tmp_path):
    for count in (1, 3):
        panel.draw([row()] * count, tmp_path / f"{count}.png")
    (width, one), (same, three) = measures(tmp_path / "1.png"), measures(tmp_path / "3.png")
    assert width == same == int((4 * panel.SIDE + 1.3) * panel.DPI)
    assert three - one == pytest.approx(2 * panel.SIDE * panel.DPI, abs=2)


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_other_formats_go_by_the_name(tmp_path, suffix):
    panel.draw([row()], tmp_path / f"x.{suffix}")
    begin = (tmp_path / f"x.{suffix}").read_bytes()[:5]
    assert begin == {"pdf": b"%PDF-", "svg": b"<?xml"}[suffix]


@pytest.mark.parametrize("name", ["x.flowbench", "x"])
def test_a_name_that_is_no_picture_is_refused(tmp_path, name):
    with pytest.raises(FlowbenchError, match=r"has to end in \.png, \.pdf or \.svg"):
        panel.draw([row()], tmp_path / name)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowbenchError, match="cannot be written"):
        panel.draw([row()], tmp_path / "file" / "x.png")


def test_images_keep_their_place(tmp_path):
    """White in the first column, black in the second."""
    found = [panel.Column("NFE 1", line(4, 255)), panel.Column("NFE 2", line(4, 0))]
    panel.pictures("digits", found, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        grey = np.asarray(picture.convert("L"))
    middle = grey.shape[1] // 2
    below = grey[grey.shape[0] // 2 :]
    assert below[:, :middle].min() == 255
    assert below[:, middle:].min() == 0


def test_rows_of_images_are_of_one_class():
    images = np.arange(40).reshape(40, 1, 1, 1)
    rows = pictures._blocks(images, 3).reshape(10, 3)
    assert (rows % 10 == np.arange(10)[:, None]).all()


def test_frames_are_those_of_their_times():
    times = np.linspace(1 / 81, 1 / 1.002, 101)
    states = np.broadcast_to((2 * times - 1)[:, None, None, None, None], (101, 2, 1, 4, 4))
    found = pictures.strips(times, states)
    assert [column.title for column in found] == [
        f"t = {t}" for t in ["0.01", "0.25", "0.50", "0.75", "1.00"]
    ]
    levels = [column.values[0, 0, 0, 0] for column in found]
    np.testing.assert_allclose(levels, 255 * np.array([1 / 81, 0.25, 0.5, 0.75, 1]), atol=2)


def test_pixels_that_are_not_finite_become_black():
    pixels = np.array([np.nan, -1, 0, 1, np.inf], np.float32).reshape(5, 1, 1, 1)
    assert samples_of.images(pixels).flatten().tolist() == [0, 0, 128, 255, 255]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a small run of cfm on moons and one on digits, and the store."""
    from click.testing import CliRunner

    from flowbench.cli import cli

    folder = tmp_path_factory.mktemp("pictures")
    for dataset in ("moons", "digits"):
        words = [
            "run",
            "cfm",
            "--dataset",
            dataset,
            *SMALL,
            "--quiet",
            "--db",
            str(folder / "results.db"),
        ]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def show(runs, flowbench):
    """`flowbench show` of the small run on a data set."""
    return lambda dataset, *words: flowbench(
        "show", f"{dataset}-cfm", "--db", str(runs / "results.db"), *words
    )


@pytest.fixture
def store(runs):
    return Store.open_existing(f"sqlite:///{runs / 'results.db'}")


@pytest.mark.parametrize("dataset", ["moons", "digits"])
def test_show_draws_both_pictures(show, tmp_path, dataset):
    paths = [tmp_path / "new" / "t.png", tmp_path / "s.png"]
    code, output = show(dataset, "--trajectories", str(paths[0]), "--samples", str(paths[1]))
    assert code == 0, output
    assert all(f"wrote {path}" in output for path in paths)
    sizes = [measures(path) for path in paths]
    inches = {
        "moons": [(4 * 2.6 + 1.3, 3.1), (3 * 2.6 + 0.9, 3.3)],
        "digits": [(4 + 0.3, 7.1), (0.62 * 6 + 0.15 + 0.43, 7.1)],
    }[dataset]
    expected = [(width * panel.DPI, height * panel.DPI) for width, height in inches]
    np.testing.assert_allclose(sizes, expected, atol=1)


def test_show_still_prints_what_is_stored(show, tmp_path):
    plain = show("moons")[1]
    assert show("moons", "--samples", str(tmp_path / "x.png"))[1].startswith(plain)


def test_the_samples_that_are_drawn_are_those_stored(show, store, runs, tmp_path, monkeypatch):
    from safetensors.numpy import load_file

    seen = []
    monkeypatch.setattr(panel, "columns", lambda *words: seen.append(words))
    spec = store.find("moons-cfm")
    assert show("moons", "--samples", str(tmp_path / "x.png"))[0] == 0
    _, noise, columns, _, _ = seen[0]
    assert [column.title for column in columns] == ["NFE 1", "NFE 2"]
    for nfe, column in zip((1, 2), columns, strict=True):
        file = runs / "runs" / spec.name / f"samples-nfe{nfe}-n40-s0.safetensors"
        np.testing.assert_array_equal(column.values, load_file(file)["samples"])
    assert noise.shape == columns[0].values.shape


@pytest.mark.parametrize(
    "words, message",
    [
        (["--trajectories", "x.doc"], "has to end in .png"),
        (["--samples", "x.doc"], "has to end in .png"),
        (["--trajectories", "/dev/null/x.png"], "cannot be written"),
        (["--runs", "/nowhere", "--trajectories", "x.png"], "name the folder of the runs"),
        (
            ["--runs", "/nowhere", "--samples", "x.png"],
            "--batch 16 --samples 40 -o width=8 --force",
        ),
        (["--device", "warp", "--trajectories", "x.png"], "cannot be used"),
    ],
)
def test_mistakes_are_one_line(show, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, output = show("moons", *words)
    assert code == 2
    assert message in output
    assert [line for line in output.splitlines() if line] == output.splitlines()[-1:]
    assert not any(tmp_path.iterdir())


def test_a_run_that_does_not_exist_is_one_line(runs, flowbench, tmp_path):
    words = ["--db", str(runs / "results.db"), "--samples", str(tmp_path / "x.png")]
    code, output = flowbench("show", "nobody", *words)
    assert code == 2 and 'no run is called "nobody"' in output


def test_other_code_is_refused(show, tmp_path, monkeypatch):
    monkeypatch.setattr("flowbench.plugins.code_hash", lambda cls: "other")
    code, output = show("moons", "--trajectories", str(tmp_path / "x.png"))
    assert code == 2
    assert "made with other code of cfm than today's: flowbench run cfm --dataset moons" in output


@pytest.fixture
def fieldless(monkeypatch):
    """cfm as if its options left it without a field."""
    monkeypatch.setattr("flowbench.protocol.field_interval", lambda plan, hook: None)


def test_trajectories_without_a_field_are_refused(show, fieldless, tmp_path):
    code, output = show("moons", "--trajectories", str(tmp_path / "x.png"))
    assert code == 2
    assert "cfm width=8 has no field, so no trajectories: try --samples" in output


def compare_figure(store, runs, names, out):
    rows = [(name, store.find(name)) for name in names]
    pictures.figure(store, rows, runs / "runs", None, "cpu", out)


def test_a_figure_has_a_row_for_each_run_of_vectors(store, runs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(panel, "draw", lambda rows, out: seen.extend(rows))
    compare_figure(store, runs, ["moons-cfm", "digits-cfm"], tmp_path / "x.png")
    (only,) = seen
    assert only.label == "moons-cfm, moons"
    assert only.states.shape == (101, pictures.LINES, 2)
    assert only.straightness > 0 and only.evaluations == "NFE 1"
    np.testing.assert_allclose(only.states[0], only.noise[: pictures.LINES])


def test_a_figure_says_where_there_is_no_field(store, runs, tmp_path, monkeypatch, fieldless):
    seen = []
    monkeypatch.setattr(panel, "draw", lambda rows, out: seen.extend(rows))
    compare_figure(store, runs, ["moons-cfm"], tmp_path / "x.png")
    assert seen[0].states is None and seen[0].words == "no field"
    assert len(seen[0].samples) == 40


def test_a_figure_goes_on_where_one_run_is_not_there(store, runs, tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    spec = store.find("moons-cfm")
    rows = [("here", spec), ("gone", replace(spec, seed=7))]
    out = tmp_path / "x.png"
    pictures.figure(store, rows, runs / "runs", None, "cpu", out)
    said = capsys.readouterr().err
    assert "gone: moons-cfm-s7" in said and "has no network yet: flowbench run cfm" in said
    assert measures(out)[1] == pytest.approx((2 * panel.SIDE + 0.5) * panel.DPI, abs=1)
    with pytest.raises(FlowbenchError, match="--seed 7"):
        pictures.figure(store, rows[1:], runs / "runs", None, "cpu", out)


def test_a_figure_of_images_points_to_the_sheet(store, runs, tmp_path):
    with pytest.raises(FlowbenchError, match="--sheet"):
        compare_figure(store, runs, ["digits-cfm"], tmp_path / "x.png")
