"""`flowbench reproduce`: do a stored run again and say whether its numbers come out again."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from flowbench.cli import asking, words
from flowbench.records import RUN_LEVEL, FlowbenchError, RunFailed, Score

DATABASE = "reproduction.db"  # in the folder of --runs, and what tells such a folder from others
INTERRUPTED = 4
NAMED = 4  # numbers in the last line


@click.command()
@click.argument("run")
@click.option(
    "--runs",
    "kept",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep what is made in a folder of its own, and go on there.  [default: keep nothing]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "--reference", type=words.FILE, help="Statistics in the place of the training split's."
)
@words.inception
@words.dinov2
@words.feature_weights
@click.option("--quiet", is_flag=True, help="Print the verdict and nothing else.")
@words.data_root
@words.database
@click.pass_context
def reproduce(ctx, run: str, kept: Path | None, db: str, quiet: bool, **asked: Any) -> None:
    """Train and examine RUN again, its teacher too, and compare every number with the stored one.

    Today's code has to lead to the very same run. A number is equal to the last bit, within
    tolerance (2 standard deviations over three training seeds or more of its row, else a
    thousandth), or different: then the exit code is 6. Times and memory are shown and not judged.
    The database is only read.
    """
    from flowbench.store import Store

    store = Store.open_existing(words.url(db))
    try:
        with _folder(kept, db) as folder:
            _reproduce(store, run, folder, words.runs_folder(db, _stored()), quiet, asked)
    except KeyboardInterrupt:
        if kept is not None:
            raise
        click.echo("interrupted; nothing is kept without --runs DIR", err=True)
        ctx.exit(INTERRUPTED)


def _stored() -> Path | None:
    """The folder of stored runs, where one is named."""
    named = os.environ.get("FLOWBENCH_RUNS")
    return Path(named) if named else None


@contextmanager
def _folder(kept: Path | None, db: str) -> Iterator[Path]:
    """Where the run is made again; raises FlowbenchError for a folder that has other things."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="flowbench-", ignore_cleanup_errors=True) as made:
            yield Path(made)
        return
    folder, own = asking.made_folder(kept, named=True).resolve(), kept.resolve() / DATABASE
    if any(folder.iterdir()) and not own.exists():
        raise FlowbenchError(f"{kept} holds other files: give --runs a new folder")
    if words.url(db) == words.url(str(own)) or Path(db).resolve() == own:
        raise FlowbenchError(f"{db} is the database of {kept}: give --runs another folder")
    yield folder


def _reproduce(store, run: str, folder: Path, runs: Path, quiet: bool, asked: dict) -> None:
    from flowbench import reproduction
    from flowbench.cli.progress import watcher
    from flowbench.interruption import terminable

    spec = store.find(run)
    name = next((t.run for t in store.tried(spec.dataset) if t.spec == spec), spec.name)
    others = store.measured(spec.dataset, [spec.method])
    rows = [row for row in others if row.run == name]
    environments = [store.environment(e) for e in sorted({row.environment for row in rows})]
    with (
        terminable(),
        watcher(quiet, sys.stderr.isatty()) as watch,
        reproduction.threads(environments),
    ):
        asked["deterministic"] = any(one.get("deterministic") for one in environments)
        setup = _setup(folder, watch, {row.score.name for row in rows}, **asked)
        plan = reproduction.same(store, name, spec, setup, runs)
        if not quiet:
            click.echo("\n".join(_surroundings(name, environments, plan, spec, setup)))
        again = _again(store, name, folder, plan, setup, rows)
    found = reproduction.held(rows, again, others)
    _end(name, found, quiet)


def _setup(folder: Path, watch, names: set[str], inception, dinov2, feature_weights, **machine):
    """The machine's side; clean-fid's numbers are made where there are some."""
    from flowbench import environment
    from flowbench.planning import Setup

    device = environment.device(machine.pop("device"))
    return Setup(
        folder=folder,
        device=device,
        watch=watch,
        note=lambda text: click.echo(text, err=True),
        weights=words.pretrained(inception, dinov2, "fid-clean" in names, feature_weights),
        **machine,
    )


def _again(store, name: str, folder: Path, plan, setup, rows) -> list:
    """Make everything again; raises RunFailed where that fails otherwise than it did before."""
    from flowbench import execution, reproduction
    from flowbench.store import Store

    made = Store(words.url(str(folder / DATABASE)))
    try:
        for one in reproduction.plans(plan, [row.score for row in rows]) or [plan]:
            failure = execution.execute(made, one, setup)
            outcomes = {_outcome(db, plan.spec.dataset, name) for db in (made, store)}
            if failure and outcomes != {"diverged"}:
                raise RunFailed(f"{name} cannot be made again: {failure}")
        return [row for row in made.measured(plan.spec.dataset) if row.run == plan.spec.name]
    finally:
        made.close()


