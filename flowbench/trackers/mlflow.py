"""MLflow: a local database beside the runs unless asked otherwise, one MLflow run for each run."""

import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock

from flowbench.events import Begun, Ended, Event, Point
from flowbench.hookspecs import hookimpl
from flowbench.records import Score, Spec, digest
from flowbench.trackers import axis, parameters, quiet, require, score_name, versions

STATUS = {"ok": "FINISHED", "interrupted": "KILLED"}  # else FAILED
KEY = "flowbench.key"  # the tag by which a run is found again


@dataclass(frozen=True)
class MLflow:
    """Curves and scores for `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`."""

    needs: ClassVar[tuple[str, ...]] = ("mlflow-skinny>=3.17",)
    uri: str | None = None  # of a server or store; none: MLFLOW_TRACKING_URI, or mlflow.db in runs
    experiment: str | None = None  # none: the name of the data set

    def __post_init__(self) -> None:
        require("mlflow", *self.needs)

    @cached_property
    def _open(self) -> dict[str, Any]:
        """The client, and the id of the MLflow run that is being written."""
        return {}

    @hookimpl
    def observe(self, spec: Spec, event: Event, folder: Path) -> None:
        """Write the event to the store, which has it when this returns."""
        with quiet():
            if isinstance(event, Begun):
                self._begin(spec, event, folder)
            elif isinstance(event, Point):
                curves = {f"loss/{event.stage}": event.step}
                self._log(curves | {f"loss by images/{event.stage}": event.images}, event.loss)
            elif isinstance(event, Score):
                self._log({f"scores/{score_name(event)}": axis(event)}, event.value)
            elif isinstance(event, Ended):
                self._end(event)

    def _begin(self, spec: Spec, begun: Begun, folder: Path) -> None:
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        own = None if uri else folder.parent / "mlflow-artifacts"
        with FileLock(folder.parent / "mlflow.lock"):  # runs side by side make it only once
            client = _client(uri or f"sqlite:///{folder.parent / 'mlflow.db'}")
            experiment = _experiment(client, self.experiment or spec.dataset, own)
        key = digest(folder.name)
        found = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        tags = {KEY: key, "flowbench.attempt": str(begun.attempt), "flowbench.outcome": "running"}
        tags |= {f"version.{name}": value for name, value in versions(spec).items()}
        run = found[0] if found else client.create_run(experiment, run_name=folder.name)
        self._open.update(client=client, run=run.info.run_id)
        self._describe(tags, parameters(spec))
        client.update_run(run.info.run_id, status="RUNNING")

    def _describe(self, tags: dict[str, str], parameters: dict[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        given = [Param(_name(name), str(value)) for name, value in parameters.items()]
        marks = [RunTag(name, value) for name, value in tags.items()]
        self._open["client"].log_batch(self._open["run"], params=given, tags=marks)

    def _log(self, steps: dict[str, int], value: float) -> None:
        """One value under several names, each with its own step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_name(name), value, now, step) for name, step in steps.items()]
        self._open["client"].log_batch(self._open["run"], metrics=metrics)

    def _end(self, ended: Ended) -> None:
        self._describe({"flowbench.outcome": ended.outcome, "flowbench.error": ended.error}, {})
        self._open["client"].set_terminated(self._open["run"], STATUS.get(ended.outcome, "FAILED"))


def _client(uri: str) -> Any:
    # The library counts its uses over the network, and has this switch only.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import logging

    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _experiment(client: Any, name: str, artifacts: Path | None) -> str:
    """The id of an experiment, made if it is new."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    return client.create_experiment(name, artifact_location=artifacts and artifacts.as_uri())


def _name(name: str) -> str:
    """A name as the library takes it."""
    fine = [letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in name]
    return "".join(fine)
