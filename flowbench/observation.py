"""Who hears of a run: extensions always, other observers when asked for, none able to harm it."""

import json
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flowbench import plugins
from flowbench.events import Begun, Ended, Event, Point
from flowbench.plans import Plan, Setup
from flowbench.random_states import random_state, set_random_state
from flowbench.records import FlowbenchError, Score, digest, visible

LEDGERS = "observers"  # a folder of the run: what each observer has been handed


@dataclass
class Ledger:
    """What an observer has been handed of a run over all attempts, in a file beside the run.

    It is written after the observer has returned: a process that is killed between the two hands
    one event over again, and never loses one.
    """

    path: Path
    steps: dict[str, int] = field(default_factory=dict)  # the last of each stage
    scores: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        try:
            content = json.loads(self.path.read_bytes())
            self.steps |= {str(stage): int(step) for stage, step in content["steps"].items()}
            self.scores |= {str(mark) for mark in content["scores"]}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return  # none yet, or not ours: all is handed over

    def holds(self, event: Event) -> bool:
        """Whether the event was handed over before; attempts begin and end every time."""
        if isinstance(event, Point):
            return event.step <= self.steps.get(event.stage, 0)
        return isinstance(event, Score) and _mark(event) in self.scores

    def add(self, event: Event) -> None:
        """Keep that the event was handed over; a reader of the file sees all of it or the old."""
        if isinstance(event, Point):
            self.steps[event.stage] = event.step
        elif isinstance(event, Score):
            self.scores.add(_mark(event))
        else:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps({"steps": self.steps, "scores": sorted(self.scores)}))
        os.replace(part, self.path)


def _mark(score: Score) -> str:
    return f"{score.subject} {score.nfe} {score.fingerprint}"


@dataclass(frozen=True)
class Observer:
    """An implementation of the hook `observe`; `key` tells its ledger from those of others."""

    name: str
    key: str
    hook: Callable[..., Any]


def asked(words: Iterable[str]) -> list[Observer]:
    """The observers that `--track` names: "tensorboard", or "mlflow,experiment=x".

    Raises FlowbenchError for a word that is wrong, and for one whose package is not here.
    """
    return [_asked(word) for word in dict.fromkeys(words)]


def _asked(word: str) -> Observer:
    name, *parts = word.split(",")
    options = dict(_option(word, part) for part in parts)
    instance = plugins.observer(name, options)
    key = f"{name}-{digest(options)[:8]}" if options else name
    return Observer(name, key, plugins.manager(instance).hook.observe)


def _option(word: str, part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise FlowbenchError(f"--track {word}: write NAME=VALUE instead of {part!r}")
    return name, value


def always() -> list[Observer]:
    """The extensions that hear of every run."""
    found = [(m.__name__, plugins.manager(m).hook.observe) for m in plugins.extensions()]
    return [Observer(name, name, hook) for name, hook in found if hook.get_hookimpls()]


class Audience:
    """The observers of one attempt; one that fails is left out of the rest of it."""

    def __init__(self, plan: Plan, setup: Setup, folder: Path, observers: Sequence[Observer]):
        self.spec, self.setup, self.folder = plan.spec, setup, folder
        self.ledgers = {o: Ledger(folder / LEDGERS / _file(o.key)) for o in observers}

    def hear(self, event: Event) -> None:
        """Hand an event to all who have not had it; nothing of the run changes by that."""
        for observer, ledger in list(self.ledgers.items()):
            if ledger.holds(event):
                continue
            try:
                with undisturbed(self.setup.device):
                    observer.hook(spec=self.spec, event=event, folder=self.folder)
                    ledger.add(event)
            except (Exception, SystemExit) as error:
                del self.ledgers[observer]
                why = visible(f"{type(error).__name__}: {error}")
                self.setup.note(f"{observer.name} failed and hears no more of this run: {why}")


def _file(key: str) -> str:
    return re.sub(r"[^\w.,=-]", "_", key) + ".json"


@contextmanager
def undisturbed(device: str) -> Iterator[None]:
    """Leave the random numbers of whoever is interrupted as if nothing happened inside."""
    tensors, numpy, python = random_state(device), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        set_random_state(tensors, device)
        np.random.set_state(numpy)
        random.setstate(python)


@contextmanager
def observed(
    plan: Plan,
    setup: Setup,
    observers: Sequence[Observer],
    begun: Begun,
    past: Iterable[Score] = (),
) -> Iterator[Setup]:
    """The setup of an attempt, of which all observers hear: from its begin to its end.

    `past` are the scores of earlier attempts, for those who have not had them.
    """
    folder = plan.folder(setup, begun.generation)
    folder.mkdir(parents=True, exist_ok=True)
    audience = Audience(plan, setup, folder, [*always(), *observers])
    opening: list[Event] = [begun, *past]
    for event in opening:
        audience.hear(event)
    try:
        yield replace(setup, observe=audience.hear)
    except BaseException as error:
        audience.hear(_ended(error))
        raise
    audience.hear(Ended("ok"))


def _ended(error: BaseException) -> Ended:
    """How an attempt ended, in the words of the database."""
    if isinstance(error, FlowbenchError):
        return Ended(error.outcome, visible(str(error)))
    if isinstance(error, Exception):
        return Ended("failed", visible(f"{type(error).__name__}: {error}"))
    return Ended("interrupted")