def _outcome(store, dataset: str, name: str) -> str:
    """How the last attempt at a run ended."""
    ended = [attempt.outcome for attempt in store.tried(dataset) if attempt.run == name]
    return ended[-1] if ended else ""


def _surroundings(name: str, environments: Sequence[dict], plan, spec, setup) -> Iterator[str]:
    """What is another machine, package or code than that of the stored numbers."""
    from flowbench import environment, reproduction

    today = environment.capture(setup.device, setup.deterministic)
    lines = [line for old in environments for line in reproduction.surroundings(old, today)]
    if plan.spec.version != spec.version:
        lines.append(f"method: stored from {spec.version}, today from {plan.spec.version}")
    if not any(environments):
        lines.append("the machine of the stored numbers is not known")
    yield f"{name}: code of the method and data are the same"
    yield from dict.fromkeys(f"  {line}" for line in lines)


def _end(name: str, found: Sequence[Any], quiet: bool) -> None:
    """Print the numbers and the verdict; raises Different where that is it."""
    from flowbench.reproduction import DIFFERENT, EQUAL, Different, verdict

    if not quiet:
        click.echo("\n".join(_lines(found)))
    counts = {word: [one for one in found if one.verdict == word] for word in (EQUAL, DIFFERENT)}
    judged = sum(bool(one.verdict) for one in found)
    left = sum(not one.verdict and one.why != "not judged" for one in found)
    beside = f"; {left} could not be compared" if left else ""
    word = verdict(found)
    if not word:
        raise FlowbenchError(f"{name} has no number that could be compared")
    if word == DIFFERENT:
        scores = [one.score for one in found]
        off = [_label(one.score, scores) for one in counts[DIFFERENT]]
        more = ", ..." if len(off) > NAMED else ""
        raise Different(
            f"different: {len(off)} of {judged} numbers of {name} ({', '.join(off[:NAMED])}{more})"
            f"{beside}"
        )
    equal = len(counts[EQUAL])
    how = "all" if equal == judged else f"{equal} of"
    click.echo(f"{word}: {how} {judged} numbers of {name} agree to the last bit{beside}")


def _lines(found: Sequence[Any]) -> Iterator[str]:
    """Equal numbers by name, others one by one, and at the end what is not judged."""
    from flowbench.reproduction import EQUAL

    scores = [one.score for one in found]
    equal: dict[str, list[str]] = {}
    for one in found:
        if one.verdict == EQUAL:
            equal.setdefault(_subject(one.score), []).append(_place(one.score, scores))
    for name, places in equal.items():
        at = ", ".join(filter(None, places)).replace(", @ ", ", ")
        yield f"  {name:28} {at:16} equal"
    for one in found:
        if one.verdict and one.verdict != EQUAL:
            off, near = abs(one.again - one.score.value), f"{one.tolerance:.2g} ({one.why})"
            yield f"  {_label(one.score, scores):28} {_both(one)}: {one.verdict}"
            yield f"  {'':28} off by {off:.2g}, tolerance {near}"
    for why in dict.fromkeys(one.why for one in found if not one.verdict):
        yield f"{why}:"
        some = (one for one in found if one.why == why)
        yield from (f"  {_label(one.score, scores):28} {_both(one)}" for one in some)


def _both(one: Any) -> str:
    again = "-" if one.again is None else f"{one.again:.6g}"
    return f"stored {one.score.value:.6g}, again {again}"


def _label(score: Score, scores: Sequence[Score]) -> str:
    return f"{_subject(score)} {_place(score, scores)}".rstrip()


def _subject(score: Score) -> str:
    return f"floor of {score.name}" if score.subject == "floor" else score.name


def _place(score: Score, scores: Sequence[Score]) -> str:
    """The number of evaluations, and what tells the score from others: n, the noise stream."""
    same = [one for one in scores if one.n and one.subject == score.subject]
    floors = score.subject == "floor" and len({one.seed for one in same}) > 1
    parts = [
        "" if score.nfe == RUN_LEVEL else f"@ {score.nfe or 'auto'}",
        f"n={score.n}" if score.n and len({one.n for one in same}) > 1 else "",
        f"stream {score.seed}" if score.seed or floors else "",
    ]
    return " ".join(filter(None, parts))
