"""`flowbench show`: everything that is stored about one run."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from flowbench import places
from flowbench.cli import words
from flowbench.records import FlowbenchError, Spec, visible

PICTURE = click.Path(path_type=Path, dir_okay=False)
TRAINING = ("train-seconds", "train-images")  # what stages cost


@click.command()
@click.argument("run")
@click.option(
    "--trajectories",
    type=PICTURE,
    help="Also draw noise, samples, trajectories coloured by time, and the field at the start.",
)
@click.option(
    "--samples",
    type=PICTURE,
    help="Also draw the samples: the same noise, a column for each number of evaluations.",
)
@click.option("--packages", is_flag=True, help="Also list the packages that were installed.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@words.runs
@words.data_root
@words.database
def show(run, trajectories, samples, packages, form, device, folder, data_root, db: str) -> None:
    """Show RUN: a name, the id of an attempt, or the start of a name or key."""
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    spec, runs = store.find(run), words.runs_folder(db, folder)
    if trajectories or samples:
        from flowbench.cli import pictures

        place = (runs, data_root, device)
        if trajectories:
            pictures.draw_trajectories(store, spec, *place, trajectories)
        if samples:
            pictures.draw_samples(store, spec, *place, samples)
    known = facts(store, spec, runs)
    if form == "json":
        click.echo(json.dumps(_plain(known), indent=1))
    for line in _lines(known, packages) if form == "table" else ():
        click.echo(visible(line))
    for picture in filter(None, (trajectories, samples)):
        click.echo(f"wrote {picture}", err=True)


def facts(store, spec: Spec, runs: Path) -> dict[str, Any]:
    """Everything about one run, as JSON has it but for NaN and infinity."""
    from flowbench.cli.stored import command

    which = spec.dataset, [spec.method], [spec.seed]
    tried = [attempt for attempt in store.tried(*which) if attempt.spec == spec]
    name = tried[-1].run if tried else spec.name
    rows = [row for row in store.measured(*which) if row.run == name]
    digests = dict.fromkeys(attempt.environment for attempt in tried)
    return {
        **{"name": name, "variant": spec.variant, "key": spec.key},
        **asdict(spec),
        "teacher": _teacher(store, spec, runs),
        "cost": _cost(rows),
        "attempts": [_attempt(attempt) for attempt in tried],
        "scores": [_score(row) for row in rows],
        "files": [_file(file, runs) for file in store.artifacts(name)],
        "environments": {digest: store.environment(digest) for digest in digests if digest},
        "command": command(store, spec),
        "reproduce": f"flowbench reproduce {name}",
    }


def _teacher(store, spec: Spec, runs: Path) -> dict[str, Any] | None:
    """Whom the run learned from: its key, its name if that is known, and whether it is stored."""
    from flowbench.reproduction import teacher_of

    if spec.teacher is None:
        return None
    found = teacher_of(store, spec, runs)
    stored = any(attempt.spec == found for attempt in store.tried(spec.dataset))
    return {"key": spec.teacher, "run": found.name if found else "", "stored": stored}


def _cost(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """What each stage of training took, the teacher's part first, and all of them at the end."""
    stages: dict[str, dict[str, Any]] = {}
    for score in (row.score for row in rows):
        kind, _, stage = score.name.partition(":")
        if score.subject == "model" and kind in TRAINING:
            stages.setdefault(stage, {})[kind.removeprefix("train-")] = score.value
    order = sorted(stages, key=lambda stage: (stage == "", stage != "teacher", stage))
    whole = stages.get("", {}).get("seconds", math.nan)
    return [
        {"stage": stage or "all", **stages[stage], "share": _share(stages[stage], whole)}
        for stage in order
    ]


def _share(costs: Mapping[str, float], whole: float) -> float:
    return costs.get("seconds", math.nan) / whole if whole else math.nan


def _attempt(attempt: Any) -> dict[str, Any]:
    names = ("id", "number", "generation", "outcome", "error", "started", "ended", "environment")
    found = {name: getattr(attempt, name) for name in (*names, "origin")}
    try:
        begun, ended = map(datetime.fromisoformat, (attempt.started, attempt.ended))
        seconds = (ended - begun).total_seconds()
    except (ValueError, TypeError):  # it has not ended, or was merged from elsewhere
        seconds = None
    return {**found, "seconds": seconds, "notes": list(attempt.notes)}


def _score(row: Any) -> dict[str, Any]:
    beside = {"attempt": row.attempt, "environment": row.environment, "origin": row.origin}
    return {**row.score._asdict(), "fingerprint": row.score.fingerprint, **beside}


def _file(file: Any, runs: Path) -> dict[str, Any]:
    """A file and whether it is there: "yes", "no", or "other size"."""
    try:
        path = places.inside(runs, file.path)
    except FlowbenchError:  # of a stranger's database: nobody looks there
        return {**asdict(file), "there": "no"}
    there = path.is_file()
    same = there and path.stat().st_size == file.bytes
    return {**asdict(file), "there": "yes" if same else "other size" if there else "no"}


def _plain(value: Any) -> Any:
    """JSON has no words for NaN and infinity."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _lines(known: dict[str, Any], packages: bool) -> Iterator[str]:
    """The same for a reader, section by section."""
    from flowbench.cli import dossier

    yield known["name"]
    for title, lines in dossier.sections(known, packages):
        if lines:
            yield from ("", title, *(f"  {line}" for line in lines))
