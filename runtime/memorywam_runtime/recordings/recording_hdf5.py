"""Episodes of the RoboTwin and RMBench data sets: one HDF5 file each, in either of two layouts."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.files import read_file
from memorywam_runtime.images import image_from_bytes
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import Event, Header, Observed, Recording, Sent
from memorywam_runtime.recordings.recording_header import MAX_CAMERAS, MAX_JOINTS
from memorywam_runtime.recordings.recording_rate import checked_rate

try:
    import h5py
except ImportError as error:
    raise MissingPartError(
        f"HDF5 recordings cannot be read: {error}; pip install 'memorywam[hdf5]'"
    ) from error

__all__ = ["CONTROL_HZ", "read_hdf5"]

CONTROL_HZ = 250 / 15
"""Both data sets keep every 15th step of a simulation of 250 a second; files seldom say so."""

_PARTS = ("left_arm", "left_gripper", "right_arm", "right_gripper")
"""Of a vector of joints, in its order."""
_NEWER_PARTS = ("left_arm_joint_states", "left_ee_joint_states",
                "right_arm_joint_states", "right_ee_joint_states")  # fmt: skip
_MAX_STEPS = 1 << 20
_MAX_NUMBERS = 1 << 24
"""Of one array; what was never written takes no room in a file."""
_MAX_IMAGE_BYTES = 1 << 26
_MAX_CHUNK_BYTES = 1 << 28
_MAX_JSON_BYTES = 1 << 20
_HARD_LINK = 0
"""H5L_TYPE_HARD; every other kind names a place, here or in another file."""
_JPEG = b"\xff\xd8\xff"
_FILTERS = frozenset({1, 2, 3})
"""Deflate, shuffle, checksum: for any other, HDF5 would load and run a plug-in."""


class _Instructions(msgspec.Struct, frozen=True):
    """What lies beside an episode: several wordings of one task."""

    seen: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Episode:
    """A file that has been looked at; its images are still on disk."""

    states: NDArray[np.float64]
    """[steps, joints]."""
    actions: NDArray[np.float64]
    """[steps or one less, joints]; the first makes step 1."""
    cameras: dict[str, str]
    """Camera to where its images are in the file."""
    names: tuple[str, ...]
    instruction: str
    control_hz: float | None


def read_hdf5(path: Path, *, control_hz: float | None = None) -> Recording:
    """Look at an episode: its numbers are read and checked, its images are still on disk.

    It holds `/observation/CAMERA/rgb` and `/joint_action/vector`, with the instruction in
    `../instructions/NAME.json`; or, as RMBench writes it since, `/vision/CAMERA/colors`,
    `/state/*`, `/action/*` and `/instructions`. The first wording that was for training counts.
    In the former, the joints of a step are both its state and the action that led there.

    Args:
        path: The file. Nothing is read from others that it names.
        control_hz: Steps a second, where the file does not say.

    Raises:
        InputError: a part that is missing, cannot be read, is absurdly large, is kept in another
            file, or does not fit the others.
    """
    with _opened(path) as file:
        found = _newer(path, file) if _has(file, "vision") else _older(path, file)
    rate_hz = checked_rate(path, found.control_hz or control_hz or CONTROL_HZ)
    period_ns = round(1e9 / rate_hz)

    def events() -> Iterator[Event]:
        with _opened(path) as file:
            images = {
                camera: _images(path, file, place, len(found.states))
                for camera, place in found.cameras.items()
            }
            for step, state in enumerate(found.states):
                ns = step * period_ns
                if step:
                    yield Sent(step=step, action=found.actions[step - 1], received_ns=ns)
                pictures = {
                    camera: _image(kept[step], f"{path}: camera '{camera}' at step {step}")
                    for camera, kept in images.items()
                }
                seen = Observation(images=pictures, state=state, step=step)
                yield Observed(observation=seen, captured_ns=ns, received_ns=ns)
            for step in range(len(found.states), len(found.actions) + 1):
                yield Sent(step=step, action=found.actions[step - 1], received_ns=step * period_ns)

    return Recording(
        path=path,
        kind="hdf5",
        header=Header(
            instruction=found.instruction,
            max_steps=len(found.actions),
            control_hz=rate_hz,
            cameras=tuple(found.cameras),
            state_dim=found.states.shape[1],
            action_dim=found.actions.shape[1],
            action_names=found.names,
        ),
        num_events=len(found.states) + len(found.actions),
        read=events,
    )


def _older(path: Path, file: Any) -> _Episode:  # noqa: ANN401 - h5py has no types
    """Look at a file as RoboTwin writes it."""
    vector = _numbers(path, file, "joint_action/vector")
    group = _group(path, file, "joint_action")
    parts = [_numbers(path, file, f"joint_action/{part}") for part in _PARTS if _has(group, part)]
    if parts and not np.array_equal(np.concatenate(parts, axis=1), vector):
        raise InputError(
            f"{path}: found a joint_action/vector that is not {', '.join(_PARTS)} in this order; "
            "expected these: nobody could tell which joint is which"
        )
    return _Episode(
        states=vector,
        actions=vector[1:],
        cameras=_cameras(path, file, "observation", "rgb", len(vector)),
        names=_joint_names(parts) if len(parts) == len(_PARTS) else (),
        instruction=_instruction_beside(path),
        control_hz=None,
    )


def _newer(path: Path, file: Any) -> _Episode:  # noqa: ANN401
    """Look at a file as RMBench writes it since it has an action for each state."""
    states = [_numbers(path, file, f"state/{part}") for part in _NEWER_PARTS]
    actions = [_numbers(path, file, f"action/{part}") for part in _NEWER_PARTS]
    if len({len(one) for one in (*states, *actions)}) != 1:
        raise InputError(f"{path}: found states and actions of several lengths; expected one each")
    rate_hz = None
    if _has(file, "additional_info") and _has(_group(path, file, "additional_info"), "frequency"):
        rate_hz = checked_rate(path, float(_scalar(path, file, "additional_info/frequency", "iuf")))
    text = _scalar(path, file, "instructions", "OS") if _has(file, "instructions") else b"[]"
    wordings = _decoded(path, text.encode() if isinstance(text, str) else bytes(text), list[str])
    return _Episode(
        states=np.concatenate(states, axis=1),
        actions=np.concatenate(actions, axis=1),
        cameras=_cameras(path, file, "vision", "colors", len(states[0])),
        names=_joint_names(states),
        instruction=next(iter(wordings), ""),
        control_hz=rate_hz,
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file to read; say which one it is that cannot be read."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except InputError:
        raise
    # In a damaged file HDF5 stumbles over anything, and says so in as many ways.
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError) as error:
        what = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read: {what}; copy it again") from error


def _inside(path: Path, file: Any, place: str) -> Any:  # noqa: ANN401
    """Return what is at a place; links are not followed, for they may lead to other files."""
    found = file
    for name in place.split("/"):
        if not _has(found, name):
            raise InputError(f"{path} has no {place}; expected an episode of RoboTwin or RMBench")
        if found.id.links.get_info(name.encode()).type != _HARD_LINK:
            raise InputError(f"{path}: {place} is a link to elsewhere; refused: copy what it names")
        found = found[name]
    return found


def _has(group: Any, name: str) -> bool:  # noqa: ANN401
    """Is there a link of this name, wherever it leads? It is not followed, as `in` may do."""
    return isinstance(group, h5py.Group) and bool(group.id.links.exists(name.encode()))


def _group(path: Path, file: Any, place: str) -> Any:  # noqa: ANN401
    """Return a group."""
    found = _inside(path, file, place)
    if not isinstance(found, h5py.Group):
        raise InputError(f"{path}: found an array at {place}; expected a group")
    return found


def _array(path: Path, file: Any, place: str, kinds: str) -> Any:  # noqa: ANN401
    """Return an array that is wholly in this file, not yet read."""
    found = _inside(path, file, place)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in kinds:
        what = found.dtype if isinstance(found, h5py.Dataset) else "no array"
        raise InputError(f"{path}: found {what} at {place}; expected an array of kind '{kinds}'")
    if found.is_virtual or found.external:
        raise InputError(f"{path}: {place} is kept in other files; refused: copy it into this one")
    plan = found.id.get_create_plist()
    filters = {plan.get_filter(index)[0] for index in range(plan.get_nfilters())}
    if filters - _FILTERS:
        raise InputError(
            f"{path}: {place} needs the HDF5 filters {sorted(filters - _FILTERS)}; expected none, "
            "or deflate: repack the file"
        )
    chunk_bytes = int(np.prod(found.chunks or (), dtype=float)) * found.dtype.itemsize
    if chunk_bytes > _MAX_CHUNK_BYTES:
        raise InputError(f"{path}: {place} is in pieces of {chunk_bytes:,} bytes; refused")
    return found


def _scalar(path: Path, file: Any, place: str, kinds: str) -> Any:  # noqa: ANN401
    """Read a single value."""
    found = _array(path, file, place, kinds)
    if found.shape != () or found.dtype.itemsize > _MAX_JSON_BYTES:
        raise InputError(f"{path}: found {list(found.shape)} at {place}; expected a single value")
    return found[()]


def _numbers(path: Path, file: Any, place: str) -> NDArray[np.float64]:  # noqa: ANN401
    """Read an array [steps, n]; one without columns has one."""
    found = _array(path, file, place, "f")
    shape = found.shape if found.ndim == 2 else (*found.shape, 1)
    if len(shape) != 2 or not (0 < shape[0] <= _MAX_STEPS and 0 < shape[1] <= MAX_JOINTS):
        raise InputError(
            f"{path}: found the shape {list(found.shape)} at {place}; expected [steps, joints], at "
            f"most {_MAX_STEPS:,} and {MAX_JOINTS:,}"
        )
    if shape[0] * shape[1] > _MAX_NUMBERS:
        raise InputError(
            f"{path}: found {shape[0] * shape[1]:,} numbers at {place}; expected at most "
            f"{_MAX_NUMBERS:,}"
        )
    values = np.asarray(found[()], np.float64).reshape(shape)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: found NaN or infinity at {place}; expected finite numbers")
    return values


def _cameras(path: Path, file: Any, group: str, name: str, length: int) -> dict[str, str]:  # noqa: ANN401
    """Return where each camera's images are; refuse those that are not as many as the states."""
    found = {}
    for camera in sorted(_group(path, file, group))[: MAX_CAMERAS + 1]:
        if _has(_group(path, file, f"{group}/{camera}"), name):
            found[camera] = f"{group}/{camera}/{name}"
            _images(path, file, found[camera], length)
    if not 0 < len(found) <= MAX_CAMERAS:
        raise InputError(
            f"{path}: found {len(found)} cameras or more; expected {group}/CAMERA/{name}, of 1 to "
            f"{MAX_CAMERAS}"
        )
    return found


