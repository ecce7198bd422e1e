"""The pictures of a section for a page: samples, and trajectories that stored networks make."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from warnings import catch_warnings, simplefilter

from flowbench.records import FlowbenchError, Spec
from flowbench.report.document import Picture

LARGEST = 400_000  # bytes of a picture
WIDTHS = (1000, 850, 700, 550)  # pixels of a panel: the first that has no more


def pictures(
    store: Any, section: Any, folder: Path, data_root: Path | None = None, limit: int = LARGEST
) -> tuple[Picture, ...]:
    """Sample grids of images; of vectors, samples over data and trajectories; what there is."""
    from flowbench.report import clouds, media, samples

    found = samples.read(store, section, folder, 1)
    if found is None:
        return ()
    if len(found.shape) == 3:
        made = [media.grid(store, section, folder, limit)]
    else:
        data = _data(section, folder, data_root)
        made = [clouds.points(store, section, folder, data, limit)]
        made += [trajectories(store, section, folder, data_root, limit)]
    return tuple(picture for picture in made if picture is not None)


def trajectories(
    store: Any, section: Any, folder: Path, data_root: Path | None = None, limit: int = LARGEST
) -> Picture | None:
    """The panel of noise, samples, trajectories and field of each row; None but for 2-D data.

    All rows have one training seed. A row that cannot be read, because its file is not here or
    its method has other code today, is left out, and the summary says why.
    """
    from flowbench.cli import stored
    from flowbench.report.charts import words

    seed, place = _seed(section), stored.setup(folder, data_root, "cpu")
    rows, troubles = dict[str, Any](), list[str]()
    for group in section.groups:
        try:
            made = _row(store, group, seed, place)
        except FlowbenchError as error:
            troubles.append(f"{group.label}: {error}".replace(f"{folder}/", ""))
            continue
        if made is None:
            return None
        rows[group.label] = made
    content = _panel(list(rows.values()), limit) if rows else None
    if content is None:
        return None
    what = f"Source, samples, trajectories and field, training seed {seed}, the same noise"
    left = f"Left out: {'; '.join(troubles)}" if troubles else ""
    summary = words.joined((what, f"Rows: {', '.join(rows)}", left))
    return Picture("trajectories", f"trajectories: {words.place(section)}", summary, content)


def _row(store: Any, group: Any, seed: int, place: Any) -> Any:
    """A row of the panel; None where data are not points of a plane."""
    from flowbench.cli import pictures, stored
    from flowbench.report.charts import words

    if seed not in group.runs:
        raise FlowbenchError(f"no training seed {seed}")
    spec = store.find(group.runs[seed])
    if tuple(stored.load(spec, place).shape) != (2,):
        return None
    label = words.printable(group.label)
    return pictures.row(store, label, stored.read(store, spec, place))


def _seed(section: Any) -> int:
    """The first training seed that most rows have."""
    counts = Counter(seed for group in section.groups for seed in group.runs)
    return min(counts, key=lambda seed: (-counts[seed], seed))


def _data(section: Any, folder: Path, data_root: Path | None) -> Any:
    """Real data in the first two coordinates, (N, 2); None where they are not here."""
    from flowbench.cli import pictures, stored

    spec: Spec = section.groups[0].spec
    try:
        data = stored.load(spec, stored.setup(folder, data_root, "cpu"))
    except FlowbenchError:
        return None
    return None if data.kind == "image" else pictures._shown(data)


def _panel(rows: list[Any], limit: int) -> bytes | None:
    """The panel as a PNG of at most `limit` bytes, reduced as far as that takes."""
    from PIL import Image

    from flowbench.report import media, panel

    with TemporaryDirectory() as made, catch_warnings():
        simplefilter("ignore", UserWarning)  # of letters that the font does not have
        panel.draw(rows, Path(made) / "panel.png")
        image = Image.open(Path(made) / "panel.png").convert("RGB")
    for width in WIDTHS:
        size = (width, round(image.height * width / image.width))
        content = media.png(image.resize(size, Image.Resampling.LANCZOS), limit, exact=False)
        if content is not None:
            return content
    return None
