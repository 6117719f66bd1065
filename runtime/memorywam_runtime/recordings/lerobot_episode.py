"""One episode of a LeRobot dataset under way: the cells of its rows, and their statistics."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.images import png_from_image
from memorywam_runtime.recordings.lerobot_info import CAMERA
from memorywam_runtime.recordings.lerobot_rows import Row, Sight
from memorywam_runtime.recordings.lerobot_statistics import (
    Statistics,
    pixel_counts,
    statistics_of_numbers,
    statistics_of_pixels,
)

__all__ = ["EpisodeCells"]


class EpisodeCells:
    """Makes cells of rows, one after the other; of images it keeps the newest alone."""

    def __init__(self, index: int, first: int, row: Row, rate_hz: float) -> None:
        """Begin with an episode's first row.

        Args:
            index: Of the episode.
            first: How many rows the dataset has before it.
            row: Not taken yet.
            rate_hz: Rows a second.
        """
        self.index, self.first, self._rate_hz = index, first, rate_hz
        self._first_step = row.step
        # The cameras' clock may be another than the host's: a simulator's begins with it.
        self._captured_ns, self._received_ns = row.sight.captured_ns, row.sight.received_ns
        self.sight: Sight | None = None
        """The newest."""
        self.files: dict[str, Any] = {}
        """Its images as cells, if they go into tables: all rows with it share them."""
        self.num_bytes = self.num_rows = self.num_observed = self.num_measured = 0
        self.tasks: dict[str, None] = {}
        self._columns: dict[str, list[Any]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._newest: dict[str, NDArray[np.int64]] = {}

    def look(self, sight: Sight, *, as_files: bool) -> None:
        """Take the observation that the next rows have."""
        self.sight = sight
        self.num_observed += 1
        self._newest = {CAMERA + name: pixel_counts(one) for name, one in sight.images.items()}
        if as_files:
            pngs = {CAMERA + name: png_from_image(one) for name, one in sight.images.items()}
            self.files = {name: {"bytes": one, "path": None} for name, one in pngs.items()}
            self.num_bytes = sum(len(one) for one in pngs.values())

    def cells(self, row: Row, task_index: int) -> dict[str, Any]:
        """Return a row's cells, and count it; what only the last one has is not in there yet."""
        self.tasks[row.task] = None
        numbers: dict[str, Any] = {
            "observation.state": _cell(row.state),
            "action": _cell(row.action),
            "timestamp": np.float32(self.num_rows / self._rate_hz),
            "frame_index": self.num_rows,
            "episode_index": self.index,
            "index": self.first + self.num_rows,
            "task_index": task_index,
            "next.done": False,
            "next.success": False,
            "observed_step": row.sight.step - self._first_step,
            "captured_s": (row.sight.captured_ns - self._captured_ns) / 1e9,
            "sent_s": (row.sent_ns - self._received_ns) / 1e9,
        }
        for name, value in numbers.items():
            self._columns.setdefault(name, []).append(value)
        for name, counts in self._newest.items():
            self._counts[name] = self._counts.get(name, 0) + counts
        self.num_rows += 1
        return numbers | self.files

    def statistics(self, last: dict[str, bool]) -> dict[str, Statistics]:
        """Return those of every column, by its name.

        Args:
            last: What only the last row has.
        """
        for name, value in last.items():
            self._columns[name][-1] = value
        numbers = {
            name: statistics_of_numbers(np.array(values).reshape(self.num_rows, -1))
            for name, values in self._columns.items()
        }
        images = {n: statistics_of_pixels(one, self.num_rows) for n, one in self._counts.items()}
        return numbers | images


def _cell(values: NDArray[np.float32]) -> NDArray[np.float32] | np.float32:
    """Return a vector's cell: of LeRobot's, those of one number are that number."""
    return np.float32(values[0]) if len(values) == 1 else values