def _images(path: Path, file: Any, place: str, length: int) -> Any:  # noqa: ANN401
    """Return a camera's images [steps], not yet read."""
    found = _array(path, file, place, "S")
    if found.shape != (length,) or found.dtype.itemsize > _MAX_IMAGE_BYTES:
        raise InputError(
            f"{path}: found {list(found.shape)} images of up to {found.dtype.itemsize:,} bytes at "
            f"{place}; expected [{length}], as many as states, of at most {_MAX_IMAGE_BYTES:,}"
        )
    return found


def _image(content: bytes, what: str) -> NDArray[np.uint8]:
    """Decode one image to RGB [rows, columns, 3]; the zeros that it was filled up with are gone.

    Both data sets hand RGB to OpenCV's encoder, which takes it for BGR: in the file, red and blue
    are exchanged. OpenCV's decoder exchanges them back, so that there it seems to be RGB already;
    Pillow reads what the file says, and so they are exchanged here.
    """
    if content[: len(_JPEG)] != _JPEG:
        raise InputError(
            f"{what}: found {len(content)} bytes that begin with {content[:4].hex() or 'nothing'}; "
            "expected a JPEG image: the file is damaged or of another kind"
        )
    return np.ascontiguousarray(image_from_bytes(content, what)[..., ::-1])


def _joint_names(parts: Sequence[NDArray[np.float64]]) -> tuple[str, ...]:
    """Return a name for each joint, such as left_arm_0 and left_gripper."""
    return tuple(
        f"{name}_{joint}" if part.shape[1] > 1 else name
        for name, part in zip(_PARTS, parts, strict=True)
        for joint in range(part.shape[1])
    )


def _instruction_beside(path: Path) -> str:
    """Return the first wording in the episode's JSON file; nothing where there is none."""
    for folder in (path.absolute().parent.parent, path.absolute().parent):
        file = folder / "instructions" / f"{path.stem}.json"
        if file.is_file():
            found = _decoded(file, read_file(file, _MAX_JSON_BYTES), _Instructions)
            return next(iter((*found.seen, *found.unseen)), "")
    return ""


def _decoded(path: Path, content: bytes, kind: Any) -> Any:  # noqa: ANN401
    """Read JSON."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: {error}; expected instructions as a list of texts under 'seen'"
        ) from error
