"""`flowbench why` and `run --explain`: what is taken as it is, what is made anew, and why."""

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from flowbench.cli import words
from flowbench.records import Absent, FlowbenchError

SHOWN = 28  # characters of a value
WIDTH = 80  # of a terminal


@click.command()
@click.argument("run")
@click.option(
    "--reference", type=words.FILE, help="Statistics in the place of the training split's."
)
@words.inception
@words.dinov2
@words.clean
@words.feature_weights
@words.runs
@words.data_root
@words.database
def why(run: str, db: str, folder: Path | None, **asked: Any) -> None:
    """Say which stages of RUN are used as they are, which would be made anew, and why.

    With other code, data or defaults today, its words lead to another run: then every field that
    differs is named. Nothing is made or changed; `run ... --explain` says the same of a run that
    is not there yet.
    """
    from flowbench import reproduction
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    spec = store.find(run)
    setup = _setup(words.runs_folder(db, folder), **asked)
    measured = store.measured(spec.dataset, [spec.method], [spec.seed])
    scores = [row.score for row in measured if row.spec == spec]
    name = next((t.run for t in store.tried(spec.dataset) if t.spec == spec), spec.name)
    click.echo(_title(spec, name))
    try:
        plan = reproduction.today(store, spec, setup, setup.folder)
    except FlowbenchError as error:
        click.echo(f"there is no such plan today: {error}")
        return
    for line in _decided(store, spec, name, plan, setup):
        click.echo(f"  {line}")
    explain(store, reproduction.plans(plan, scores) or [plan], setup)


def _setup(folder: Path, inception, dinov2, clean, feature_weights, **machine: Any):
    from flowbench.planning import Setup

    weights = words.pretrained(inception, dinov2, clean, feature_weights)
    return Setup(folder=folder, weights=weights, **machine)


def _title(spec, name: str) -> str:
    return f"{name}: {spec.variant} on {spec.dataset}, seed {spec.seed}"


def _decided(store, spec, name: str, plan, setup) -> Iterator[str]:
    """The fields that make today's plan another run, those of its teacher among them."""
    from flowbench import explanation, reproduction

    found = explanation.decided(name, spec, plan.spec)
    if not found:
        yield "today's code and data lead to this very run"
        return
    yield f"today's code and data lead to another run, {plan.spec.name}:"
    yield from table(found)
    old = reproduction.teacher_of(store, spec, setup.folder)
    if old is not None and plan.teacher is not None and spec.teacher != plan.spec.teacher:
        yield f"  its teacher was {old.name}, today {plan.teacher.spec.name}:"
        yield from table(explanation.differences(old, plan.teacher.spec))


def table(found: Sequence[Any]) -> Iterator[str]:
    """Fields with both values, one to a line."""
    width = max((len(one.field) for one in found), default=0)
    for one in found:
        yield f"    {one.field:{width}}  {_short(one.old)} -> {_short(one.new)}"


def _short(value: Any) -> str:
    text = str(value) if value not in (None, "") else "none"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def explain(store, plans: Sequence[Any], setup) -> None:
    """Print what of each plan is used and what is new; of a new network, the run nearest to it."""
    from flowbench import stages

    seen: set[str] = set()
    for plan in plans:
        found = stages.look(plan, setup, store)
        click.echo(f"\n{_title(plan.spec, plan.spec.name)}")
        click.echo(f"  {plan.protocol.samples} samples, noise stream {plan.protocol.seed}")
        click.echo(f"  files in {setup.folder}")
        for line in _parts(found, f"{setup.folder}{os.sep}"):
            click.echo(line)
        done = found[-1].used
        new = [stage.spec for stage in found if stage.spec is not None and not done]
        for line in (line for spec in new if spec.key not in seen for line in _near(store, spec)):
            click.echo(line)
        seen |= {spec.key for spec in new}
        if done:
            click.echo("  all scores are stored: there is nothing to do")


def _parts(found: Sequence[Any], folder: str) -> Iterator[str]:
    """A line for each stage, or more where there is much to say."""
    width, done = max(len(stage.name) for stage in found), found[-1].used
    for stage in found:
        needed = stage.used or not done
        word = "used" if stage.used else "new " if needed else "-   "
        text = stage.words.replace(folder, "") + ("" if needed else ", not needed")
        room = max(WIDTH - width - 10, 20)
        first, *more = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        yield f"  {stage.name:{width}}  {word}  {first}"
        yield from (f"{'':{width + 10}}{line}" for line in more)


def _near(store, spec) -> Iterator[str]:
    """The stored run that is nearest to one whose network is new, and what keeps them apart."""
    from flowbench import explanation

    specs = [t.spec for t in store.tried(spec.dataset, [spec.method])] if store else []
    near = explanation.nearest(specs, spec)
    if any(other.key == spec.key for other in specs):
        return  # its files are gone, and no field decided
    if near is None:
        yield f"  {spec.name}: no other run of {spec.method} on {spec.dataset} is stored"
        return
    yield f"  {spec.name}: the nearest stored run is {near[0].name}, other in"
    yield from table(near[1])


def existing(db: str):
    """The database, if there is one: a look at it makes none."""
    from flowbench.store import Store

    try:
        return Store.open_existing(words.url(db))
    except Absent:
        return None
