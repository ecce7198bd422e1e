"""How results are shown and kept: a table for the terminal, one in Markdown, and JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.speed.harness import LeftOut, Result, Times
from flowbench import environment

WIDTH = 100  # columns of a terminal
HEAD = ("ratio", "case", "against", "ours", "theirs", "goal", "met")
RIGHT = ("ratio", "ours", "theirs")
SCALES = {"s": 1.0, "ms": 1e3, "µs": 1e6}


@dataclass(frozen=True)
class Outcome:
    """All results of the modules that ran, by module, what was left out, and on what machine."""

    machine: Mapping[str, Any]
    results: Mapping[str, Sequence[Result]]
    left_out: Mapping[str, Sequence[LeftOut]]


def machine(device: str, quick: bool) -> dict[str, Any]:
    """What the numbers hang on: processor, cores, threads, torch, device, load at the start."""
    return {
        "processor": environment.device_name("cpu"),
        "device": environment.device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "quick": quick,
        "load": round(os.getloadavg()[0], 2),
    }


def row(result: Result) -> tuple[str, ...]:
    """The cells of one result, as in `HEAD`."""
    return (
        ratio(result),
        result.case,
        result.against,
        reading(result.ours, result),
        "" if result.theirs is None else reading(result.theirs, result),
        result.goal,
        {True: "yes", False: "NO", None: ""}[result.verdict],
    )


def _narrow(cells: tuple[str, ...]) -> tuple[str, ...]:
    """The cells in two lines each: who it is compared with below the case, spreads below times."""
    times = [cell.replace(" ±", "\n±") for cell in cells[3:5]]
    case = f"{cells[1]}\n  against {cells[2]}" if cells[2] else cells[1]
    return cells[0].replace(" x ", " x\n"), case, *times, *cells[5:]


def ratio(result: Result) -> str:
    """Such as `2.9 x speed` of theirs, or `1.02 x time` where the goal bounds that share."""
    if result.ratio is None:
        return ""
    number = f"{result.ratio:.3g}" if result.ratio < 100 else f"{result.ratio:.0f}"
    return f"{number} x speed" if result.faster else f"{number} x time"


def reading(times: Times, result: Result) -> str:
    """The median and the spread, such as `12.3 ms ±4%`."""
    if result.unit in SCALES:
        number = times.median * SCALES[result.unit]
    else:  # such as images/s
        number = result.facts.get("count", 1) / times.median
    return f"{number:.4g} {result.unit} ±{100 * times.spread / 2:.0f}%"


def terminal(outcome: Outcome, width: int = WIDTH) -> str:
    """The table for reading at `width` columns."""
    console = Console(width=width, color_system=None)
    with console.capture() as caught:
        console.print(_sentence(outcome.machine), soft_wrap=False)
        for name, results in outcome.results.items():
            table = Table(title=name, title_justify="left", box=SIMPLE_HEAD)
            for word in HEAD[:2] + HEAD[3:]:
                table.add_column(word, justify="right" if word in RIGHT else "left")
            for result in results:
                table.add_row(*_narrow(row(result)))
            console.print(table)
        for line in _left_out(outcome):
            console.print(line)
    return caught.get()


def markdown(outcome: Outcome) -> str:
    """The same as Markdown, with one table for each module."""
    lines = ["# Speed, measured", "", _sentence(outcome.machine), ""]
    for name, results in outcome.results.items():
        lines += [f"## {name}", "", _line(HEAD), _line(["---"] * len(HEAD))]
        lines += [*(_line(row(result)) for result in results), ""]
    lines += [f"- {line}" for line in _left_out(outcome)]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _sentence(machine: Mapping[str, Any]) -> str:
    words = ["Median of the repeats and half the distance of the quartiles; ratios of pairs."]
    words += [f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']},"]
    words += [f"device {machine['device']}, load {machine['load']} at the start."]
    return " ".join(words)


def _left_out(outcome: Outcome) -> list[str]:
    return [
        f"left out: {name}: {left.case}: {left.reason}"
        for name, found in outcome.left_out.items()
        for left in found
    ]


def write(outcome: Outcome, folder: Path) -> None:
    """Write speed.json and results.md into `folder`.

    Modules that did not run this time keep what an earlier run on this machine found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "speed.json"
    if path.exists():
        outcome = _joined(read(path), outcome)
    path.write_text(json.dumps(_plain(outcome), indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "results.md").write_text(markdown(outcome), "utf-8")


def read(path: Path) -> Outcome:
    """What `write` wrote."""
    kept = json.loads(path.read_text("utf-8"))
    results = {name: [_result(each) for each in some] for name, some in kept["results"].items()}
    left = {name: [LeftOut(**each) for each in some] for name, some in kept["left_out"].items()}
    return Outcome(kept["machine"], results, left)


def _joined(old: Outcome, new: Outcome) -> Outcome:
    same = {**old.machine, "load": 0} == {**new.machine, "load": 0}
    if not same:
        return new
    ran = new.results.keys() | new.left_out.keys()
    kept = {name: some for name, some in old.results.items() if name not in ran}
    left = {name: some for name, some in old.left_out.items() if name not in ran}
    return Outcome(new.machine, kept | dict(new.results), left | dict(new.left_out))


def _plain(outcome: Outcome) -> dict[str, Any]:
    """What JSON holds; ratio and verdict stand beside the times that they follow from."""
    results = {
        name: [asdict(each) | {"ratio": each.ratio, "verdict": each.verdict} for each in some]
        for name, some in outcome.results.items()
    }
    left = {name: [asdict(each) for each in some] for name, some in outcome.left_out.items()}
    return {"machine": dict(outcome.machine), "results": results, "left_out": left}


def _result(kept: dict[str, Any]) -> Result:
    parts = {name: kept[name] for name in Result.__dataclass_fields__}
    for side in ("ours", "theirs"):
        if kept[side] is not None:
            parts[side] = Times(*(tuple(kept[side][name]) for name in ("seconds", "cpu")))
    return Result(**parts)
