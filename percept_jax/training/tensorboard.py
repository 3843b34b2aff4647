"""The TensorBoard event file of a run: what metrics.jsonl holds, drawn by a tool that people know.

Written as the loop goes, by tensorboardX's file layer. Its SummaryWriter writes from a thread behind a queue; when the disk is
full that thread ends, and the run waits for it for ever.
"""

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

# Made when it is imported, where no type checker sees them.
_Event: Any = getattr(event_pb2, "Event")  # noqa: B009
_SessionLog: Any = getattr(event_pb2, "SessionLog")  # noqa: B009


class EventFile:
    """An event file in a run directory, one a process; it hides what earlier ones wrote beyond the step that it resumes at."""

    def __init__(self, folder: Path, step: int, names: Collection[str]):
        """Opens the file of a run that goes on after `step`; of the lines of metrics it takes the numbers with these names."""
        self._names = names
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}.percept")
        if step:
            self._file.write_event(_Event(step=step + 1, session_log=_SessionLog(status=_SessionLog.START)))

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds the numbers of a line of metrics. Raises OSError."""
        for name in record:
            if name in self._names:
                summary = scalar(f"{record['split']}/{name}", record[name])
                self._file.write_event(_Event(wall_time=time.time(), step=record["step"], summary=summary))
        if record["split"] != "train":
            self._file.flush()

    def close(self) -> None:
        """Raises OSError."""
        self._file.close()
