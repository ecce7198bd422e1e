"""`flowbench check`: whether a method keeps what all methods have to keep, and what to do."""

import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowbench.cli import words
from flowbench.records import FlowbenchError

if TYPE_CHECKING:
    from flowbench.testing import Check, Result

# Options that are set to these where a method has them and the user says nothing: the defaults
# are for real data, and take minutes.
SMALL = {"pairs": 256, "pair_steps": 4}
OUTCOMES = ("pass", "fail", "warn", "skip")


class ChecksFailed(FlowbenchError):
    """Checks that did not pass."""

    exit_code = 6


@click.command()
@click.argument("plugin", required=False, metavar="NAME|FILE", type=words.Name("method"))
@click.option("-o", "given", multiple=True, metavar="NAME=VALUE", help="Set an option; repeatable.")
@click.option("--quick", is_flag=True, help="Leave out what takes more than a few seconds.")
@click.option("--only", metavar="ID,...", help="Only these checks or groups, such as S04,T.")
@click.option(
    "--kind",
    type=click.Choice(["vector", "image"]),
    default="vector",
    show_default=True,
    help="What it is to learn from.",
)
@click.option("--nfe", type=words.NFE, help="Evaluations to sample with.  [default: what it takes]")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--list", "listed", is_flag=True, help="List all checks, and what each promises.")
def check(plugin, given, quick, only, kind, nfe, as_json, listed) -> None:
    """Check a method: metadata (A), sampling (S), training (T), known answers (K), failures (F).

    NAME is an installed method, FILE a loose one. It is trained for a few steps on toy data; where
    it has the options pairs and pair_steps, these are small unless set. The exit code is 6 if a
    check fails, 2 if there is no such method. The same checks are tests for pytest:
    flowbench.testing.MethodContract.
    """
    from flowbench.testing import catalogue

    checks = catalogue.chosen([word for word in (only or "").split(",") if word], quick)
    if listed:
        return _list(checks)
    if plugin is None:
        raise click.UsageError("say which method: flowbench check NAME, or FILE")
    found = _found(plugin)
    told = []
    for one in found:
        options = words.assignments(given)
        with tempfile.TemporaryDirectory(prefix="flowbench-") as folder:
            examination = catalogue.Examination(_subject(one, options, Path(folder), kind, nfe))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = list(_watched(examination, checks))
        told.append((one, results))
        if not as_json:
            _table(one, results)
    if as_json:
        click.echo(json.dumps([_json(one, results) for one, results in told], indent=2))
    _judge([result for _, results in told for result in results])


def _list(checks: "list[Check]") -> None:
    """Print each check with what mends a breach."""
    for one in checks:
        click.echo(f"{one.id}  {one.title}{'  (slow)' * one.slow}\n     {one.advice}")


def _found(plugin: str) -> list[Any]:
    """The plugins of this name or file; raises FlowbenchError where there is none."""
    from flowbench import plugins
    from flowbench.discovery import from_file

    if plugin.endswith(".py") or "/" in plugin:
        path = Path(plugin)
        if not path.exists():
            raise FlowbenchError(f"there is no file {plugin}: give the name or file of a method")
        read = from_file(path)
        found = [one for one in read if one.kind == "method" or one.problem]
        if not found:
            what = "a frozen dataclass with the hooks train and sample"
            raise FlowbenchError(f"{plugin} holds no method, which is {what}")
        return found
    claims = plugins.claimed("method")
    return claims[plugin][:1] if plugin in claims else [plugins.find("method", plugin)]


def _subject(plugin: Any, given: dict[str, str], folder: Path, kind: str, nfe: Any) -> Any:
    """What is examined; raises FlowbenchError for options that the method does not have."""
    import dataclasses
    from functools import partial

    from flowbench import options
    from flowbench.discovery import Broken, load
    from flowbench.testing import Subject

    chosen: dict[str, Any] = dict(given)
    try:
        cls = load(plugin)
        known = {field.name for field in dataclasses.fields(cls)}
        options.parse(plugin.name, cls, given)
        chosen = {name: value for name, value in SMALL.items() if name in known} | chosen
    except (Broken, TypeError):
        pass  # which is what a check finds
    nfes = tuple(nfe or ())
    return Subject(partial(load, plugin), folder, plugin.name, chosen, kind=kind, nfes=nfes)


def _watched(examination: Any, checks: "list[Check]") -> "Iterator[Result]":
    """The results, while a line on a terminal says which check is at work."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from examination.results_of(checks)
        return
    with console.status("") as status:
        for one in checks:
            status.update(f"{one.id} {one.title}")
            yield examination.result(one)


def _table(plugin: Any, results: "list[Result]") -> None:
    """Print one line for each check, and below what to do."""
    from flowbench.report import terminal
    from flowbench.report.layout import Table, Text

    rows = [[Text(cell) for cell in (r.check.id, r.outcome, r.check.title, r.why)] for r in results]
    title = f"{plugin.name} from {plugin.origin}: {_count(results)}"
    todo = [f"{r.check.id} to do: {r.advice}" for r in results if r.advice]
    terminal.show([Table(title, ["check", "result", "promise", "why"], rows, todo, labels=4)])


def _count(results: "list[Result]") -> str:
    counts = {word: sum(r.outcome == word for r in results) for word in OUTCOMES}
    return ", ".join(f"{counts[word]} {word}" for word in OUTCOMES if counts[word])


def _json(plugin: Any, results: "list[Result]") -> dict[str, Any]:
    checks = [
        {
            "id": r.check.id,
            "check": r.check.title,
            "outcome": r.outcome,
            "why": r.why,
            "advice": r.advice,
            "seconds": round(r.seconds, 3),
        }
        for r in results
    ]
    failed = any(r.outcome == "fail" for r in results)
    return {
        "method": plugin.name,
        "origin": plugin.origin,
        "passed": not failed,
        "checks": checks,
    }


def _judge(results: "list[Result]") -> None:
    """Raise ChecksFailed if one failed."""
    failed = [result.check.id for result in results if result.outcome == "fail"]
    if failed:
        several = "checks" if len(failed) > 1 else "check"
        raise ChecksFailed(f"{len(failed)} {several} failed: {', '.join(failed)}")
