"""One recording being written, and the thread that writes it."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memorywam_runtime.recording import Ending, Event, Header, Provenance
from memorywam_runtime.recordings.recording_mcap import McapRecorder
from memorywam_runtime.recordings.recording_messages import (
    SCHEMA_VERSION,
    StartMessage,
    time_from_ns,
)

__all__ = ["PART_ENDING", "RecordingThread", "Written"]

PART_ENDING = ".part"
"""What the name of an unfinished recording ends with."""

_FLUSH_S = 1.0
"""What a killed process may lose."""
_FINISH_S = 120.0
"""The disk's time to take what waits when an episode has ended, the arms held."""

_Numbered = tuple[int, Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one episode's recording."""

    path: Path
    num_events: int
    num_dropped: int
    """Events that found the queue full."""
    num_bytes: int
    complaint: str
    """Why it is not a whole recording; empty if it is."""


class RecordingThread:
    """Takes events without waiting, and writes them to one file."""

    def __init__(
        self, path: Path, header: Header, provenance: Provenance, queue_events: int
    ) -> None:
        """Write the header and start the thread.

        Args:
            path: What the file is called once it is whole; nothing is there yet.
            header: Of the episode.
            provenance: What it is made with.
            queue_events: That may wait.

        Raises:
            OSError: the disk refused, or an unfinished recording is there.
        """
        self._path = path
        self._part = path.with_name(path.name + PART_ENDING)
        self._queue: queue.Queue[_Numbered | Callable[[], None]] = queue.Queue(queue_events)
        self._counting = threading.Lock()
        self._sequence = 0
        self._num_written = 0
        self._failure = ""
        self.num_dropped = 0
        start = StartMessage(
            schema_version=SCHEMA_VERSION,
            header=header,
            provenance=provenance,
            monotonic=time_from_ns(time.monotonic_ns()),
            wall=time_from_ns(time.time_ns()),
        )
        self._stream = self._part.open("xb")
        try:
            self._file = McapRecorder(self._stream, start)
        except BaseException:
            self._stream.close()
            self._part.unlink(missing_ok=True)
            raise
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Number an event and leave it to the thread; leave it out if too many wait."""
        # The loop and its worker both tell; neither does more in here than this.
        with self._counting:
            self._sequence += 1
            try:
                self._queue.put_nowait((self._sequence, event))
            except queue.Full:
                self.num_dropped += 1

    def finish(self, ending: Ending | None) -> Written:
        """Write what waits and the ending; the file gets its name if it is whole."""
        sequence = self._sequence + 1

        def end() -> None:
            self._file.finish(sequence, ending, time.monotonic_ns())
            self._stream.flush()
            os.fsync(self._stream.fileno())

        with contextlib.suppress(queue.Full):
            self._queue.put(end, timeout=_FINISH_S)
        self._thread.join(_FINISH_S)
        complaint = self._complaint(ending)
        if not complaint:
            self._part.rename(self._path)
        path = self._part if complaint else self._path
        return Written(
            path=path,
            num_events=self._num_written,
            num_dropped=self.num_dropped,
            num_bytes=path.stat().st_size,
            complaint=complaint,
        )

    def _complaint(self, ending: Ending | None) -> str:
        """Say why the recording is not whole; empty if it is."""
        if self._thread.is_alive():
            return f"the disk did not take it within {_FINISH_S:.0f} s"
        if self._failure:
            return self._failure
        if self.num_dropped:
            return f"{self.num_dropped} events were left out: the disk did not keep up"
        return "" if ending is not None else "the episode did not come to its end"

    def _work(self) -> None:
        """Write until the end; after a failure, only take what comes: the loop must not stop."""
        flushed_s = time.monotonic()
        is_last = False
        while not is_last:
            item = self._next()
            is_last = callable(item)
            if self._failure:
                continue
            try:
                if callable(item):
                    item()
                elif item is not None:
                    self._file.write(*item)
                    self._num_written += 1
                if not is_last and time.monotonic() - flushed_s >= _FLUSH_S:
                    self._file.flush()
                    flushed_s = time.monotonic()
            # Whatever it was, the robot goes on and the recording says so.
            except Exception as error:
                self._failure = f"writing failed: {error or type(error).__name__}"
        with contextlib.suppress(OSError):
            self._stream.close()

    def _next(self) -> "_Numbered | Callable[[], None] | None":
        """Return what to do next; None if nothing came while a flush may be due."""
        try:
            return self._queue.get(timeout=_FLUSH_S)
        except queue.Empty:
            return None
