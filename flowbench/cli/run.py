"""`flowbench run`: train, sample and score one method, storing each score as it is made."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from flowbench.cli import asking, launching, ranked, run_options, words
from flowbench.cli.manner import Manner

# What a suite's file decides; --seed and --dataset choose among its cells.
DECIDED = (
    *("method", "nfe", "samples", "sample_seeds", "steps", "images", "batch", "options"),
    *("teacher", "weights", "network", "precision", "augment", "unconditional", "reference_rows"),
    *("preset", "optimizer"),
)


@click.command()
@run_options.declared
@click.pass_context
def run(
    ctx, suite, jobs, launcher, max_jobs, dry, token, track, db, folder, smoke, **asked
) -> None:
    """Train METHOD on a data set, sample at each NFE, and store every score.

    What is stored already is not done again: the same command finishes what is missing. With
    --suite, all that a file names is done that way, several runs at a time.
    """
    manner = Manner.of(asked)
    limits = run_options.limits(asked, suite is not None)
    ranked.check(ctx.params)
    _check(ctx.params)
    asked["device"] = _device(ctx)
    manner.prepare()
    setup = dataclasses.replace(asking.setup(words.runs_folder(db, folder), asked), track=track)
    _check_track(setup)
    named = folder is not None
    if suite is not None:
        return _suite(ctx, suite, setup, dry, token, db, launching.of(ctx), manner, limits, named)
    requests = asking.requests(db, **asked)
    if smoke:
        from flowbench.cli import trial

        return trial.smoke(ctx, requests, setup, manner)
    if dry:
        return _look(dry, db, setup, requests)
    asking.made_folder(setup.folder, named)
    _run(db, setup, requests, asked["preset"], manner, limits)


def _run(
    db: str, setup: Any, requests: list[Any], preset: str | None, manner: Manner, limits: Any
) -> None:
    from flowbench import planning
    from flowbench.cli import doing, limited

    def plans(setup: Any) -> list[Any]:
        found = [planning.plan(request, setup) for request in requests]
        _say_what_was_not(found[0], preset, setup)
        return found

    if limits.timeout is None:
        return doing.carry_out(db, plans, setup, manner)
    limited.carry_out(db, requests, plans, setup, manner, limits)


def _check(given: dict[str, Any]) -> None:
    """Raise what click raises for words that are missing, or that do not go together."""
    dry = given["dry"]
    if given["suite"] is not None:
        for name, more in (("smoke", "; of a suite: --token"), ("profile", ""), ("debug", "")):
            if given[name]:
                word = "pdb" if name == "debug" else name
                raise click.UsageError(f"--{word} is for one METHOD{more}.")
        if dry == "stages":
            raise click.UsageError("--explain is for one METHOD; of a suite: --dry-run.")
        return
    if given["method"] is None:
        raise click.UsageError("Missing argument 'METHOD' (or --suite FILE).")
    if given["dataset"] is None:
        raise click.UsageError("Missing option '--dataset'.")
    _check_one(given)


def _check_one(given: dict[str, Any]) -> None:
    """The same of a single METHOD."""
    dry, smoke, profile = given["dry"], given["smoke"], given["profile"]
    for names in (("jobs", "token"), ("max_hours", "retries"), ("launcher", "max_jobs")):
        if any(given[name] not in (None, False) for name in names):
            words = " and ".join(f"--{name.replace('_', '-')}" for name in names)
            raise click.UsageError(f"{words} belong to --suite.")
    if given["timeout"] is not None and (smoke or profile or given["debug"]):
        other = "--timeout runs it in another process: leave out --smoke, --pdb and --profile."
        raise click.UsageError(other)
    if dry and (smoke or given["debug"] or profile or given["force"]):
        none = "--force makes all anew but teachers: there is nothing to explain."
        other = "--explain and --dry-run do nothing: leave out --smoke, --pdb and --profile."
        raise click.UsageError(none if given["force"] else other)
    if smoke and profile:
        raise click.UsageError("--profile is of a run at its full size: leave --smoke out.")


def _check_track(setup: Any) -> None:
    """Raise FlowbenchError for an observer that is not there, before anything is trained."""
    if setup.track:
        from flowbench import observation

        observation.asked(setup.track)


def _device(ctx: click.Context) -> str:
    """What was asked for; to try something out, the processor is there at once.

    So it is to plan what other machines do, each with a device of its own.
    """
    if launching.of(ctx).far:
        return "cpu"
    default = ctx.get_parameter_source("device") is click.core.ParameterSource.DEFAULT
    return "cpu" if default and ctx.params["smoke"] else ctx.params["device"]


def _say_what_was_not(plan, preset: str | None, setup) -> None:
    """Name a preset that nobody asked for, and metrics whose network is not here."""
    used = plan.spec.changed.get("preset")
    if used and preset is None:
        setup.note(
            f"by --preset {used} (flowbench methods {plan.spec.method} --preset {used});"
            " --preset none takes flowbench's own defaults"
        )
    images = plan.data.kind == "image" and plan.data.network is not None
    if images and "inception" not in setup.weights:
        setup.note(
            "fid, is, kid, precision, recall are left out: give --inception-weights FILE (or set"
            " FLOWBENCH_INCEPTION), or get the file with: flowbench weights download inception"
        )


def _suite(ctx: click.Context, path: Path, setup: Any, dry: Any, token: bool, *asked: Any) -> None:
    """Run a suite; what its file decides may not be given beside it."""
    from flowbench.cli import suite, sweep

    suite.refuse(ctx, DECIDED)
    dataset, seeds = ctx.params["dataset"], ctx.params["seeds"]
    default = ctx.get_parameter_source("seeds") is click.core.ParameterSource.DEFAULT
    narrow = {"seeds": () if default else seeds, "datasets": [dataset] if dataset else ()}
    sweep.run(sweep.Sweep(path, narrow, token, *asked), setup, dry)


def _look(dry: str, db: str, setup: Any, requests: list[Any]) -> None:
    """Print what of each plan is there already, and what the rest will take; nothing is done."""
    from flowbench import planning
    from flowbench.cli import preview, why

    plans = [planning.plan(request, setup) for request in requests]
    if dry == "plan":
        return preview.show(why.existing(db), plans, setup)
    why.explain(why.existing(db), plans, setup)
