"""Reads guides: their fenced blocks, and the commands that they tell a reader to type."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^( *)```(\S*) ?(\S*)\n(.*?)^ *```$", re.M | re.S)
GENERATED = re.compile(r"<!-- output of: (.*?) -->\n(.*?)<!-- end -->", re.S)
LANGUAGES = {"", "python", "toml", "text"}  # "": commands


@dataclass(frozen=True)
class Block:
    """A fenced block; `file` is the name that stands behind its language, `line` its place."""

    language: str
    file: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A line to type, and the exit codes that its comment allows."""

    text: str
    codes: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class Exceptions:
    """How a guide's commands differ in a test: each with the reason.

    `added` are words behind a command that make it small, `changed` words that are replaced in one
    command. `skipped` commands are only parsed, `others` are lines that are no commands of
    flowbench, and `stands_for` are words of the guide that a reader replaces.
    """

    added: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # (words, reason)
    changed: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)  # (old, new, reason)
    skipped: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    stands_for: Mapping[str, str] = field(default_factory=dict)

    def words(self, command: str) -> tuple[dict[str, str], list[str]]:
        """The variables in front of a command, and its words without "flowbench"."""
        old, new, _ = self.changed.get(command, ("", "", ""))
        variables, (_, *words) = split(command.replace(old, new) if old else command)
        words = [self.stands_for.get(word, word) for word in words]
        return variables, words + shlex.split(self.added.get(command, ("",))[0])

    def stale(self, text: str) -> list[str]:
        """Exceptions for what the guide does not say any more."""
        said = {*(c.text for c in commands(text)), *others(text)}
        named = (*self.added, *self.changed, *self.skipped, *self.others)
        return [line for line in named if line not in said]


def read(name: str) -> str:
    """A guide of the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Every fenced block, without the indentation of the list that it stands in."""
    found = []
    for match in FENCE.finditer(text):
        indent = len(match[1])
        lines = [line[indent:] for line in match[4].splitlines(keepends=True)]
        place = text.count("\n", 0, match.start()) + 1
        found.append(Block(match[2], match[3], "".join(lines), place))
    return found


def typed(text: str) -> list[Command]:
    """Every line of the blocks of commands; `\\` at an end joins two.

    The comment "exit code 6" allows that code only, "exit code 6 if ..., 5 if ..." these and 0.
    """
    found = []
    for block in blocks(text):
        if block.language == "":
            for line in re.sub(r"\\\n *", "", block.text).splitlines():
                command, comment = re.fullmatch(r"(.*?)(?:(?:^|\s+)#(.*))?", line).groups()
                _, _, said = (comment or "").partition("exit code ")
                codes = {int(code) for code in re.findall(r"\d", said)}
                codes |= {0} if " if " in said or not codes else set()
                found += [Command(command.strip(), frozenset(codes))] if command.strip() else []
    return found


def inline(text: str) -> list[Command]:
    """Every `flowbench ...` in backticks, outside of blocks and of what commands have printed."""
    prose = FENCE.sub("", GENERATED.sub("", text))
    found = re.findall(r"`((?:[A-Z_]+=\S+ )*flowbench\s[^`]+)`", prose)
    return [Command(" ".join(command.split())) for command in found]


def commands(text: str) -> list[Command]:
    """Every command of flowbench that a guide names, once, in the order of reading."""
    lines = [line for line in typed(text) if split(line.text)[1][:1] == ["flowbench"]]
    return list({command.text: command for command in [*inline(text), *lines]}.values())


def others(text: str) -> list[str]:
    """Lines to type that are no commands of flowbench."""
    known = {command.text for command in commands(text)}
    return [line.text for line in typed(text) if line.text not in known]


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that are set in front of a command, and its words."""
    parts = shlex.split(command)
    variables = {}
    while parts and re.fullmatch(r"[A-Z_]+=.*", parts[0]):
        name, _, value = parts.pop(0).partition("=")
        variables[name] = value
    return variables, parts


def carried_out(
    text: str, exceptions: Exceptions, call: Callable[[list[str], dict[str, str]], tuple[int, str]]
) -> list[str]:
    """Run every command of a guide, those of blocks first; returns what went wrong.

    `call(words, variables)` returns the exit code and the output.
    """
    wrong = [f"in no table of exceptions: {x}" for x in others(text) if x not in exceptions.others]
    in_blocks = {line.text for line in typed(text)}
    for command in sorted(commands(text), key=lambda c: c.text not in in_blocks):
        variables, words = exceptions.words(command.text)
        if command.text in exceptions.skipped:
            problem = unknown(words)
        else:
            code, output = call(words, variables)
            problem = "" if code in command.codes else f"exit code {code}: {output[-800:]}"
        wrong += [f"{command.text}: {problem}"] if problem else []
    return wrong


def unknown(words: list[str]) -> str:
    """What is wrong with the words of a command that is not carried out, or nothing."""
    import click

    from flowbench.cli import cli

    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name)
        if command is None:
            return f"no command {name}"
    options = [word for word in words if word.startswith("-") and word != "-"]
    known = {word for parameter in command.params for word in parameter.opts}
    return "".join(f"no option {word}" for word in options if word.partition("=")[0] not in known)
