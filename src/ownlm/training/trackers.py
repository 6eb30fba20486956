"""Trackers: what shows a run elsewhere while it trains. log.jsonl is the truth; a tracker gets a copy of each line.

Another tracker is one function in `TRACKERS` and its name in the signature of `pretrain`.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ownlm.console.errors import missing_extra
from ownlm.training.log import read_log

Tracker = Callable[[dict[str, Any]], None]

FOLDER = "tensorboard"
GROUPS = {"step": "train"}  # what TensorBoard's users look for; other kinds of lines keep their name


def tracker_for(name: str, run: Path, settings: Mapping[str, Any]) -> Tracker:
    """What is called with each line of the log.

    Args:
        name: of a tracker, or "none".
        run: the run folder; it exists already.
        settings: of `pretrain`, by name.

    Raises:
        UsageError: its package is not installed.
    """
    require(name)
    return TRACKERS[name](run, settings)


def require(name: str) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        UsageError: with the command that installs it.
    """
    if name == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise missing_extra("tensorboard", "tensorboard", "--report-to tensorboard")


def nothing(run: Path, settings: Mapping[str, Any]) -> Tracker:
    """The tracker of a run that reports to none."""
    return lambda line: None


def tensorboard(run: Path, settings: Mapping[str, Any]) -> Tracker:
    """Event files in `run/tensorboard/`, written and closed line by line, so that a kill loses none.

    A file's name holds no time and no host, as TensorBoard's own does: a run folder says nothing personal. A run that
    goes on starts another file, whose first event takes back what an earlier one has of its step and later ones.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    number = len(list(folder.glob("events.out.tfevents.*")))
    path = folder / f"events.out.tfevents.{number:010d}.ownlm"  # read in the order of their names

    def track(line: dict[str, Any]) -> None:
        step, values = int(line["step"]), _values(line)
        events = [Event(wall_time=time.time(), step=step, summary=values)] if values.value else []
        if not path.exists():
            start = SessionLog(status=SessionLog.START)
            events = [
                Event(wall_time=time.time(), file_version="brain.Event:2"),
                Event(wall_time=time.time(), step=step, session_log=start),
                *events,
            ]
        with path.open("ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())

    if number == 0:  # a run that has not reported until now
        for line in read_log(run / "log.jsonl"):
            track(line)
    return track


def _values(line: Mapping[str, Any]) -> Any:
    """A line's numbers as scalars `train/loss`, its texts as texts `sample/text`: a Summary."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    values, group = [], GROUPS.get(line["kind"], line["kind"])
    text = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    for name, value in line.items():
        tag = f"{group}/{name}"
        if isinstance(value, str) and name != "kind":
            tensor = TensorProto(dtype=DT_STRING, string_val=[value.encode()], tensor_shape=shape)
            values.append(Summary.Value(tag=tag, metadata=text, tensor=tensor))
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
            values.append(Summary.Value(tag=tag, simple_value=value))
    return Summary(value=values)


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "none": nothing,
    "tensorboard": tensorboard,
}
