"""What a LeRobot dataset says about itself, and where its files are."""

from pathlib import Path
from typing import Any

import msgspec

from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.files import inside, read_file
from memorywam_runtime.recordings.recording_rate import checked_rate

__all__ = [
    "CAMERA",
    "DATA_FILE",
    "INFO_FILE",
    "VIDEO_FILE",
    "DatasetInfo",
    "dataset_file",
    "info_from_json",
]

INFO_FILE = "meta/info.json"
DATA_FILE = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_FILE = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
"""The layout of version 3; a dataset that claims another is refused, never followed."""

_MAX_INFO_BYTES = 1 << 24
CAMERA = "observation.images."
"""What the name of a camera's column begins with, as LeRobot writes them."""
_CAMERA_PREFIXES = (CAMERA, "observation.")


class _Feature(msgspec.Struct, frozen=True):
    """One column or one camera; what else is said about it is of no use here."""

    dtype: str
    names: Any = None


class DatasetInfo(msgspec.Struct, frozen=True):
    """The fields of `meta/info.json` that a reader needs; there are more."""

    codebase_version: str
    fps: float
    features: dict[str, _Feature]
    total_episodes: int
    data_path: str = DATA_FILE
    video_path: str | None = VIDEO_FILE
    robot_type: str | None = None

    @property
    def videos(self) -> tuple[str, ...]:
        """Cameras whose images are in videos, by column name."""
        return tuple(name for name, one in self.features.items() if one.dtype == "video")

    @property
    def images(self) -> tuple[str, ...]:
        """Cameras whose images are in the tables, by column name."""
        return tuple(name for name, one in self.features.items() if one.dtype == "image")

    @property
    def cameras(self) -> dict[str, str]:
        """Column name to camera name: `observation.images.head` is the camera `head`."""
        return {key: _camera(key) for key in (*self.videos, *self.images)}

    @property
    def action_names(self) -> tuple[str, ...]:
        """One a joint; empty where the dataset does not name them."""
        names = self.features["action"].names
        if isinstance(names, dict) and len(names) == 1:
            (names,) = names.values()
        is_plain = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return tuple(names) if is_plain else ()


def info_from_json(root: Path) -> DatasetInfo:
    """Read `meta/info.json`.

    Raises:
        InputError: none, another version, or one without images, states or actions.
    """
    file = root / INFO_FILE
    try:
        info = msgspec.json.decode(read_file(file, _MAX_INFO_BYTES), type=DatasetInfo)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: {error}; expected a LeRobot dataset of version 3") from error
    if not info.codebase_version.startswith("v3."):
        raise InputError(
            f"{root}: found a LeRobot dataset of version {info.codebase_version}; expected v3.x: "
            "convert it with LeRobot's own converter"
        )
    if info.data_path != DATA_FILE or info.video_path not in (VIDEO_FILE, None):
        raise InputError(
            f"{root}: found data in {info.data_path} and videos in {info.video_path}; expected "
            f"the layout of version 3, {DATA_FILE} and {VIDEO_FILE}"
        )
    checked_rate(file, info.fps, f"{info.fps} frames a second")
    if missing := [name for name in ("observation.state", "action") if name not in info.features]:
        raise InputError(f"{root} has no feature '{missing[0]}'; it has {sorted(info.features)}")
    names = list(info.cameras.values())
    if not names or len(set(names)) != len(names):
        raise InputError(
            f"{root}: found the cameras {names}; expected at least one, each with a name of its own"
        )
    return info


def dataset_file(root: Path, layout: str, *, chunk: int, file: int, key: str = "") -> Path:
    """Return where a file of a dataset is.

    Args:
        root: The dataset's directory.
        layout: DATA_FILE or VIDEO_FILE.
        chunk: Its chunk's number.
        file: Its own number.
        key: Column name of the camera, for a video.

    Raises:
        InputError: it is not there, or its name leads out of the dataset.
    """
    name = layout.format(chunk_index=chunk, file_index=file, video_key=key)
    try:
        path = inside(root, name)
    except BundleError as error:
        raise InputError(f"{root}: '{name}' leads out of the dataset; refused") from error
    if not path.is_file():
        raise InputError(f"{root} has no {name}; the copy is incomplete")
    return path


def _camera(key: str) -> str:
    """Return the camera's name in a column's name."""
    for prefix in _CAMERA_PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key
