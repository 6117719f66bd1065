"""The columns that recordings have in common: what one LeRobot dataset can hold of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Header, Recording
from memorywam_runtime.recordings.lerobot_info import CAMERA

__all__ = ["check_alike", "features_of", "has_verdicts"]

_NUMBERS = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
    "task_index": "int64", "next.done": "bool", "next.success": "bool",
    "observed_step": "int64", "captured_s": "float64", "sent_s": "float64",
}  # fmt: skip
"""LeRobot's own, those it knows, and ours: policies look at none of the last three."""


def check_alike(recordings: Sequence[Recording]) -> None:
    """Refuse recordings that do not fit one dataset.

    Raises:
        InputError: naming the first that does not.
    """
    first = recordings[0].header
    for one in recordings:
        header = one.header
        wrong = [name for name in header.cameras if not name or "/" in name]
        if wrong or not header.cameras or 0 in (header.state_dim, header.action_dim):
            raise InputError(
                f"{one.path}: found the cameras {list(header.cameras)}, states of "
                f"{header.state_dim} and actions of {header.action_dim} numbers; expected at least "
                "one of each, and names without '/': LeRobot has no place for others"
            )
        for what, found, expected in (
            ("steps a second", header.control_hz, first.control_hz),
            ("cameras", sorted(header.cameras), sorted(first.cameras)),
            ("numbers in a state", header.state_dim, first.state_dim),
            ("numbers in an action", header.action_dim, first.action_dim),
            ("names of actions", list(header.action_names), list(first.action_names)),
        ):
            if found != expected:
                raise InputError(
                    f"{one.path}: found {what}: {found}; expected {expected}, as in "
                    f"{recordings[0].path}: a dataset is of one kind, make one of each"
                )


def has_verdicts(recordings: Sequence[Recording]) -> bool:
    """Is it known of every episode whether it succeeded? Then rows say so."""
    return all(one.ending is not None and one.ending.success != "unknown" for one in recordings)


def features_of(
    header: Header,
    shapes: Mapping[str, Sequence[int]],
    *,
    as_video: bool,
    with_success: bool,
) -> dict[str, dict[str, Any]]:
    """Return the features of `meta/info.json`.

    Args:
        header: What the recordings have in common.
        shapes: Of images [rows, columns, 3], by camera.
        as_video: Images are in videos.
        with_success: Rows say whether the episode succeeded.
    """
    names = list(header.action_names) or None
    numbers = {name: kind for name, kind in _NUMBERS.items() if name != "next.success"}
    return {
        "observation.state": {"dtype": "float32", "shape": [header.state_dim], "names": None},
        "action": {"dtype": "float32", "shape": [header.action_dim], "names": names},
        **{
            CAMERA + name: {
                "dtype": "video" if as_video else "image",
                "shape": list(shape),
                "names": ["height", "width", "channels"],
            }
            for name, shape in shapes.items()
        },
        **{
            name: {"dtype": kind, "shape": [1], "names": None}
            for name, kind in (_NUMBERS if with_success else numbers).items()
        },
    }
