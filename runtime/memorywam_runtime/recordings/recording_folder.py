"""Episodes in a plain folder: PNG images by camera and step, states and actions as numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.files import inside, read_file
from memorywam_runtime.images import image_from_bytes
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import Event, Header, Observed, Recording, Sent
from memorywam_runtime.recordings.recording_rate import checked_rate

__all__ = ["FOLDER_FILE", "FolderFile", "read_folder"]

FOLDER_FILE = "recording.json"
"""What makes a folder a recording."""

_MAX_NUMBERS_BYTES = 1 << 30
_MAX_NUMBERS = _MAX_NUMBERS_BYTES // 8
_MAX_CSV_BYTES = 1 << 26
"""Less, since lines of text take many times their bytes."""
_NPY = b"\x93NUMPY"
_MAX_JSON_BYTES = 1 << 20
_MAX_IMAGE_BYTES = 1 << 28


class FolderFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `recording.json` says."""

    instruction: str
    control_hz: float
    """Environment steps a second."""
    robot: str = ""
    action_names: tuple[str, ...] = ()


def read_folder(path: Path) -> Recording:
    """Look at a plain folder.

    It holds `recording.json`, `images/CAMERA/STEP.png` (the step as a decimal number, all cameras
    at the same ones), `states.npy` or `states.csv` with a row for every step from 0, and
    `actions.npy` or `actions.csv` with a row for every action, the first of which makes step 1.

    Raises:
        InputError: a part that is missing, cannot be read, or does not fit the others.
    """
    about = _about(path)
    states, actions = _numbers(path, "states"), _numbers(path, "actions")
    if len(states) - len(actions) not in (0, 1):
        raise InputError(
            f"{path}: found {len(states)} states and {len(actions)} actions; expected a state "
            "before each action, and at most one after the last"
        )
    if about.action_names and len(about.action_names) != actions.shape[1]:
        raise InputError(
            f"{path}: found {len(about.action_names)} action_names for actions of "
            f"{actions.shape[1]} numbers; expected as many, or none"
        )
    images = _images(path)
    steps, damage = _common_steps(images, len(states))
    num_steps = min(len(actions), damage[0] - 1) if damage else len(actions)
    period_ns = round(1e9 / about.control_hz)

    def events() -> Iterator[Event]:
        for step in range(num_steps + 1):
            if step:
                yield Sent(step=step, action=actions[step - 1], received_ns=step * period_ns)
            if step in steps:
                pictures = {name: _image(files[step]) for name, files in images.items()}
                seen = Observation(images=pictures, state=states[step], step=step)
                ns = step * period_ns
                yield Observed(observation=seen, captured_ns=ns, received_ns=ns)

    return Recording(
        path=path,
        kind="folder",
        header=Header(
            instruction=about.instruction,
            max_steps=len(actions),
            control_hz=about.control_hz,
            cameras=tuple(images),
            state_dim=states.shape[1],
            action_dim=actions.shape[1],
            action_names=about.action_names,
            robot=about.robot,
        ),
        num_events=num_steps + sum(step <= num_steps for step in steps),
        damage=damage[1] if damage else None,
        read=events,
    )


def _about(path: Path) -> FolderFile:
    """Read `recording.json`."""
    content = _content(path / FOLDER_FILE, _MAX_JSON_BYTES)
    try:
        found = msgspec.json.decode(content, type=FolderFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path / FOLDER_FILE}: {error}; expected instruction and control_hz, and if you like "
            "robot and action_names"
        ) from error
    checked_rate(path / FOLDER_FILE, found.control_hz, f"control_hz {found.control_hz}")
    return found


def _numbers(path: Path, name: str) -> NDArray[np.float64]:
    """Read an array [rows, n] from NAME.npy or NAME.csv."""
    files = [path / f"{name}{ending}" for ending in (".npy", ".csv")]
    there = [file for file in files if file.is_file()]
    if len(there) != 1:
        found = "both" if there else "neither"
        raise InputError(f"{path}: found {found} of {name}.npy and {name}.csv; expected one")
    file = _checked(path, there[0])
    size = file.stat().st_size
    most = _MAX_NUMBERS_BYTES if file.suffix == ".npy" else _MAX_CSV_BYTES
    if size > most:
        raise InputError(f"{file}: found {size:,} bytes; expected at most {most:,}")
    try:
        values = np.asarray(_parsed(file), np.float64)
    # numpy reads the header as Python's tokenizer does, and stumbles over as many things.
    except Exception as error:
        raise InputError(
            f"{file}: not an array of numbers ({error}); the file is damaged"
        ) from error
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        what = f"shape {list(values.shape)}" if np.isfinite(values).all() else "NaN or infinity"
        raise InputError(f"{file}: found {what}; expected finite numbers [rows, joints]")
    return values


def _parsed(file: Path) -> NDArray[Any]:
    """Return what a file holds; of a CSV the first line may be names."""
    if file.suffix == ".npy":
        # What begins otherwise, numpy takes for an archive or a pickle.
        with file.open("rb") as stream:
            if stream.read(len(_NPY)) != _NPY:
                raise ValueError("it does not begin as .npy files do")
        # Mapped first: that compares what the header claims with what the file has.
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
        if mapped.size > _MAX_NUMBERS:
            raise ValueError(f"{mapped.size:,} numbers; expected at most {_MAX_NUMBERS:,}")
        return np.array(mapped)
    lines = file.read_text("utf-8").splitlines()
    rows = [line.split(",") for line in lines if line.strip()]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    return np.array([[float(cell) for cell in row] for row in rows], ndmin=2)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _images(path: Path) -> dict[str, dict[int, Path]]:
    """Return each camera's files by step."""
    root = path / "images"
    cameras = sorted(one for one in root.iterdir() if one.is_dir()) if root.is_dir() else []
    found: dict[str, dict[int, Path]] = {}
    for camera in cameras:
        files: dict[int, Path] = {}
        for file in sorted(camera.glob("*.png")):
            if not (file.stem.isascii() and file.stem.isdecimal()):
                raise InputError(
                    f"{file}: expected a step's number as its name, such as 000016.png"
                )
            step = int(file.stem)
            if step in files:
                raise InputError(f"{file}: found step {step} twice, also as {files[step].name}")
            files[step] = _checked(path, file)
        found[camera.name] = files
    if not any(found.values()):
        raise InputError(f"{path}: found no images; expected images/CAMERA/STEP.png")
    return found


def _checked(root: Path, file: Path) -> Path:
    """Refuse a link that leads out of the folder."""
    try:
        return inside(root, file.relative_to(root).as_posix())
    except BundleError as error:
        raise InputError(f"{file} leads out of the recording; refused") from error


def _common_steps(
    images: dict[str, dict[int, Path]], num_states: int
) -> tuple[set[int], tuple[int, str] | None]:
    """Return the steps that all cameras have, up to the first that only some have, and why."""
    steps = sorted(set().union(*images.values()))
    for index, step in enumerate(steps):
        missing = [name for name, files in images.items() if step not in files]
        if missing:
            text = f"step {step} has no image of {missing}; it is read up to the step before"
            return set(steps[:index]), (step, text)
        if step >= num_states:
            text = f"step {step} has images and no state; it is read up to the step before"
            return set(steps[:index]), (step, text)
    return set(steps), None


def _image(file: Path) -> NDArray[np.uint8]:
    """Decode one image."""
    return image_from_bytes(_content(file, _MAX_IMAGE_BYTES), str(file))


def _content(file: Path, most: int) -> bytes:
    """Return a file's bytes, if there are not too many."""
    try:
        return read_file(file, most)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
