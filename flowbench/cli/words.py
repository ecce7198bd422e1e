"""The options that several commands share, and how their words are read."""

from pathlib import Path

import click

from flowbench.places import runs_folder, url
from flowbench.records import ADAPTIVE, FlowbenchError

__all__ = ["runs_folder", "url"]  # part of the words that commands share


class Numbers(click.ParamType):
    """Whole numbers with commas, such as `0,1,2`; `auto` where that has a meaning."""

    def __init__(self, lowest: int, highest: int, auto: bool = False):
        self.lowest, self.highest, self.auto = lowest, highest, auto
        self.name = "numbers"

    def convert(self, value, param, ctx) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(self.number(word.strip(), param, ctx) for word in value.split(","))

    def number(self, word: str, param, ctx) -> int:
        """One of the numbers; fails in one line."""
        if self.auto and word == "auto":
            return ADAPTIVE
        if not word.isdecimal() or not self.lowest <= int(word) <= self.highest:
            auto = " or auto" if self.auto else ""
            bounds = f"from {self.lowest} to {self.highest}"
            self.fail(f"{word!r} is no whole number {bounds}{auto}", param, ctx)
        return int(word)


class Duration(click.ParamType):
    """A time such as `90`, `30s`, `5m` or `2h`, in seconds."""

    name = "time"

    def convert(self, value, param, ctx) -> float:
        from flowbench.limits import seconds

        try:
            return value if isinstance(value, float) else seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Name(click.ParamType):
    """A method or data set, completed by the shell without importing any plugin's code."""

    def __init__(self, kind: str):
        self.name = kind

    def shell_complete(self, ctx, param, incomplete):
        from click.shell_completion import CompletionItem

        from flowbench import plugins

        names = plugins.methods() if self.name == "method" else plugins.datasets()
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


NFE = Numbers(1, 10_000, auto=True)
SEEDS = Numbers(0, 2**31 - 1)

database = click.option(
    "--db",
    envvar="FLOWBENCH_DB",
    default="results.db",
    show_default=True,
    help="Results: an SQLite file or a database URL.",
)
data_root = click.option(
    "--data-root",
    envvar="FLOWBENCH_DATA",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the archives of data sets that do not come with flowbench.",
)

runs = click.option(
    "--runs",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="FLOWBENCH_RUNS",
    help="Folder for checkpoints and samples.  [default: runs, beside the database]",
)


FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
inception = click.option(
    "--inception-weights",
    "inception",
    type=FILE,
    envvar="FLOWBENCH_INCEPTION",
    help="For fid, is, kid, ... of images: see `flowbench weights list`.",
)
dinov2 = click.option(
    "--dinov2-weights", "dinov2", type=FILE, envvar="FLOWBENCH_DINOV2", help="For fd-dinov2."
)


clean = click.option(
    "--clean-fid", "clean", is_flag=True, help="Also fid-clean, by the protocol of clean-fid."
)


feature_weights = click.option(
    "--feature-weights",
    multiple=True,
    metavar="NAME=FILE",
    help="For the losses of lmm, ctm: see `flowbench weights list`.",
)


def extractors(inception: Path | None, dinov2: Path | None, clean: bool = True) -> dict[str, Path]:
    """The files of weights by feature extractor: given, or downloaded before."""
    return _found(("inception", *(["clean"] if clean else []), "dinov2"), inception, dinov2)


def pretrained(
    inception: Path | None = None,
    dinov2: Path | None = None,
    clean: bool = False,
    losses: tuple[str, ...] = (),
) -> dict[str, Path]:
    """The files of weights by feature extractor, and by network that losses look through.

    `losses` are words NAME=FILE; raises FlowbenchError for other forms and names.
    """
    from flowbench import options
    from flowbench.known_weights import KNOWN, LOSSES

    names = [known.name for known in KNOWN.values() if known.use == LOSSES]
    given = assignments(losses, "--feature-weights")
    for name in given:
        options.choose("feature network", name, names)
    files = {name: Path(file) for name, file in given.items()}
    return extractors(inception, dinov2, clean) | _found(names, None, None, files)


def _found(names, inception, dinov2, others=None) -> dict[str, Path]:
    from flowbench.weights import find

    given = {"inception": inception, "dinov2": dinov2, **(others or {})}
    given = {name: path for name, path in given.items() if path}
    found = {name: find(name, given) for name in names}
    return {name: path.resolve() for name, path in found.items() if path is not None}


def assignments(words: tuple[str, ...], option: str = "-o") -> dict[str, str]:
    """Words as typed, `name=value`; raises FlowbenchError for other forms or doubles."""
    options: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise FlowbenchError(f"{option} takes name=value, not {word!r}")
        if name in options:
            raise FlowbenchError(f"{option} {name} is given twice")
        options[name] = value
    return options
