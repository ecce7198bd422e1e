"""Pictures of a page: the stored samples in the right places, and nothing from elsewhere."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from flowbench.comparison.view import Cell, Group, Section
from flowbench.records import Artifact, Budget, Spec
from flowbench.report import clouds, files, media, samples

RNG = np.random.default_rng(0)


def greys(n=12, side=8, channels=1):
    """Random images (n, C, H, W) as a run stores them."""
    return RNG.integers(0, 256, (n, channels, side, side), np.uint8)


class Shelf:
    """A folder of runs and the store that knows its files."""

    def __init__(self, folder):
        self.folder, self.known = folder, {}

    def put(self, run, nfe, values, name=None, role=None):
        name = name or f"samples-nfe{nfe}-n100-s0.safetensors"
        path = f"{run}/{name}"
        (self.folder / run).mkdir(exist_ok=True)
        save_file({"samples": values}, self.folder / path)
        self.list(run, role or f"samples-nfe{nfe}", path)

    def list(self, run, role, path):
        self.known.setdefault(run, []).append(Artifact(role, path, "", 0))

    def artifacts(self, run):
        return self.known.get(run, [])


@pytest.fixture
def shelf(tmp_path):
    """An empty folder of runs."""
    return Shelf(tmp_path)


def section(runs, nfes=(1, 4)):
    """Rows with their runs by training seed."""
    groups = [
        Group(label, Spec(label, "toy", min(some), Budget(1, 1)), tuple(some), some)
        for label, some in runs.items()
    ]
    cells = {(label, "fd", nfe): Cell({0: {0: 1.0}}) for label in runs for nfe in nfes}
    return Section("toy", "d" * 64, 100, groups=groups, cells=cells)


def shown(picture):
    with Image.open(BytesIO(picture.png)) as image:
        return np.asarray(image.convert("RGB"))


def two_rows(shelf, channels=1, side=8):
    """Two rows of images at two NFE; returns the section and the images."""
    images = {(m, n): greys(side=side, channels=channels) for m in ("cfm", "lmm") for n in (1, 4)}
    for (method, nfe), values in images.items():
        shelf.put(method, nfe, values)
    return section({"cfm": {0: "cfm"}, "lmm": {0: "lmm"}}), images


@pytest.mark.parametrize("channels, side", [(1, 8), (3, 8), (1, 28), (3, 32)])
def test_a_grid_holds_the_stored_samples_in_their_places(shelf, channels, side):
    found, images = two_rows(shelf, channels, side)
    picture = media.grid(shelf, found, shelf.folder)
    pixels = shown(picture)
    read = samples.read(shelf, found, shelf.folder, media.MOST)
    frame = media.Frame.of(read, media.strip(read))
    scale = frame.tall // side
    for row, method in enumerate(("cfm", "lmm")):
        for column, nfe in enumerate((1, 4)):
            for number in range(frame.count):
                left, top = frame.corner(row, column, number)
                part = pixels[top : top + frame.tall : scale, left : left + frame.wide : scale]
                own = images[method, nfe][number].transpose(1, 2, 0)
                assert (part == own).all(), (method, nfe, number)


def test_a_grid_takes_the_first_training_seed_that_all_rows_have(shelf):
    for seed in (0, 1):
        shelf.put(f"cfm-{seed}", 1, np.full((4, 1, 8, 8), seed, np.uint8))
    shelf.put("lmm-1", 1, np.full((4, 1, 8, 8), 1, np.uint8))
    found = section({"cfm": {0: "cfm-0", 1: "cfm-1"}, "lmm": {0: "lmm-0", 1: "lmm-1"}}, (1,))
    read = samples.read(shelf, found, shelf.folder, 4)
    assert read.seed == 1 and {values.max() for values in read.cells.values()} == {1}


def test_a_row_without_samples_is_named_in_the_summary(shelf):
    shelf.put("cfm", 1, greys())
    found = section({"cfm": {0: "cfm"}, "lmm": {0: "lmm"}})
    summary = media.grid(shelf, found, shelf.folder).summary
    assert "left out, since their samples are not here: lmm" in summary
    assert "an empty place" not in summary


def test_samples_of_another_number_or_stream_are_not_mixed_in(shelf):
    shelf.put("cfm", 1, greys(), "samples-nfe1-n50-s0.safetensors")
    shelf.put("cfm", 1, greys(), "samples-nfe1-n100-s3.safetensors")
    shelf.put("cfm", 4, greys(), "samples-nfe1-n100-s0.safetensors", role="samples-nfe4")
    found = section({"cfm": {0: "cfm"}})
    assert media.grid(shelf, found, shelf.folder) is None


def test_where_nothing_is_stored_there_is_no_picture(shelf):
    found = section({"cfm": {0: "cfm"}})
    assert media.grid(shelf, found, shelf.folder) is None
    assert clouds.points(shelf, found, shelf.folder) is None
    shelf.put("cfm", 1, greys())
    assert clouds.points(shelf, found, shelf.folder) is None
    assert media.grid(shelf, found, shelf.folder / "elsewhere") is None


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 2, 8, 8), np.uint8),
        np.zeros((4, 1, 9000, 1), np.uint8),
        np.zeros((0, 1, 8, 8), np.uint8),
        np.zeros((4, 8), np.uint8)[:, :1].copy(),
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 2, 2, 2), np.uint8),
    ],
)
def test_what_is_neither_images_nor_vectors_is_left_out(shelf, values):
    shelf.put("cfm", 1, values)
    found = section({"cfm": {0: "cfm"}})
    assert samples.read(shelf, found, shelf.folder, 4) is None


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_a_damaged_file_is_left_out(shelf, content):
    found, _ = two_rows(shelf)
    (shelf.folder / "lmm/samples-nfe4-n100-s0.safetensors").write_bytes(content)
    read = samples.read(shelf, found, shelf.folder, 4)
    assert set(read.cells) == {("cfm", 1), ("cfm", 4), ("lmm", 1)}
    assert "an empty place was not sampled" in media.grid(shelf, found, shelf.folder).summary


def test_a_type_that_numpy_does_not_know_is_left_out(shelf):
    from safetensors.torch import save_file as save
    from torch import bfloat16, zeros

    shelf.put("cfm", 1, greys())
    save(
        {"samples": zeros(4, 1, 8, 8, dtype=bfloat16)},
        shelf.folder / "cfm/samples-nfe1-n100-s0.safetensors",
    )
    assert samples.read(shelf, section({"cfm": {0: "cfm"}}), shelf.folder, 4) is None


def test_images_of_another_shape_than_most_are_left_out(shelf):
    found, _ = two_rows(shelf)
    shelf.put("lmm", 4, greys(side=16))
    read = samples.read(shelf, found, shelf.folder, 4)
    assert ("lmm", 4) not in read.cells and len(read.cells) == 3


def test_no_file_outside_the_folder_is_read(shelf, tmp_path):
    inside = Shelf(tmp_path / "runs")
    inside.folder.mkdir()
    shelf.put("secret", 1, greys())
    (inside.folder / "link").symlink_to(shelf.folder / "secret")
    name = "secret/samples-nfe1-n100-s0.safetensors"
    for path in (f"../{name}", str(tmp_path / name), f"link/{name[7:]}", "\x00", "x" * 5000, ""):
        inside.list("cfm", "samples-nfe1", path)
    assert files.found(inside, "cfm", inside.folder, 2**30) == {}
    assert files.found(shelf, "secret", shelf.folder, 2**30) != {}
    assert files.found(shelf, "secret", shelf.folder, 10) == {}


def test_images_that_are_not_finite_are_black():
    values = np.array([np.nan, -1.0, 0.0, 1.0, np.inf, -5.0]).reshape(1, 1, 2, 3)
    assert samples.images(values).ravel().tolist() == [0, 0, 128, 255, 255, 0]


def test_a_picture_has_no_more_bytes_than_allowed(shelf):
    found, _ = two_rows(shelf, channels=3, side=32)
    whole = media.grid(shelf, found, shelf.folder)
    small = media.grid(shelf, found, shelf.folder, len(whole.png) // 3)
    assert len(small.png) <= len(whole.png) // 3 < len(whole.png) <= media.LARGEST
    assert media.grid(shelf, found, shelf.folder, 100) is None


@pytest.mark.parametrize("side", [100, 256])
def test_large_images_are_reduced(shelf, side):
    found, _ = two_rows(shelf, channels=3, side=side)
    read = samples.read(shelf, found, shelf.folder, 2)
    frame = media.Frame.of(read, 2)
    assert frame.tall <= media.THUMBNAIL and media.sheet(read, 2).size == frame.size


def cloud(shelf):
    """Two rows of vectors; the second is far away from the first."""
    near, far = RNG.standard_normal((2, 300, 5)).astype(np.float32)
    shelf.put("cfm", 1, near)
    shelf.put("lmm", 1, 50 + far)
    shelf.put("lmm", 4, near)
    return section({"cfm": {0: "cfm"}, "lmm": {0: "lmm"}})


def inked(picture, row, column):
    """How many pixels of a square have the colour of samples."""
    pixels = shown(picture).astype(int)
    side = int(clouds.SIDE * clouds.DPI)
    top, left = int(clouds.HEAD * clouds.DPI) + row * side, int(clouds.LABEL * clouds.DPI)
    part = pixels[top : top + side, left + column * side : left + (column + 1) * side]
    return int(((part[..., 0] - part[..., 2]) > 60).sum())


def test_points_lie_in_the_squares_of_their_row_and_nfe(shelf):
    found, data = cloud(shelf), RNG.standard_normal((500, 2))
    picture = clouds.points(shelf, found, shelf.folder, data)
    assert inked(picture, 0, 0) > 100 and inked(picture, 1, 1) > 100
    assert inked(picture, 0, 1) == 0  # not sampled
    assert inked(picture, 1, 0) == 0  # all of them outside
    assert "over data" in picture.summary and "an empty place was not sampled" in picture.summary
    assert "over data" not in clouds.points(shelf, found, shelf.folder).summary


def test_points_that_are_not_finite_are_drawn_without_a_warning(shelf):
    shelf.put("cfm", 1, np.full((20, 2), np.nan, np.float32))
    assert clouds.points(shelf, section({"cfm": {0: "cfm"}}), shelf.folder).png


def test_a_picture_is_the_same_every_time_and_says_nothing_of_its_making(shelf):
    found, _ = two_rows(shelf)
    first, second = (media.grid(shelf, found, shelf.folder) for _ in range(2))
    assert first == second
    vectors = Shelf(shelf.folder / "v")
    vectors.folder.mkdir()
    points = cloud(vectors)
    clouds_of = [clouds.points(vectors, points, vectors.folder) for _ in range(2)]
    assert clouds_of[0] == clouds_of[1]
    for picture in (first, clouds_of[0]):
        with Image.open(BytesIO(picture.png)) as image:
            assert image.info.keys() <= {"transparency"}


@pytest.mark.parametrize("start", ["$\\frac{$", "\x00\x1b", "\u4e2d\u6587", "\ud800", "a\nb"])
def test_labels_of_strangers_are_drawn_as_they_are(shelf, start):
    label = f"{start} <script> " + "x" * 100
    shelf.put("cfm", 1, greys())
    assert label in media.grid(shelf, section({label: {0: "cfm"}}), shelf.folder).summary
    vectors = Shelf(shelf.folder / "v")
    vectors.folder.mkdir()
    vectors.put("cfm", 1, RNG.standard_normal((30, 2)))
    assert clouds.points(vectors, section({label: {0: "cfm"}}), vectors.folder).png


SMALL = ["--steps", "10", "--batch", "16", "--samples", "40", "--nfe", "1,2", "-o", "width=8"]


@pytest.fixture
def stored(flowbench, database):
    """Two small runs on a plane: the store, their section and their folder."""
    from flowbench.cli import tables
    from flowbench.comparison.selection import Filter
    from flowbench.store import Store

    for method in ("cfm", "edm"):
        assert flowbench("run", method, "--dataset", "moons", *SMALL)[0] == 0
    found = tables.opened(str(database), Filter())[1].sections[0]
    place = Store.open_existing(f"sqlite:///{database}")
    return SimpleNamespace(store=place, section=found, folder=database.parent / "runs")


def test_a_page_shows_samples_and_trajectories_of_planes(stored):
    from flowbench.cli import page_pictures

    found = page_pictures.pictures(stored.store, stored.section, stored.folder)
    assert [picture.name for picture in found] == ["samples", "trajectories"]
    assert (
        "Rows: cfm width=8, edm width=8." in found[1].summary and "Left out" not in found[1].summary
    )
    assert all(len(picture.png) <= page_pictures.LARGEST for picture in found)


def test_a_run_that_cannot_be_read_is_left_out_of_the_trajectories_and_named(stored):
    from flowbench.cli import page_pictures

    for file in stored.folder.glob("moons-edm-*/network.safetensors"):
        file.unlink()
    picture = page_pictures.trajectories(stored.store, stored.section, stored.folder)
    assert "Rows: cfm width=8." in picture.summary and "Left out: edm width=8: " in picture.summary
    assert str(stored.folder) not in picture.summary
    for file in stored.folder.glob("moons-cfm-*/network.safetensors"):
        file.unlink()
    assert page_pictures.trajectories(stored.store, stored.section, stored.folder) is None


def test_the_command_draws_each_kind_of_chart(stored, flowbench, tmp_path):
    for kind in ("quality", "time", "cost", "images", "straightness", "training"):
        out = tmp_path / f"{kind}.svg"
        assert flowbench("chart", kind, "-o", str(out)) == (0, f"wrote {out}\n")
        assert out.read_text().startswith("<svg")
