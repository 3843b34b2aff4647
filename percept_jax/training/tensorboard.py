"""The TensorBoard event file of a run: the numbers of metrics.jsonl, for TensorBoard.

It is written from the training loop, with tensorboardX's file layer. tensorboardX's SummaryWriter writes from a thread behind a
queue; when the disk is full that thread ends, and the run would wait for it forever.
"""

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

# These classes are made at import time, so a type checker does not see them.
_Event: Any = getattr(event_pb2, "Event")  # noqa: B009
_SessionLog: Any = getattr(event_pb2, "SessionLog")  # noqa: B009


class EventFile:
    """The event file of one process in a run directory. It hides what earlier processes wrote after the step it resumes at."""

    def __init__(self, folder: Path, step: int, names: Collection[str]):
        """Opens a new event file for a run that resumes after `step`; `names` are the metrics that are written."""
        self._names = names
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}.percept")
        if step:
            self._file.write_event(_Event(step=step + 1, session_log=_SessionLog(status=_SessionLog.START)))

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the numbers of a line of metrics. Raises OSError."""
        for name in record:
            if name in self._names:
                summary = scalar(f"{record['split']}/{name}", record[name])
                self._file.write_event(_Event(wall_time=time.time(), step=record["step"], summary=summary))
        if record["split"] != "train":
            self._file.flush()

    def close(self) -> None:
        """Closes the file. Raises OSError."""
        self._file.close()
