"""Episodes of LeRobot datasets, version 3: parquet tables, and videos or embedded images."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.images import MAX_IMAGE_PIXELS, image_from_bytes
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import Event, Header, Instructed, Observed, Recording, Sent
from memorywam_runtime.recordings.lerobot_info import (
    DATA_FILE,
    VIDEO_FILE,
    DatasetInfo,
    dataset_file,
    info_from_json,
)
from memorywam_runtime.recordings.parquet_sizes import column_pieces

try:
    import av
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingPartError(
        f"LeRobot datasets cannot be read: {error}; pip install 'memorywam[lerobot]'"
    ) from error

__all__ = ["count_episodes", "read_lerobot"]

_BATCH_ROWS = 64
_MAX_META_BYTES = 1 << 28
_MAX_STEPS = 1 << 20
_MAX_VALUES = 1 << 26
"""Of one column in one group of rows; equal ones take next to no room in a file."""
_MAX_PIECE_BYTES = 1 << 31
"""Of the same, once it is unpacked."""

_Row = dict[str, Any]


def count_episodes(root: Path) -> int:
    """Return how many episodes a dataset says it has."""
    return info_from_json(root).total_episodes


def read_lerobot(root: Path, *, episode: int = 0) -> Recording:
    """Look at one episode of a dataset: its tables are checked, its images are still on disk.

    Raises:
        InputError: no dataset of version 3, no such episode, or a table or video that is missing,
            cannot be read, or does not fit the others.
    """
    info = info_from_json(root)
    entry = _episode_entry(root, info, episode)
    identity = _identity(root, entry)
    found = _data_rows(root, entry, ["observation.state", "action", *_COUNTERS])
    # One more than there should be tells as much as all of them.
    rows = list(itertools.islice(found, min(entry["length"], _MAX_STEPS) + 1))
    _check_rows(root, entry, rows)
    states, actions = _vectors(root, rows, "observation.state"), _vectors(root, rows, "action")
    tasks = _tasks(root, rows)
    changes = {k: tasks[k] for k in range(1, len(tasks)) if tasks[k] != tasks[k - 1]}
    for key in info.videos:
        _video_file(root, entry, key)

    def events() -> Iterator[Event]:
        if _identity(root, entry) != identity:
            raise InputError(f"{root} is another dataset than it was when opened; open it again")
        pictures = _pictures(root, info, entry, len(rows))
        for step, images in enumerate(pictures):
            ns = round(1e9 * rows[step]["timestamp"])
            if step in changes:
                # Whether memory was emptied is in no column; the frames before are there to keep.
                yield Instructed(
                    step=step, instruction=changes[step], keep_memory=True, received_ns=ns
                )
            seen = Observation(images=images, state=states[step], step=step)
            yield Observed(observation=seen, captured_ns=ns, received_ns=ns)
            yield Sent(step=step + 1, action=actions[step], received_ns=ns)

    return Recording(
        path=root,
        kind="lerobot",
        header=Header(
            instruction=tasks[0],
            max_steps=len(rows),
            control_hz=float(info.fps),
            cameras=tuple(info.cameras.values()),
            state_dim=states.shape[1],
            action_dim=actions.shape[1],
            action_names=info.action_names,
            robot=info.robot_type or "",
        ),
        num_events=2 * len(rows) + len(changes),
        read=events,
    )


_COUNTERS = ["timestamp", "frame_index", "episode_index", "index", "task_index"]


def _episode_entry(root: Path, info: DatasetInfo, episode: int) -> _Row:
    """Return the row of `meta/episodes` that is about one episode."""
    files = sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
    if not files:
        raise InputError(
            f"{root}: found no meta/episodes/chunk-*/file-*.parquet; expected a dataset of version "
            "3: the copy is incomplete"
        )
    wanted = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for key in info.videos:
        wanted += [f"videos/{key}/{name}" for name in _VIDEO_COLUMNS]
    for file in files:
        for row in _table(root, file, wanted):
            if row["episode_index"] == episode:
                return _checked_entry(file, row)
    raise InputError(
        f"{root} has no episode {episode}; expected 0 to {info.total_episodes - 1}, those that "
        "meta/info.json counts"
    )


_MOST_S = 1e9
"""Of a timestamp, seconds: more are not nanoseconds in 64 bits."""
_VIDEO_COLUMNS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def _checked_entry(file: Path, row: _Row) -> _Row:
    """Refuse a row whose numbers are none."""
    for name, value in row.items():
        is_time = name.endswith("_timestamp")
        fits = isinstance(value, int | float) if is_time else isinstance(value, int)
        if not fits or not np.isfinite(value) or value < 0:
            raise InputError(f"{file}: found {value!r} as {name}; expected a number of at least 0")
    return row


def _identity(root: Path, entry: _Row) -> tuple[int, int, int]:
    """Return what tells the file of an episode's rows from another in its place."""
    chunk, file = entry["data/chunk_index"], entry["data/file_index"]
    about = dataset_file(root, DATA_FILE, chunk=chunk, file=file).stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _data_rows(root: Path, entry: _Row, columns: Sequence[str]) -> Iterator[_Row]:
    """Yield the rows of one episode, in order; others in the same file are passed over."""
    file = dataset_file(
        root, DATA_FILE, chunk=entry["data/chunk_index"], file=entry["data/file_index"]
    )
    with _reading(file), pq.ParquetFile(file) as table:
        _check_columns(file, table.schema_arrow.names, columns)
        _check_sizes(file, columns)
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
            for row in batch.to_pylist():
                if row["episode_index"] == entry["episode_index"]:
                    yield row


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Say which file it is that cannot be read."""
    try:
        yield
    except InputError:
        raise
    # In a damaged file these readers stumble over anything: a text, a size, an attribute.
    except Exception as error:
        what = str(error) or type(error).__name__
        raise InputError(f"{file} cannot be read: {what}; copy it again") from error


def _check_columns(file: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a table that lacks a column."""
    if missing := [name for name in wanted if name not in found]:
        raise InputError(f"{file} has no column {missing[0]!r}; it has {sorted(found)}")


