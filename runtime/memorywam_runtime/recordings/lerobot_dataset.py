"""Recordings to a LeRobot dataset of version 3: an episode each, all of them or none."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_directory
from memorywam_runtime.recording import SHADOW, Recording
from memorywam_runtime.recordings.lerobot_episode import EpisodeCells
from memorywam_runtime.recordings.lerobot_features import check_alike, features_of, has_verdicts
from memorywam_runtime.recordings.lerobot_files import (
    DATA_MB,
    FILES_A_CHUNK,
    VIDEO_MB,
    DataFiles,
    VideoFiles,
    write_episodes,
    write_tasks,
)
from memorywam_runtime.recordings.lerobot_info import CAMERA, DATA_FILE, INFO_FILE, VIDEO_FILE
from memorywam_runtime.recordings.lerobot_place import DATASET
from memorywam_runtime.recordings.lerobot_rows import EpisodeRows, Row, Sight
from memorywam_runtime.recordings.lerobot_statistics import Statistics, merged_statistics
from memorywam_runtime.report import json_from_data

__all__ = ["EpisodeWritten", "write_dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeWritten:
    """What became of one recording."""

    recording: Recording
    num_rows: int
    """0: no action follows an observation, so it is no episode of the dataset."""
    num_observed: int
    """Rows with images of their own."""
    num_measured: int
    """Rows with a joint state of their own."""
    num_unseen: int
    """Actions before the first observation, left out."""
    num_unused: int
    """Observations after the last action, left out."""
    tasks: tuple[str, ...]
    cut: str | None
    """Why the recording was not read to its end, though it is no damage of the file's."""


