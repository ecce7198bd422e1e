"""`--plugin` of every command, and how commands tell of plugins that were left out."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import click

from flowbench.records import FlowbenchError, PluginWarning, visible


def add(command: click.Command) -> click.Command:
    """Give a command the option `--plugin`, which opens a file or folder for the command."""
    if not any(parameter.name == "plugin" for parameter in command.params):
        command.params.append(
            click.Option(
                ["--plugin"],
                multiple=True,
                metavar="PATH",
                expose_value=False,
                is_eager=True,  # before names of methods are completed or looked up
                callback=_use,
                help="A file or folder with plugins; also FLOWBENCH_PLUGINS and flowbench.toml.",
            )
        )
    return command


def _use(ctx: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> None:
    """Put the files where this process and its workers look for them, until the command ends."""
    from flowbench.discovery.settings import PLUGINS

    if not words:
        return
    for word in words:
        if os.pathsep in word:
            raise FlowbenchError(f"--plugin {word}: its path may have no {os.pathsep!r}")
    before = os.environ.get(PLUGINS)
    os.environ[PLUGINS] = os.pathsep.join([*words, *filter(None, [before])])
    ctx.call_on_close(lambda: _restore(PLUGINS, before))


def without_network(ctx: click.Context) -> None:
    """Forbid connections until the command ends."""
    from flowbench import offline

    for name, value in offline.begin().items():
        ctx.call_on_close(lambda name=name, value=value: _restore(name, value))


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextmanager
def told() -> Iterator[None]:
    """Print each plugin that is left out in one line, once."""
    seen: set[str] = set()
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message, category, *place) -> None:
            if not issubclass(category, PluginWarning):
                usual(message, category, *place)
            elif str(message) not in seen:
                seen.add(str(message))
                click.echo(f"left out: {visible(str(message))}", err=True)

        warnings.showwarning = cast(Any, show)
        warnings.simplefilter("always", PluginWarning)
        yield