def _check_sizes(file: Path, columns: Sequence[str]) -> None:
    """Refuse a table that would take far more room in memory than in its file."""
    for piece in column_pieces(file):
        if piece.path[0] not in columns:
            continue
        count, size = piece.num_values, piece.num_bytes
        if not (0 <= count <= _MAX_VALUES and 0 <= size <= _MAX_PIECE_BYTES):
            raise InputError(
                f"{file}: found {count:,} values of {size:,} bytes in {piece.path[0]!r}; expected "
                f"at most {_MAX_VALUES:,} of {_MAX_PIECE_BYTES:,}"
            )


def _table(root: Path, file: Path, columns: Sequence[str]) -> list[_Row]:
    """Return the rows of a small table."""
    if file.stat().st_size > _MAX_META_BYTES:
        raise InputError(f"{file}: more than {_MAX_META_BYTES:,} bytes; {root} is no dataset")
    with _reading(file):
        _check_columns(file, pq.read_schema(file).names, columns)
        _check_sizes(file, columns)
        found: list[_Row] = pq.read_table(file, columns=list(columns)).to_pylist()
    return found


def _check_rows(root: Path, entry: _Row, rows: Sequence[_Row]) -> None:
    """Refuse an episode whose tables do not agree."""
    number, length = entry["episode_index"], entry["length"]
    if len(rows) != length or not rows:
        raise InputError(
            f"{root}: episode {number} has {len(rows)} rows of data; expected {length}, as "
            "meta/episodes says: the copy is incomplete"
        )
    for index, row in enumerate(rows):
        times, number_of_task = row["timestamp"], row["task_index"]
        if not (isinstance(times, int | float) and abs(times) <= _MOST_S):
            raise InputError(
                f"{root}: episode {number} has timestamp {times!r} in its row {index}; expected "
                "seconds"
            )
        if not isinstance(number_of_task, int):
            raise InputError(
                f"{root}: episode {number} has task_index {number_of_task!r} in its row {index}; "
                "expected a number"
            )
    counted = [row["frame_index"] for row in rows]
    if counted != list(range(length)):
        wrong = next(k for k, found in enumerate(counted) if found != k)
        raise InputError(
            f"{root}: episode {number} has frame_index {counted[wrong]} in its row {wrong}; "
            "expected rows in order, none missing"
        )