def write_dataset(
    recordings: Sequence[Recording],
    out: Path,
    *,
    as_video: bool = False,
    overwrite: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> list[EpisodeWritten]:
    """Write recordings as the episodes of one dataset, in their order.

    Args:
        recordings: Of any kind, at least one, that fit each other; up to their damage.
        out: The dataset's directory: new, empty, or a dataset to replace.
        as_video: Images as lossless videos rather than as PNG files in the tables.
        overwrite: Replace a dataset that is there.
        told: Called with the number of events done, of all recordings.

    Returns:
        What became of each.

    Raises:
        InputError: recordings that do not fit each other, or a dataset; none with an episode in
            it; a directory that may not be replaced. Nothing has been written then.
        MissingPartError: PyAV has no encoder for videos.
    """
    check_alike(recordings)
    written: list[EpisodeWritten] = []
    with atomic_directory(out, overwrite=overwrite, kind=DATASET) as root:
        dataset = _Dataset(root, recordings, as_video=as_video)
        try:
            for index, recording in enumerate(recordings):
                before = sum(one.num_events for one in recordings[:index])
                written.append(dataset.add(recording, partial(_told_after, told, before)))
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what is told
                dataset.close()
            raise
        dataset.close()
        dataset.finish()
    return written


class _Dataset:
    """A dataset under way."""

    def __init__(self, root: Path, recordings: Sequence[Recording], *, as_video: bool) -> None:
        self._root, self._as_video = root, as_video
        self._header = recordings[0].header
        robots = {one.header.robot.removeprefix(SHADOW) for one in recordings}
        self._robot = robots.pop() if len(robots) == 1 else ""
        self._damages = [f"{one.path}: {one.damage}" for one in recordings if one.damage]
        self._with_success = has_verdicts(recordings)
        self._features: dict[str, dict[str, Any]] = {}
        self._tables: DataFiles | None = None
        self._videos: dict[str, VideoFiles] = {}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._statistics: dict[str, list[Statistics]] = {}
        self._num_rows = 0

    def add(self, recording: Recording, told: Callable[[int], None]) -> EpisodeWritten:
        """Write an episode, if there is one."""
        rows = EpisodeRows(recording, told)
        episode: EpisodeCells | None = None
        for row in rows:
            if episode is None:
                rate_hz = self._header.control_hz
                episode = EpisodeCells(len(self._episodes), self._num_rows, row, rate_hz)
            self._add_row(recording, episode, row)
        if episode is not None:
            self._end(recording, episode, is_whole=recording.damage is None and rows.cut is None)
        return EpisodeWritten(
            recording=recording,
            num_rows=0 if episode is None else episode.num_rows,
            num_observed=0 if episode is None else episode.num_observed,
            num_measured=0 if episode is None else episode.num_measured,
            num_unseen=rows.num_unseen,
            num_unused=rows.num_unused,
            tasks=() if episode is None else tuple(episode.tasks),
            cut=rows.cut,
        )

    def close(self) -> None:
        """Finish all files."""
        for one in (self._tables, *self._videos.values()):
            if one is not None:
                one.close()

    def finish(self) -> None:
        """Write what the dataset says about itself."""
        if not self._episodes:
            why = f" ({self._damages[0]})" if self._damages else ""
            raise InputError(
                f"found no action after an observation in any recording{why}; expected one: a "
                "dataset has an episode at least"
            )
        meta = self._root / "meta"
        meta.mkdir()
        write_episodes(meta / "episodes" / "chunk-000" / "file-000.parquet", self._episodes)
        write_tasks(meta / "tasks.parquet", list(self._tasks))
        merged = {name: _plain(merged_statistics(one)) for name, one in self._statistics.items()}
        (meta / "stats.json").write_text(json_from_data(merged), "utf-8")
        hz = self._header.control_hz
        info = {
            "codebase_version": "v3.0",
            "robot_type": self._robot or None,
            "total_episodes": len(self._episodes),
            "total_frames": self._num_rows,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_A_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": int(hz) if hz.is_integer() else hz,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_FILE,
            "video_path": VIDEO_FILE if self._as_video else None,
            "features": self._features,
        }
        (self._root / INFO_FILE).write_text(json_from_data(info), "utf-8")

    def _add_row(self, recording: Recording, episode: EpisodeCells, row: Row) -> None:
        """Write a row, and its images if they go into videos."""
        tables = self._begun(row.sight)
        is_new = row.sight is not episode.sight
        if is_new:
            self._check_shapes(recording, row.sight)
            episode.look(row.sight, as_files=not self._as_video)
        episode.num_measured += is_new or row.state is not row.sight.state
        for name, video in self._videos.items():
            video.add(row.sight.images[name], is_new=is_new)
        task_index = self._tasks.setdefault(row.task, len(self._tasks))
        tables.add(episode.cells(row, task_index), episode.num_bytes, is_new=is_new)

    def _begun(self, sight: Sight) -> DataFiles:
        """Return the tables; with the first row of all it is known what columns they have."""
        if self._tables is None:
            names, rate_hz = self._header.cameras, self._header.control_hz
            shapes = {name: sight.images[name].shape for name in names}
            self._features = features_of(
                self._header, shapes, as_video=self._as_video, with_success=self._with_success
            )
            self._tables = DataFiles(self._root, self._features)
            if self._as_video:
                self._videos = {n: VideoFiles(self._root, CAMERA + n, rate_hz) for n in names}
        return self._tables

    def _check_shapes(self, recording: Recording, sight: Sight) -> None:
        """Refuse other cameras than the header has, and images of another size than the first."""
        found = {name: list(image.shape) for name, image in sight.images.items()}
        expected = {name: self._features[CAMERA + name]["shape"] for name in self._header.cameras}
        if found != expected:
            raise InputError(
                f"{recording.path}: found images {found} at step {sight.step}; expected "
                f"{expected}, as the first: a dataset is of one kind, make one of each"
            )

    def _end(self, recording: Recording, episode: EpisodeCells, *, is_whole: bool) -> None:
        """Write what is known of an episode after its last row."""
        assert self._tables is not None
        last = {"next.done": is_whole}
        if self._with_success and recording.ending is not None:
            last["next.success"] = recording.ending.success == "yes"
        place = self._tables.end_episode(last)
        entry: dict[str, Any] = {
            "episode_index": episode.index,
            "tasks": list(episode.tasks),
            "length": episode.num_rows,
            "dataset_from_index": episode.first,
            "dataset_to_index": episode.first + episode.num_rows,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        entry |= {f"data/{name}": number for name, number in place.items()}
        for name, video in self._videos.items():
            key = f"videos/{CAMERA}{name}"
            entry |= {f"{key}/{what}": one for what, one in video.end_episode().items()}
        for name, found in episode.statistics(last).items():
            if name in self._features:
                self._statistics.setdefault(name, []).append(found)
                entry |= {f"stats/{name}/{what}": one for what, one in _plain(found).items()}
        self._episodes.append(entry)
        self._num_rows += episode.num_rows


def _told_after(told: Callable[[int], None], before: int, done: int) -> None:
    told(before + done)


def _plain(found: Statistics) -> dict[str, Any]:
    """Return statistics as lists; a count is a whole number."""
    lists: dict[str, Any] = {name: one.tolist() for name, one in found.items()}
    return lists | {"count": [int(found["count"][0])]}
