"""The options that say which stored results a command looks at."""

import functools
from collections.abc import Callable
from typing import Any

import click

from flowbench.cli import words

OPTIONS = (
    click.option("--dataset", type=words.Name("dataset"), help="Only this one.  [default: all]"),
    click.option(
        "--method",
        "only",
        multiple=True,
        type=words.Name("method"),
        help="Only this one; several times for several.",
    ),
    click.option("--seed", "seeds", type=words.SEEDS, help="Only these training seeds."),
    click.option("--since", metavar="TIME", help="Only attempts since: 2026-11-20, 36h, 7d."),
    click.option(
        "--where",
        multiple=True,
        metavar="NAME=VALUE",
        help="Only where this holds: n=600, budget=1000x64, teacher=edm, an option of the method.",
    ),
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options above; it gets one argument `asked`, a Filter."""

    @functools.wraps(command)
    def filtered(*args, dataset, only, seeds, since, where, methods=(), **given):
        from flowbench.comparison import selection

        asked = selection.Filter(
            dataset=dataset,
            methods=tuple(dict.fromkeys((*methods, *only))),
            seeds=seeds or (),
            since=selection.since(since) if since else "",
            where=tuple(selection.pair(word) for word in where),
        )
        return command(*args, asked=asked, **given)

    for option in reversed(OPTIONS):
        filtered = option(filtered)
    return filtered