def _vectors(root: Path, rows: Sequence[_Row], column: str) -> NDArray[np.float64]:
    """Return one vector a row [rows, n]."""
    try:
        values = np.array([row[column] for row in rows], np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{root}: column '{column}' is not of vectors: {error}") from error
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(
            f"{root}: column '{column}' has {list(values.shape)}, or numbers that are not finite; "
            "expected [rows, joints], finite"
        )
    return values


def _tasks(root: Path, rows: Sequence[_Row]) -> list[str]:
    """Return the task of each row."""
    file = root / "meta" / "tasks.parquet"
    if not file.is_file():
        raise InputError(f"{root} has no meta/tasks.parquet; the copy is incomplete")
    with _reading(file):
        columns = pq.read_schema(file).names
    texts = next((name for name in ("task", "__index_level_0__") if name in columns), None)
    if texts is None:
        raise InputError(f"{file} has no column 'task'; it has {sorted(columns)}")
    by_number = {row["task_index"]: row[texts] for row in _table(root, file, ["task_index", texts])}
    numbers = [row["task_index"] for row in rows]
    if missing := [one for one in numbers if not isinstance(by_number.get(one), str)]:
        raise InputError(f"{file} has no task {missing[0]}; it has {list(by_number)}")
    return [str(by_number[number]) for number in numbers]


def _pictures(
    root: Path, info: DatasetInfo, entry: _Row, length: int
) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Yield the images of each step by camera."""
    streams: dict[str, Iterator[NDArray[np.uint8]]] = {
        info.cameras[key]: _video_frames(root, info, entry, key, length) for key in info.videos
    }
    rows = _data_rows(root, entry, ["episode_index", *info.images]) if info.images else iter(())
    for step in range(length):
        pictures = {name: next(frames) for name, frames in streams.items()}
        row = next(rows, {})
        for key in info.images:
            pictures[info.cameras[key]] = _embedded(root, row.get(key), f"'{key}' at step {step}")
        yield pictures


def _embedded(root: Path, cell: object, what: str) -> NDArray[np.uint8]:
    """Return an image that stands in a table."""
    content = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(content, bytes):
        raise InputError(f"{root}: {what} holds no image; expected the bytes of a PNG or JPEG file")
    return image_from_bytes(content, f"{root}: {what}")


def _video_file(root: Path, entry: _Row, key: str) -> Path:
    """Return a camera's video; refuse one that is not there."""
    return dataset_file(
        root,
        VIDEO_FILE,
        chunk=entry[f"videos/{key}/chunk_index"],
        file=entry[f"videos/{key}/file_index"],
        key=key,
    )


_CONTAINER = "mp4"


def _video_frames(
    root: Path, info: DatasetInfo, entry: _Row, key: str, length: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frame of each step: the one shown at the episode's start plus step / fps."""
    file, start_s = _video_file(root, entry, key), float(entry[f"videos/{key}/from_timestamp"])
    half_s, step = 0.5 / info.fps, 0
    # A container of this one kind, from this very file: by default a playlist under the same name
    # is one too, and whatever it names is fetched.
    with _reading(file), file.open("rb") as raw, av.open(raw, "r", _CONTAINER) as container:
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_IMAGE_PIXELS or stream.time_base is None:
            raise InputError(f"{file}: a video of {stream.width} x {stream.height}; refused")
        container.seek(max(0, int((start_s - half_s) / stream.time_base)), stream=stream)
        for frame in container.decode(stream):
            if step == length:
                return
            late_s = float(frame.time or 0.0) - (start_s + step / info.fps)
            if late_s > half_s:
                break
            if late_s >= -half_s:
                if frame.width * frame.height > MAX_IMAGE_PIXELS:
                    raise InputError(f"{file}: a frame of {frame.width} x {frame.height}; refused")
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                step += 1
    if step < length:
        raise InputError(
            f"{file} has no frame for step {step} of episode {entry['episode_index']}; expected "
            f"{length} from {start_s:g} s on at {info.fps:g} a second: the copy is incomplete"
        )
