"""TensorBoard: event files, a new one for each attempt, all of a run in one folder."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flowbench.events import Begun, Ended, Event, Point
from flowbench.hookspecs import hookimpl
from flowbench.records import Score, Spec
from flowbench.trackers import axis, parameters, require, score_name, versions

# TensorBoard forgets what came "later" than a restart if it is told of one, over all curves. It is
# told of none: stages count their steps from 1, and what was handed over does not come again.


@dataclass(frozen=True)
class TensorBoard:
    """Curves and scores for `tensorboard --logdir runs`; scores lie over NFE."""

    needs: ClassVar[tuple[str, ...]] = ("tensorboard>=2.18",)
    folder: Path | None = None  # with a folder for each run; none: `tensorboard` in the run's own

    def __post_init__(self) -> None:
        require("tensorboard", *self.needs)

    @hookimpl
    def observe(self, spec: Spec, event: Event, folder: Path) -> None:
        """Write the event to the newest file; it is closed at once, so nothing waits in memory."""
        place = folder / "tensorboard" if self.folder is None else self.folder / folder.name
        place.mkdir(parents=True, exist_ok=True)
        number = len(list(place.glob("events.out.tfevents.*")))
        if isinstance(event, Begun):
            # What a crash has torn ends a file for its readers, so an attempt begins another.
            number += 1
        path = place / f"events.out.tfevents.{number:010d}.flowbench"
        _write(path, [_event(**parts) for parts in _parts(spec, event)])


def _parts(spec: Spec, event: Event) -> list[dict[str, Any]]:
    """The fields of the records that an event becomes."""
    if isinstance(event, Begun):
        return [{"file_version": "brain.Event:2"}, *_opening(spec, event)]
    if isinstance(event, Ended):
        return _closing(event)
    if isinstance(event, Score):
        return [_scalar(f"scores/{score_name(event)}", axis(event), event.value)]
    return _curve(event)


def _curve(point: Point) -> list[dict[str, Any]]:
    return [
        _scalar(f"loss/{point.stage}", point.step, point.loss),
        _scalar(f"loss by images/{point.stage}", point.images, point.loss),
    ]


def _opening(spec: Spec, begun: Begun) -> list[dict[str, Any]]:
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    facts = parameters(spec) | {f"version.{n}": v for n, v in versions(spec).items()}
    table = "".join(f"|{name}|{value}|\n" for name, value in facts.items())
    text = f"attempt {begun.attempt}\n\n|parameter|value|\n|---|---|\n{table}"
    return [{"summary": hparams_pb(parameters(spec))}, _text("run", begun.attempt, text)]


def _closing(ended: Ended) -> list[dict[str, Any]]:
    text = ": ".join(filter(None, (ended.outcome, ended.error)))
    return [_status(ended.outcome == "ok"), _text("outcome", 0, text)]


def _status(fine: bool) -> dict[str, Any]:
    """How the run ended, as TensorBoard's table of parameters shows it."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    status = api_pb2.STATUS_SUCCESS if fine else api_pb2.STATUS_FAILURE
    ended = HParamsPluginData(
        session_end_info=SessionEndInfo(status=status, end_time_secs=time.time())
    )
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(ended),
        tensor=metadata.NULL_TENSOR,
    )
    return {"summary": Summary(value=[value])}


def _scalar(tag: str, step: int, value: float) -> dict[str, Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return {"step": step, "summary": Summary(value=[Summary.Value(tag=tag, simple_value=value)])}


def _text(tag: str, step: int, text: str) -> dict[str, Any]:
    """A remark as TensorBoard's plugin for text reads it."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    metadata = create_summary_metadata(display_name=tag, description="")
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
    return {"step": step, "summary": Summary(value=[value])}


def _event(**parts: Any) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event as Record

    return Record(wall_time=time.time(), **parts)


def _write(path: Path, records: list[Any]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("ab") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record.SerializeToString())
