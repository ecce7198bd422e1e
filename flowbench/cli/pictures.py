"""Pictures of stored runs: their networks and samples are read again, never made anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from flowbench import places, trajectories
from flowbench.cli import stored
from flowbench.data.base import Data
from flowbench.noise import unit_noise
from flowbench.planning import Setup
from flowbench.records import FlowbenchError, Spec
from flowbench.report import panel
from flowbench.report.samples import images

LINES = 150  # trajectories of a panel
DOTS = 1000  # noise, data and samples of a panel
STRIPS, FRAMES = 10, (0.0, 0.25, 0.5, 0.75, 1.0)  # trajectories of images, and when they are shown
ACROSS = 3  # images of one row and one number of evaluations
MISSING = "not measured"
GRID = 11  # arrows along each side of a field


def draw_trajectories(
    store, spec: Spec, folder: Path, data_root: Path | None, device: str, out: Path
) -> None:
    """Write the panel of one run, or film strips where its data are images."""
    panel.check(out)
    run = stored.read(store, spec, stored.setup(folder, data_root, device))
    if run.interval is None:
        raise FlowbenchError(f"{spec.variant} has no field, so no trajectories: try --samples")
    if run.data.kind == "image":
        times, states = run.follow(STRIPS)
        frames = strips(times.numpy(), states.cpu().numpy())
        panel.pictures(f"trajectories of {title(spec)}", frames, out)
    else:
        panel.draw([row(store, title(spec), run)], out)


def draw_samples(
    store, spec: Spec, folder: Path, data_root: Path | None, device: str, out: Path
) -> None:
    """Write what a run stored at each number of evaluations, from the same noise."""
    panel.check(out)
    seed, found = stored.samples(store, spec, folder)
    if found[0][1].ndim == 4:
        across = max(1, min(ACROSS, len(found[0][1]) // STRIPS))
        blocks = [panel.Column(name, _blocks(images(values), across)) for name, values in found]
        panel.pictures(title(spec), blocks, out, across)
        return
    points = [panel.Column(name, values[:DOTS, :2]) for name, values in found]
    data = stored.load(spec, stored.setup(folder, data_root, device))
    noise = unit_noise(seed, range(len(points[0].values)), data.shape).numpy()
    panel.columns(title(spec), _plane(noise, spec), points, _shown(data), out)


def figure(
    store,
    rows: Sequence[tuple[str, Spec]],
    folder: Path,
    data_root: Path | None,
    device: str,
    out: Path,
) -> None:
    """Write the panel of several runs of vectors, one row for each (label, spec).

    A run that cannot be read gets the words "not measured", and why is printed. Raises
    FlowbenchError where no row is left.
    """
    panel.check(out)
    several = len({spec.dataset for _, spec in rows}) > 1
    place, drawn, troubles = stored.setup(folder, data_root, device), [], []
    for label, spec in rows:
        name = f"{label}, {spec.dataset}" if several else label
        made, trouble = _attempt(store, name, spec, place)
        drawn += [made] if made else []
        troubles += [f"{name}: {trouble}"] if trouble else []
    if all(made.words == MISSING for made in drawn):
        why = "there are no vectors to show: for images there is --sheet"
        raise FlowbenchError(troubles[0] if troubles else why)
    for trouble in troubles:
        click.echo(trouble, err=True)
    panel.draw(drawn, out)
    click.echo(f"wrote {out}", err=True)


def _attempt(store, label: str, spec: Spec, place: Setup) -> tuple[panel.Row | None, str]:
    """The row of one run, and why there is less to see; no row for images or without data."""
    try:
        data = stored.load(spec, place)
    except FlowbenchError as error:
        return None, str(error)
    if data.kind == "image":
        return None, ""
    try:
        return row(store, label, stored.read(store, spec, place)), ""
    except FlowbenchError as error:
        noise = _plane(unit_noise(0, range(DOTS), data.shape).numpy(), spec)
        return panel.Row(label, noise, _shown(data), words=MISSING), str(error)


def title(spec: Spec) -> str:
    """How a picture of one run is called."""
    return f"{spec.variant} on {spec.dataset}, seed {spec.seed}"


def row(store, label: str, run: stored.Stored) -> panel.Row:
    """What the panel shows of one run."""
    spec, parts = run.plan.spec, dict[str, Any]()
    noise = _plane(run.noise(DOTS)[0].cpu().numpy(), spec)
    if run.interval is not None:
        parts |= _moving(run, run.interval)
    try:
        name, values = stored.samples(store, spec, run.setup.folder)[1][0]
        parts |= {"samples": values[:DOTS, :2], "evaluations": name}
    except FlowbenchError:  # the panel says that there are none
        pass
    scores = {score.name: score.value for score in stored.scores(store, spec)}
    return panel.Row(label, noise, _shown(run.data), straightness=scores.get("S"), **parts)


def _moving(run: stored.Stored, interval: tuple[float, float]) -> dict[str, Any]:
    """Trajectories, and the field slightly after their start, as a row of the panel wants them."""
    times, states = run.follow(LINES)
    noise, labels = run.noise(trajectories.DRAWS)
    limit = 0.85 * panel.reach(_shown(run.data), run.noise(DOTS)[0][:, :2].cpu().numpy())
    line = np.linspace(-limit, limit, GRID, dtype=np.float32)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    t = interval[0] + 1e-3 * (interval[1] - interval[0])
    arrows = trajectories.plane(run.velocity, noise.new_tensor(points), t, run.data.shape, labels)
    moved = {"times": times.numpy(), "states": states[:, :, :2].cpu().numpy()}
    return moved | {"points": points, "arrows": arrows.cpu().numpy(), "start": t}


def _shown(data: Data) -> np.ndarray:
    """Real data in the first two coordinates, (DOTS, 2)."""
    return data.train.spread(DOTS)[0][:, :2].cpu().numpy()


def _plane(noise: np.ndarray, spec: Spec) -> np.ndarray:
    """The first two coordinates of vectors; raises FlowbenchError where there is only one."""
    if noise.shape[1] < 2:
        raise FlowbenchError(f"a picture shows two coordinates, and {spec.dataset} has one")
    return noise[:, :2]


def strips(times: np.ndarray, states: np.ndarray) -> list[panel.Column]:
    """Frames of trajectories of images (T, B, C, H, W): one column for each time of FRAMES."""
    near = [int(np.abs(times - t).argmin()) for t in FRAMES]
    return [panel.Column(f"t = {times[i]:.2f}", images(states[i])) for i in near]


def _blocks(images: np.ndarray, across: int) -> np.ndarray:
    """Images so ordered that rows of `across` hold samples 0, 10, 20; 1, 11, 21; ...

    So a row is of one class where there are ten.
    """
    rows = min(STRIPS, len(images))
    parts = images[: across * rows].reshape(across, rows, *images.shape[1:])
    return parts.swapaxes(0, 1).reshape(-1, *images.shape[1:])


def sheet(store, sections, nfes: Sequence[int] | None, folder: Path, out: Path) -> None:
    """Write the sheet of all sections whose samples are images."""
    from flowbench.report import sheet as drawing

    rows = []
    for section in sections:
        for nfe in nfes or section.nfes:
            for group in section.groups:
                role = f"samples-nfe{nfe or 'auto'}"
                files = [a for a in store.artifacts(group.spec.name) if a.role == role]
                if files:
                    samples = drawing.images(places.inside(folder, files[-1].path), 20)
                    if samples is not None:
                        rows.append((f"{group.label}, NFE {nfe or 'auto'}", samples))
    drawing.draw(rows, out)
    click.echo(f"wrote {out}", err=True)
