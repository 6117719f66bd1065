"""Files of a LeRobot dataset as they are written: parquet tables, and videos without loss."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.recordings.lerobot_info import DATA_FILE, VIDEO_FILE

try:
    import av
    import pyarrow as pa
    import pyarrow.parquet as pq
    from av.container import OutputContainer
    from av.error import FFmpegError
    from av.video.frame import PictureType
    from av.video.stream import VideoStream
except ImportError as error:
    raise MissingPartError(
        f"LeRobot datasets cannot be written: {error}; pip install 'memorywam[lerobot]'"
    ) from error

__all__ = [
    "CODEC",
    "DATA_MB",
    "FILES_A_CHUNK",
    "VIDEO_MB",
    "DataFiles",
    "VideoFiles",
    "write_episodes",
    "write_tasks",
]

FILES_A_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200
"""LeRobot's own: files in a directory, and how large one gets before the next episode begins
another."""
CODEC = "libx264rgb"
"""H.264 of the colors themselves: with crf 0 every bit comes back. What others encode in has other
colors (yuv420p), of a quarter of the places."""
_OPTIONS = {
    "crf": "0", "preset": "veryfast", "bf": "0", "g": "100000", "sc_threshold": "0",
    "forced-idr": "1",
}  # fmt: skip
_BATCH_ROWS, _BATCH_BYTES = 1024, 1 << 24
"""Rows that are written as one group, and bytes of their images after which the next new image
begins another: one that many rows repeat is in the file once a group."""
_MOST_BYTES = 1 << 26
"""After these it is repeated all the same."""

_TYPES: dict[str, Any] = {
    "float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
}  # fmt: skip


class DataFiles:
    """Writes rows, episode after episode; a few megabytes of them at a time are in memory."""

    def __init__(self, root: Path, features: Mapping[str, Mapping[str, Any]]) -> None:
        """Write nothing yet.

        Args:
            root: The dataset's directory.
            features: As in `meta/info.json`; videos are not in tables.
        """
        self._root = root
        self._schema = pa.schema(
            [(name, _type(one)) for name, one in features.items() if one["dtype"] != "video"]
        )
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0
        self._number = -1
        self._writer: Any = None

    def add(self, row: dict[str, Any], num_bytes: int, *, is_new: bool) -> None:
        """Take a row.

        Args:
            row: Column to value.
            num_bytes: Of its images.
            is_new: The row before had other images.
        """
        most = _BATCH_BYTES if is_new else _MOST_BYTES
        if len(self._rows) >= _BATCH_ROWS or self._num_bytes + num_bytes > most:
            self._flush()
        self._rows.append(row)
        self._num_bytes += num_bytes

    def end_episode(self, last: Mapping[str, Any]) -> dict[str, int]:
        """Write what is left of an episode.

        Args:
            last: What only its last row has.

        Returns:
            Where the episode is: `chunk_index` and `file_index`.
        """
        self._rows[-1].update(last)
        self._flush()
        place = _place(self._number)
        if self._file.stat().st_size >= DATA_MB << 20:
            self.close()
        return place

    def close(self) -> None:
        """Finish the file under way."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    @property
    def _file(self) -> Path:
        return self._root / DATA_FILE.format(**_place(self._number))

    def _flush(self) -> None:
        """Write what waits as one group of rows."""
        rows, self._rows, self._num_bytes = self._rows, [], 0
        if not rows:
            return
        if self._writer is None:
            self._number += 1
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._file, self._schema, dictionary_pagesize_limit=_MOST_BYTES
            )
        self._writer.write_table(pa.Table.from_pylist(rows, self._schema))


class VideoFiles:
    """Writes one camera's images, episode after episode; what comes back is equal to the bit.

    Every new image is a key frame, so that none takes more than one group to find; an image that
    stays the same takes a few bytes.
    """

    def __init__(self, root: Path, key: str, rate_hz: float) -> None:
        """Write nothing yet.

        Args:
            root: The dataset's directory.
            key: The camera's feature.
            rate_hz: Images a second.
        """
        self._root, self._key, self._rate_hz = root, key, rate_hz
        self._rate = Fraction(rate_hz).limit_denominator(1_000_000)
        self._number = -1
        self._first = self._count = self._num_bytes = 0
        self._output: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def add(self, image: NDArray[np.uint8], *, is_new: bool) -> None:
        """Append an image [rows, columns, 3].

        Raises:
            InputError: the encoder does not take it.
            MissingPartError: this PyAV has no such encoder.
        """
        if self._output is None or self._stream is None:
            self._output, self._stream = self._opened(image)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self._count, 1 / self._rate
        if is_new:
            frame.pict_type = PictureType.I
        try:
            packets = self._stream.encode(frame)
            self._num_bytes += sum(packet.size for packet in packets)
            self._output.mux(packets)
        except FFmpegError as error:
            raise InputError(
                f"{self._key}: images of {image.shape[0]} x {image.shape[1]} cannot be encoded "
                f"({error}); leave out --video"
            ) from error
        self._count += 1

    def end_episode(self) -> dict[str, int | float]:
        """Return where the episode is: its file, and from when to when in it, in seconds."""
        place: dict[str, int | float] = {
            **_place(self._number),
            "from_timestamp": self._first / self._rate_hz,
            "to_timestamp": self._count / self._rate_hz,
        }
        self._first = self._count
        if self._num_bytes >= VIDEO_MB << 20:
            self.close()
        return place

    def close(self) -> None:
        """Finish the file under way, if there is one."""
        output, stream, self._output, self._stream = self._output, self._stream, None, None
        if output is not None and stream is not None:
            with output:
                output.mux(stream.encode())

    @property
    def _file(self) -> Path:
        return self._root / VIDEO_FILE.format(video_key=self._key, **_place(self._number))

    def _opened(self, image: NDArray[np.uint8]) -> tuple[OutputContainer, VideoStream]:
        """Begin the next file."""
        self._number += 1
        self._first = self._count = self._num_bytes = 0
        self._file.parent.mkdir(parents=True, exist_ok=True)
        output = av.open(str(self._file), "w")
        try:
            added = output.add_stream(CODEC, rate=self._rate, options=_OPTIONS)
        except (ValueError, FFmpegError) as error:
            output.close()
            raise MissingPartError(
                f"PyAV {av.__version__} cannot encode {CODEC} ({error}); install its wheel, pip "
                "install --force-reinstall av, or leave out --video"
            ) from error
        stream = cast("VideoStream", added)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24"
        return output, stream


def write_tasks(file: Path, tasks: Sequence[str]) -> None:
    """Write the texts of tasks, by number; pandas takes them for the table's index."""
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    about = {
        "index_columns": ["task"],
        "columns": [
            {"name": n, "field_name": n, "pandas_type": p, "numpy_type": t, "metadata": None}
            for n, p, t in kinds
        ],
        "column_indexes": [],
        "pandas_version": "2.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    table = table.replace_schema_metadata({"pandas": msgspec.json.encode(about)})
    pq.write_table(table, file)


def write_episodes(file: Path, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Write a row an episode: where it is, and its statistics."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(episodes)), file)


def _type(feature: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return a column's type: LeRobot has a single number as itself, not as a list of one."""
    kind = _TYPES[feature["dtype"]]
    is_list = len(feature["shape"]) == 1 and feature["shape"] != [1]
    return pa.list_(kind, feature["shape"][0]) if is_list else kind


def _place(number: int) -> dict[str, int]:
    """Return which file the n-th is."""
    return {"chunk_index": number // FILES_A_CHUNK, "file_index": number % FILES_A_CHUNK}
