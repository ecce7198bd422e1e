"""Weights & Biases: offline unless asked otherwise, one id for each run, no question ever."""

import netrc
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args
from urllib.parse import urlsplit

from flowbench.events import Begun, Ended, Event, Point
from flowbench.hookspecs import hookimpl
from flowbench.options import choose
from flowbench.records import FlowbenchError, Score, Spec, visible
from flowbench.trackers import axis, parameters, quiet, require, score_name, versions

Mode = Literal["offline", "online", "disabled"]
ROWS = 1_000_000  # more than an attempt has: the rows of attempts never share a number
SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "disable_job_creation": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    # Seconds for which a row may wait in another process before it is in the file.
    "x_transaction_log_flush_interval": 0.1,
}


@dataclass(frozen=True)
class WandB:
    """Curves and scores for Weights & Biases, kept in the run's folder; see `wandb sync`."""

    needs: ClassVar[tuple[str, ...]] = ("wandb>=0.22",)
    project: str | None = None  # none: WANDB_PROJECT, or flowbench
    entity: str | None = None  # a user or a team; none: WANDB_ENTITY, or the user logged in
    mode: Mode | None = None  # none: WANDB_MODE, or offline

    def __post_init__(self) -> None:
        require("wandb", *self.needs)
        if self._mode == "online" and not _logged_in():
            raise FlowbenchError(
                "--track wandb: nobody is logged in: type `wandb login`, or leave mode=online"
                " (WANDB_MODE) out and `wandb sync` the files later"
            )

    @property
    def _mode(self) -> Mode:
        word = self.mode or os.environ.get("WANDB_MODE") or "offline"
        return cast(Mode, choose("mode of wandb called", word, get_args(Mode)))

    @cached_property
    def _open(self) -> dict[str, Any]:
        """The run that is being written, and the number of its next row."""
        return {}

    @hookimpl
    def observe(self, spec: Spec, event: Event, folder: Path) -> None:
        """Hand the event to the library; each curve has the step of its own stage as axis."""
        if isinstance(event, Begun):
            with quiet():
                self._begin(spec, event, folder)
        elif isinstance(event, Point):
            self._point(event)
        elif isinstance(event, Score):
            self._score(event)
        elif isinstance(event, Ended):
            self._end(event)

    def _begin(self, spec: Spec, begun: Begun, folder: Path) -> None:
        # Reports of errors would go over the network; this is the library's switch for them.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        known = {n: v for n, v in SETTINGS.items() if n in wandb.Settings.model_fields}
        self._open["run"] = wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or "flowbench",
            entity=self.entity,
            dir=folder,
            id=_identity(folder.name),
            name=folder.name,
            group=f"{spec.dataset} {spec.variant}"[:128],
            config=parameters(spec) | {f"version.{n}": v for n, v in versions(spec).items()},
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**known),
        )
        self._open["row"] = (begun.attempt - 1) * ROWS
        self._open["run"].define_metric("scores/*", step_metric="nfe")

    def _log(self, values: dict[str, float]) -> None:
        self._open["run"].log(values, step=self._open["row"], commit=True)
        self._open["row"] += 1

    def _point(self, point: Point) -> None:
        curve, step, images = (f"{what}/{point.stage}" for what in ("loss", "step", "images"))
        if curve not in self._open:
            self._open[curve] = self._open["run"].define_metric(curve, step_metric=step)
        self._log({curve: point.loss, step: point.step, images: point.images})

    def _score(self, score: Score) -> None:
        name = score_name(score)
        self._log({f"scores/{name}": score.value, "nfe": axis(score)})
        self._open["run"].summary[f"{name} nfe{axis(score)}" if axis(score) else name] = score.value

    def _end(self, ended: Ended) -> None:
        run = self._open.pop("run")
        run.summary.update({"outcome": ended.outcome, "error": ended.error})
        codes = {"ok": 0, "interrupted": 130}
        run.finish(exit_code=codes.get(ended.outcome, 1))


def _identity(name: str) -> str:
    """A name as the library takes it for an id."""
    letters = ["-" if letter in "/\\#?%:" else letter for letter in visible(name)]
    return "".join(letters)[-128:]


def _logged_in() -> bool:
    """Whether the library would find a key, so that it asks for none."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
